// The page at `/`: its addresses as the browser knows them, and its copy buttons.

const shown = document.getElementById("base");
const curl = document.getElementById("curl");
const base = new URL("v1", location.href).href;

// A proxy can have changed the scheme, the host or the path.
curl.textContent = curl.textContent.replaceAll(shown.textContent, base);
shown.textContent = base;

for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copies).textContent;
    const label = button.firstChild;
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
    } catch {
      // Without TLS, browsers allow the clipboard only to pages of this machine.
      getSelection().selectAllChildren(document.getElementById(button.dataset.copies));
      label.textContent = "Selected";
    }
    document.getElementById("status").textContent = label.textContent;
    setTimeout(() => (label.textContent = "Copy"), 2000);
  });
}
