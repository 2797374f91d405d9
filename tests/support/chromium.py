"""A real Chromium without a window, driven through the DevTools protocol.

async with chromium(folder) as browser:
    page = await browser.open("http://127.0.0.1:8080/playground")
    await page.click("#send")
    await page.until("document.title === 'Done'")

The browser reads commands from descriptor 3 and writes to descriptor 4: JSON, each followed by a
zero byte. It has a profile of its own in the folder. `Page.problems` has everything that the page
wrote to the console as an error, uncaught exceptions, and violations of its security policy.
"""

import asyncio
import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.waiting import PATIENCE

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)


def binary() -> str:
    """Return the path of the browser, or skip the test; fail it if CI is set."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        assert not os.environ.get("CI"), "Chromium is missing: install the package chromium"
        pytest.skip("Chromium is missing")
    return found


class Browser:
    """A browser. Its events go to its pages.

    Args:
        reader: What the browser writes.
        writer: What the browser reads.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[str, Page] = {}
        self._last = 0

    async def listen(self) -> None:
        """Distribute answers and events until the browser ends."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if future := self._waiting.pop(message.get("id", 0), None):
                    if "error" in message:
                        future.set_exception(RuntimeError(message["error"]["message"]))
                    else:
                        future.set_result(message["result"])
                elif page := self._pages.get(message.get("sessionId", "")):
                    page.take(message["method"], message["params"])

    async def call(self, method: str, session: str = "", /, **params: Any) -> Any:
        """Run a command of the protocol and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        future = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(PATIENCE):
            return await future

    async def open(
        self, url: str, *, width: int = 1280, height: int = 800, scheme: str = "light"
    ) -> "Page":
        """Open a page and wait until it is loaded.

        Args:
            url: Its address.
            width: The width of the window, in pixels.
            height: The height of the window, in pixels.
            scheme: The colours that the person prefers: light or dark.
        """
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.call(f"{domain}.enable")
        await page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await page.call("Emulation.setEmulatedMedia", features=features)
        await page.call("Page.navigate", url=url)
        await page.until("document.readyState === 'complete'")
        return page


class Page:
    """A page of a browser.

    Args:
        browser: The browser.
        session: The id of the session with the page.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        """The URL of every request of the page."""
        self.problems: list[str] = []
        """Errors on the console, uncaught exceptions and violations of the security policy."""

    def take(self, event: str, params: Any) -> None:
        """Note an event of the page."""
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.problems.append(json.dumps(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.problems.append(params["entry"]["text"])

    async def call(self, method: str, /, **params: Any) -> Any:
        """Run a command of the protocol for the page."""
        return await self._browser.call(method, self._session, **params)

    async def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        result = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        async with asyncio.timeout(PATIENCE):
            while not await self.run(f"Boolean({condition})"):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)

    async def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def click(self, selector: str) -> None:
        """Click on an element with the mouse."""
        place = await self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    async def type(self, selector: str, text: str) -> None:
        """Replace the text of a field, as a person does who types."""
        await self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.focus(); e.select(); })()"
        )
        await self.call("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Press a key, such as "Enter", "Tab" or "ArrowRight"."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    async def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Write a picture of the page as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """Run a browser with a profile in a folder. Skip the test if there is no browser."""
    program = binary()
    loop = asyncio.get_running_loop()
    commands, ours = os.pipe()
    theirs, answers = os.pipe()
    # Chromium reads descriptor 3 and writes descriptor 4.
    script = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script, program, *FLAGS, f"--user-data-dir={folder}", "about:blank"),
        pass_fds=(commands, answers),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    reader = asyncio.StreamReader(limit=2**27)
    reading, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(theirs, "rb")
    )
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(ours, "wb"))
    browser = Browser(reader, writer)
    listening = asyncio.create_task(browser.listen())
    try:
        yield browser
        with suppress(TimeoutError, RuntimeError):
            await browser.call("Browser.close")
    finally:
        listening.cancel()
        writer.close()
        reading.close()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
