// The page `/playground`: options and messages -> a request -> a streamed answer and its figures.
//
// The text of the next request follows the options, unless the person edited it. The key is kept in
// the session storage of the tab, and sent to this server only.

import { add, cost, empty, events, whole } from "./events.js";
import * as snippets from "./snippets.js";
import { Turn } from "./turns.js";

const BASE = new URL("v1", location.href).href;
const KEY = "chatcompletion-key";
const NARROW = matchMedia("(max-width: 56rem)"); // the panel is above the conversation
const $ = (id) => document.getElementById(id);

let history = []; // the messages of the conversation so far
let edited = false; // whether the request was edited, so that it no longer follows the options
let models = new Map(); // the listed models, by name
let running = null; // the AbortController of the request in flight

// ------------------------------------------------------------------------------------- request

function request() {
  const text = $("prompt").value.trim();
  const system = $("system").value.trim();
  const made = {
    model: $("model").value.trim() || $("model").placeholder,
    messages: [
      ...(system ? [{ role: "system", content: system }] : []),
      ...history,
      ...(text ? [{ role: "user", content: text }] : []),
    ],
  };
  if ($("temperature").value !== "") made.temperature = Number($("temperature").value);
  if ($("limit").value !== "") made.max_completion_tokens = Number($("limit").value);
  if ($("stream").checked) {
    made.stream = true;
    made.stream_options = { include_usage: true };
  }
  return made;
}

function show() {
  if (!edited) $("raw").value = JSON.stringify(request(), null, 2);
  let problem = "";
  try {
    $("code").textContent = snippets[$("language").value](BASE, $("raw").value);
  } catch (error) {
    problem = `Not a JSON object: ${error.message}`;
    $("code").textContent = problem;
  }
  const note = edited
    ? "Edited. Send sends exactly this text."
    : "Follows the options and your message. Edit it to send exactly your text.";
  $("raw-note").textContent = problem || note;
  $("raw-note").classList.toggle("wrong", problem !== "");
  $("raw").setAttribute("aria-invalid", String(problem !== ""));
  $("discard").hidden = !edited;
  $("prompt").disabled = edited;
  $("prompt").placeholder = edited ? "The edited request is sent as it is" : "Type a message";
  $("send").textContent = edited ? "Send the edited request" : "Send";
  $("send").disabled = problem !== "" || (!edited && $("prompt").value.trim() === "");
  $("clear").disabled = running !== null || $("log").querySelector(".turn") === null;
}

// ---------------------------------------------------------------------------------------- call

async function post(body, signal) {
  return fetch(`${BASE}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...authorization() },
    body,
    signal,
    cache: "no-store",
    credentials: "omit",
  });
}

function authorization() {
  const key = $("key").value.trim();
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Read the error object of a failed response. */
async function failure(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not from the bridge: a proxy's page.
  }
  const wait = response.headers.get("retry-after");
  return {
    message: error.message ?? `The server answered with status ${response.status}.`,
    details: [
      `HTTP ${response.status}`,
      error.code,
      response.headers.get("x-request-id"),
      wait && `retry after ${wait} s`,
    ],
  };
}

async function send() {
  if (running || $("send").disabled) return;
  const body = $("raw").value;
  const sent = JSON.parse(body);
  const prompt = $("prompt").value;
  const messages = Array.isArray(sent.messages) ? sent.messages : [];
  const asked = messages.at(-1)?.content;
  running = new AbortController();
  $("blank").hidden = true;
  new Turn($("log"), "user", "You").say(typeof asked === "string" ? asked : JSON.stringify(asked ?? null, null, 2));
  const turn = new Turn($("log"), "assistant", String(sent.model ?? "Model"));
  edited = false;
  if (NARROW.matches) $("panel").open = false;
  $("prompt").value = "";
  $("send").hidden = true;
  $("stop").hidden = false;
  announce("Waiting for the answer.");
  show();
  $("stop").focus();

  let answer = empty();
  let failed = null;
  let first = null;
  let requestId = "";
  const began = performance.now();
  try {
    const response = await post(body, running.signal);
    requestId = response.headers.get("x-request-id") ?? "";
    if (!response.ok) {
      failed = await failure(response);
    } else if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
      let complete = false;
      for await (const data of events(response.body)) {
        if (data === "[DONE]") complete = true;
        else {
          const chunk = JSON.parse(data);
          if (chunk.error) failed = { message: chunk.error.message, details: [chunk.error.code, requestId] };
          else add(answer, chunk);
        }
        if (first === null && turn.has(answer)) first = performance.now() - began;
        turn.show(answer);
      }
      if (!complete) failed ??= { message: "The stream ended before it was complete.", details: [requestId] };
    } else {
      answer = whole(await response.json());
      turn.show(answer);
    }
  } catch (error) {
    if (running.signal.aborted) turn.stopped = true;
    else failed ??= { message: "The connection to the server failed.", details: [error.message, requestId] };
  }

  const said = answer.choices.get(0)?.text ?? "";
  if (failed && said === "") {
    if (prompt) $("prompt").value = prompt; // nothing is lost: it can be sent again
  } else {
    history = [
      ...messages.filter((message) => message.role !== "system"),
      { role: "assistant", content: said },
    ];
  }
  turn.end({
    failed,
    answer,
    first,
    took: performance.now() - began,
    cost: cost(answer.usage, models.get(sent.model)?.pricing),
    requestId,
  });
  running = null;
  $("send").hidden = false;
  $("stop").hidden = true;
  announce(failed ? failed.message : turn.stopped ? "Stopped." : `The answer is complete. ${turn.summary}`);
  show();
  $("prompt").focus();
}

// -------------------------------------------------------------------------------------- models

async function list() {
  const note = $("model-note");
  $("key").removeAttribute("aria-invalid");
  $("key-note").classList.remove("wrong");
  $("key-note").textContent = "Stays in this tab. Closing the tab forgets it.";
  if ($("key").value.trim() === "") {
    note.textContent = "Enter a key to list the models.";
    return;
  }
  try {
    const response = await fetch(`${BASE}/models`, { headers: authorization(), credentials: "omit" });
    if (!response.ok) {
      const { message } = await failure(response);
      note.textContent = "The models could not be listed.";
      if (response.status === 401) {
        $("key").setAttribute("aria-invalid", "true");
        $("key-note").classList.add("wrong");
        $("key-note").textContent = message;
      } else note.textContent = message;
      return;
    }
    const { data } = await response.json();
    models = new Map(data.map((model) => [model.id, model]));
    const names = [...models.keys()].filter((name) => !name.endsWith("*"));
    $("models").replaceChildren(...names.map((name) => new Option(name, name)));
    $("model").placeholder = names[0] ?? "default";
    price();
  } catch {
    note.textContent = "The server cannot be reached.";
  }
  show();
}

/** Show what the chosen model costs, or how many models there are. */
function price() {
  const model = models.get($("model").value.trim() || $("model").placeholder);
  const perMillion = (credits) => Number((Number(credits) * 1e6).toPrecision(6));
  const parts = [];
  if (model?.pricing?.prompt != null && model.pricing.completion != null) {
    const [input, output] = [model.pricing.prompt, model.pricing.completion].map(perMillion);
    if (input === 0 && output === 0) parts.push("Free");
    else parts.push(`${input} credits in, ${output} out per million tokens`);
  }
  if (model?.context_length) parts.push(`${model.context_length.toLocaleString("en")} tokens of context`);
  if (!parts.length && models.size) parts.push(models.size === 1 ? "1 model." : `${models.size} models.`);
  if (parts.length) $("model-note").textContent = parts.join(" · ");
}

// ---------------------------------------------------------------------------------------- page

function announce(text) {
  $("status").textContent = text;
}

function choose(tab) {
  for (const other of document.querySelectorAll('[role="tab"]')) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
}

function start() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given !== null) {
    // The key of a link, such as that of `make up`, goes to the tab and leaves the address.
    keep(given);
    window.history.replaceState(null, "", location.pathname + location.search);
  }
  $("key").value = kept();

  const fold = () => ($("panel").open = !NARROW.matches || $("key").value === "");
  NARROW.addEventListener("change", fold);
  fold();

  for (const id of ["prompt", "system", "temperature", "limit", "stream", "language"]) {
    $(id).addEventListener("input", show);
  }
  $("model").addEventListener("input", () => {
    price();
    show();
  });
  $("raw").addEventListener("input", () => {
    edited = true;
    show();
  });
  $("discard").addEventListener("click", () => {
    edited = false;
    show();
    $("raw").focus();
  });
  $("key").addEventListener("change", () => {
    keep($("key").value.trim());
    list();
  });
  $("reveal").addEventListener("click", () => {
    const shown = $("key").type === "password";
    $("key").type = shown ? "text" : "password";
    $("reveal").setAttribute("aria-pressed", String(shown));
  });

  const tabs = [...document.querySelectorAll('[role="tab"]')];
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[key];
      if (to === undefined) return;
      const next = tabs.at(to % tabs.length);
      choose(next);
      next.focus();
    });
  }

  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  document.addEventListener("keydown", ({ key }) => key === "Escape" && running?.abort());
  $("stop").addEventListener("click", () => running?.abort());
  $("clear").addEventListener("click", () => {
    history = [];
    for (const turn of $("log").querySelectorAll(".turn")) turn.remove();
    $("blank").hidden = false;
    announce("The conversation is cleared.");
    show();
    $("prompt").focus();
  });
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($("code").textContent);
      $("copy").textContent = "Copied";
    } catch {
      // Without TLS, browsers allow the clipboard only to pages of this machine.
      getSelection().selectAllChildren($("code"));
      $("copy").textContent = "Selected";
    }
    announce($("copy").textContent);
    setTimeout(() => ($("copy").textContent = "Copy"), 2000);
  });

  show();
  list();
}

function keep(key) {
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // Storage is off: the field alone keeps the key.
  }
}

function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

start();
