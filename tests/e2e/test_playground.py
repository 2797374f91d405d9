"""The pages in a real browser: Chromium, with a bridge, a service and an upstream behind them.

    each page        no error, no request elsewhere, no scrolling sideways, axe finds nothing
    the playground   a conversation, its figures, Stop, failures, the edited request, the keyboard
    the code         what the page shows runs: curl, Python, Node.js, and the message of grpcurl

Skipped without Chromium, and where they need them without Node and the packages of `make test`,
except in CI.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from google.protobuf import json_format

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionRequest
from restbridge.pages import PATHS
from service.simulator.text import INTRODUCTION
from tests.support.chromium import Browser, Page, chromium
from tests.support.grpc_client import KEY
from tests.support.stack import Stack, stack
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.time_limit(180)  # a browser starts slowly on a busy machine

NODE_TESTS: Final = ROOT / "tests" / "e2e" / "node"
AXE: Final = NODE_TESTS / "node_modules" / "axe-core" / "axe.min.js"
UPSTREAM: Final = "vendor/model"
WIDTHS: Final = (1280, 360)
ANSWERED: Final = "document.querySelector('.turn:last-of-type .figures')"


@asynccontextmanager
async def opened(
    folder: Path, path: str = f"/playground#key={KEY}", **arguments: Any
) -> AsyncIterator[tuple[Stack, Page]]:
    """Run a stack and open a page of its bridge."""
    models = ["sim-fault:error-event", "sim-fault:500"]
    names = {"default": UPSTREAM, **{name: name for name in models}}
    async with stack(names, **arguments) as running, chromium(folder) as browser:
        page = await browser.open(f"http://{running.bridge.address}{path}")
        if "key=" in path:
            await page.until("document.querySelector('#models').options.length")
            await page.type("#model", "default")
            await page.run("document.querySelector('#prompt').focus()")
        yield running, page


async def ask(page: Page, text: str) -> None:
    """Type a message and press Enter."""
    await page.type("#prompt", text)
    await page.press("Enter")


def sent(running: Stack) -> Any:
    """Return the last request that reached the upstream."""
    return json.loads(running.upstream.records[-1].body)


async def violations(page: Page, *besides: str) -> list[str]:
    """Return what axe finds on a page, except in elements of `besides`."""
    if not AXE.exists():
        assert not os.environ.get("CI"), "axe-core is missing: run `make test`"
        pytest.skip("axe-core is missing")
    await page.run(AXE.read_text(encoding="utf-8") + ";0")
    context = json.dumps({"exclude": [[selector] for selector in besides]})
    found = await page.run(f"axe.run({context}).then((found) => found.violations)")
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


# ---------------------------------------------------------------------------------- every page


async def look(browser: Browser, url: str, path: str) -> None:
    """Check one page in each width and in each scheme of colours."""
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            page = await browser.open(url + path, width=width, scheme=scheme)
            if path == "/docs":
                await page.until("document.querySelector('.opblock')")
            assert await page.run("document.documentElement.scrollWidth") == width
            # Swagger UI's own elements are not ours to mend.
            found = await violations(page, *(["#reference > *"] if path == "/docs" else []))
            assert found == [], (width, scheme)
            assert page.problems == []
            assert [one for one in page.requests if not one.startswith((url, "data:"))] == []


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/openapi.json"])
async def test_a_page_is_whole_local_and_accessible(tmp_path: Path, path: str) -> None:
    async with stack({"default": UPSTREAM}) as running, chromium(tmp_path) as browser:
        await look(browser, f"http://{running.bridge.address}", path)


async def test_the_reference_shows_every_operation(tmp_path: Path) -> None:
    async with opened(tmp_path, "/docs") as (_, page):
        await page.until("document.querySelectorAll('.opblock').length")
        shown = await page.run("document.querySelectorAll('.opblock').length")
        document = await page.run("fetch('openapi.json').then((found) => found.json())")
        assert shown == sum(map(len, document["paths"].values()))


async def test_the_home_page_has_the_address_of_the_server(tmp_path: Path) -> None:
    async with opened(tmp_path, "/") as (running, page):
        assert await page.text("#base") == running.base_url
        assert f"{running.base_url}/chat/completions" in await page.text("#curl")
        await page.click("[data-copies=curl]")
        await page.until("document.querySelector('#status').textContent")


# -------------------------------------------------------------------------------- conversation


async def test_an_answer_that_arrives_at_once_has_no_speed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, page):
        for took, shown in ((1099, True), (200, True), (199, False), (100, False)):
            names = await page.run(
                f"""import("./pages/turns.js").then(({{ figures }}) => figures({{
                    answer: {{ usage: {{ completion_tokens: 48 }}, choices: new Map() }},
                    first: 100, took: {took}, cost: null,
                }}).map(([name]) => name))"""
            )
            assert ("Speed" in names) is shown
            assert {"First token", "Tokens", "Total"} <= set(names)


async def test_a_conversation_streams_and_has_figures(tmp_path: Path) -> None:
    async with opened(tmp_path) as (running, page):
        await ask(page, "Hello")
        await page.until(ANSWERED)
        first = await page.text(".turn.assistant > .said")
        assert first.startswith(INTRODUCTION)
        figures = await page.text(".figures")
        for name in ("First token", "Tokens", "Cost", "Total", "Ended", "Request"):
            assert name in figures
        assert "48 out" in figures
        assert "0 credits" in figures
        assert (await page.text("#model-note")).startswith("Free")
        assert sent(running)["stream"] is True
        assert sent(running)["messages"] == [{"role": "user", "content": "Hello"}]

        await page.type("#system", "Be brief.")
        await page.type("#temperature", "0.5")
        await page.type("#limit", "7")
        await ask(page, "And now?")
        await page.until("document.querySelectorAll('.figures').length === 2")
        assert sent(running)["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": first},
            {"role": "user", "content": "And now?"},
        ]
        assert (sent(running)["temperature"], sent(running)["max_tokens"]) == (0.5, 7)
        assert "length" in await page.text(".turn:last-of-type .figures")
        assert await violations(page) == []

        await page.click("#clear")
        await page.until("!document.querySelector('.turn')")
        assert await page.run("document.activeElement.id") == "prompt"
        assert page.problems == []


async def test_an_answer_can_be_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as (running, page):
        await page.click("#stream")
        await ask(page, "Hello")
        await page.until(ANSWERED)
        assert (await page.text(".turn.assistant > .said")).startswith(INTRODUCTION)
        assert "stream" not in sent(running)


async def test_reasoning_tool_calls_and_choices_are_shown(tmp_path: Path) -> None:
    async with opened(tmp_path) as (running, page):
        deltas = (
            '{"index":0,"delta":{"role":"assistant","reasoning_content":"Let me think."}}',
            '{"index":0,"delta":{"content":"<b>One</b>"}}',
            '{"index":1,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function",'
            '"function":{"name":"weather","arguments":"{\\"city\\":"}}]}}',
            '{"index":1,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}',
            '{"index":0,"delta":{},"finish_reason":"stop"}',
            '{"index":1,"delta":{},"finish_reason":"tool_calls"}',
        )
        chunk = '{"id":"i","object":"chat.completion.chunk","created":1,"model":"m","choices":[%s]}'
        running.upstream.stream_with(UPSTREAM, [(chunk % delta).encode() for delta in deltas])
        await ask(page, "Hello")
        await page.until(ANSWERED)
        shown = await page.text(".turn.assistant")
        assert "Reasoning" in shown
        assert "<b>One</b>" in shown  # text, not markup
        assert 'weather({"city":1})' in shown
        assert "stop, tool_calls" in shown


@pytest.mark.parametrize("how", ["#stop", "Escape"])
async def test_an_answer_can_be_stopped(tmp_path: Path, how: str) -> None:
    slow = {"inter_token_delay": 0.05, "completion_tokens": 10_000}
    async with opened(tmp_path, upstream=slow) as (running, page):
        await ask(page, "Hello")
        await page.until("document.querySelector('.turn.assistant > .said')?.innerText.length > 20")
        assert await page.run("document.activeElement.id") == "stop"
        await (page.press(how) if how == "Escape" else page.click(how))
        await page.until(ANSWERED)
        assert "stopped" in await page.text(".figures")
        await running.idle()
        assert running.upstream.records[0].outcome == "caller_left"
        # What arrived stays in the conversation, and the next message can be sent.
        assert "assistant" in await page.run("document.querySelector('#raw').value")
        assert await page.run("document.activeElement.id") == "prompt"


async def test_failures_are_shown(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, page):
        await page.type("#model", "sim-fault:500")
        await page.run("document.querySelector('#prompt').focus()")
        await ask(page, "Hello")
        await page.until("document.querySelector('.failed')")
        failed = await page.text(".failed")
        assert "HTTP 502" in failed
        assert "upstream_error" in failed
        assert "req_" in failed
        assert await page.run("document.querySelector('#prompt').value") == "Hello"

        await page.type("#model", "sim-fault:error-event")
        await page.run("document.querySelector('#prompt').focus()")
        await ask(page, "Hello")
        await page.until("document.querySelectorAll('.failed').length === 2")
        assert "upstream_error" in await page.text(".turn:last-of-type .failed")
        assert await page.text(".turn:last-of-type > .said") != ""

        await page.type("#key", "sk-live-wrong-but-long-enough")
        await page.run("document.querySelector('#key').dispatchEvent(new Event('change'))")
        await page.until("document.querySelector('#key').ariaInvalid === 'true'")
        assert "key" in (await page.text("#key-note")).lower()
        assert await violations(page) == []


# ----------------------------------------------------------------------------------- the key


async def test_the_key_stays_in_the_tab(tmp_path: Path) -> None:
    awkward = "sk-live-a+b%20&c=d#e-and-more"
    async with stack({"default": UPSTREAM}) as running, chromium(tmp_path) as browser:
        url = f"http://{running.bridge.address}/playground"
        page = await browser.open(f"{url}#key={quote(awkward, safe='')}")
        assert await page.run("document.querySelector('#key').value") == awkward
        assert await page.run("location.href") == url
        assert await page.run("[history.length, localStorage.length, document.cookie]") == [
            2,
            0,
            "",
        ]
        await page.call("Page.reload")
        await page.until("document.querySelector('#key')?.value")
        assert not any(awkward in one or quote(awkward) in one for one in page.requests[1:])
        for tab in ("curl", "python", "node", "grpcurl"):
            await page.run(
                f"(() => {{ const e = document.querySelector('#language'); e.value = '{tab}';"
                "e.dispatchEvent(new Event('input')); })()"
            )
            assert awkward not in await page.run("document.body.textContent")

        other = await browser.open(url)
        assert await other.run("document.querySelector('#key').value") == ""
        assert await other.run("document.querySelector('#model-note').textContent") == (
            "Enter a key to list the models."
        )


# ------------------------------------------------------------------- the request, and keyboard


async def test_the_edited_request_is_sent_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as (running, page):
        text = '{"model":"default","top_k":5,"messages":[{"role":"user","content":"Raw"}]}'
        await page.click("#tab-request")
        await page.type("#raw", text)
        assert await page.run("document.querySelector('#prompt').disabled") is True
        await page.click("#send")
        await page.until(ANSWERED)
        assert sent(running)["top_k"] == 5
        assert await page.text(".turn.user .said") == "Raw"
        assert "Raw" in await page.run("document.querySelector('#raw').value")

        await page.type("#raw", "{broken")
        assert await page.run("document.querySelector('#send').disabled") is True
        assert "Not a JSON object" in await page.text("#raw-note")
        await page.click("#discard")
        assert await page.run("document.querySelector('#prompt').disabled") is False
        assert await page.run("document.activeElement.id") == "raw"


async def test_everything_is_reached_with_the_keyboard(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, page):
        await page.type("#prompt", "Hello")
        await page.run("document.activeElement.blur()")
        await page.run("document.querySelector('.skip').focus()")
        reached = []
        for _ in range(20):
            reached.append(await page.run("document.activeElement.id"))
            await page.press("Tab")
        order = ["key", "reveal", "model", "tab-options", "pane-options", "system", "temperature"]
        order += ["limit", "stream", "log", "prompt", "send"]
        assert [one for one in reached if one] == order

        await page.run("document.querySelector('#tab-options').focus()")
        right, left = "ArrowRight", "ArrowLeft"
        for key, tab in ((right, "request"), (right, "code"), (right, "options"), (left, "code")):
            await page.press(key)
            assert await page.run("document.activeElement.id") == f"tab-{tab}"
            assert await page.run(f"document.querySelector('#pane-{tab}').hidden") is False
            assert await violations(page) == []


# ---------------------------------------------------------------------------------- the code

REQUEST: Final = {
    "model": "default",
    "messages": [
        {"role": "system", "content": 'It\'s "so" \\ brief\n$HOME `id`'},
        {"role": "user", "content": [{"type": "text", "text": "Grüße 😀"}]},
    ],
    "temperature": 0.5,
    "stop": "END",
    "top_k": 5,
    "seed": None,
    "logit_bias": {"1": -1.5},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": "none",
    "stream": True,
    "stream_options": {"include_usage": True},
}


async def code(page: Page, language: str, request: dict[str, Any]) -> str:
    """Return the code that the page shows for a request."""
    await page.run(
        f"(() => {{ const e = document.querySelector('#language'); e.value = '{language}'; }})()"
    )
    await page.click("#tab-request")
    await page.type("#raw", json.dumps(request, indent=2, ensure_ascii=False))
    return str(await page.run("document.querySelector('#code').textContent"))


async def run(*command: str, cwd: Path) -> str:
    """Run a command that must succeed, and return its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={"PATH": os.environ.get("PATH", ""), "CHAT_KEY": KEY},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        printed, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    return printed.decode()


@pytest.mark.parametrize("language", ["curl", "python", "node"])
async def test_the_code_sends_the_request(tmp_path: Path, language: str) -> None:
    node = shutil.which("node")
    if language == "node" and (node is None or not (NODE_TESTS / "node_modules/openai").exists()):
        assert not os.environ.get("CI"), "Node or its packages are missing: run `make test`"
        pytest.skip("Node or its packages are missing")
    streamless = {
        name: value for name, value in REQUEST.items() if name not in {"stream", "stream_options"}
    }
    async with opened(tmp_path / "profile") as (running, page):
        for request in (REQUEST, streamless):
            text = await code(page, language, request)
            command, cwd = {
                "curl": (("sh", "-c", text), tmp_path),
                "python": ((sys.executable, "-W", "error", "-c", text), tmp_path),
                "node": ((node or "", "--input-type=module", "--eval", text), NODE_TESTS),
            }[language]
            printed = await run(*command, cwd=cwd)
            assert INTRODUCTION.split()[0] in printed
            received = sent(running)
            assert received.pop("max_tokens")
            expected = {**request, "model": UPSTREAM}
            # An SDK drops a null.
            for document in (received, expected):
                document.pop("seed", None)
            assert received == expected
            assert KEY not in text


async def test_the_message_of_grpcurl_is_the_request(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, page):
        text = await code(page, "grpcurl", REQUEST)
        assert "chatcompletion.v1.ChatCompletionService/StreamChatCompletion" in text
        body = await page.run(
            "import('/pages/snippets.js').then((found) => JSON.stringify({params: found.message("
            f"{json.dumps(REQUEST)})}}))"
        )
        message = json_format.Parse(body, StreamChatCompletionRequest())
        params = openai_json.canonicalize_request(message.params)
        streamless = {name: value for name, value in REQUEST.items() if name != "stream"}
        assert json.loads(openai_json.encode_request(params)) == streamless


async def test_the_scripts_know_the_members_of_the_contract(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, page):
        named = await page.run("import('/pages/snippets.js').then((found) => [...found.NAMED])")
        assert set(named) == openai_json.member_names(ChatCompletionParams)


COSTS: Final[tuple[tuple[Any, Any, float | None], ...]] = (
    ({"cost": 0.25}, {"prompt": "1", "completion": "1"}, 0.25),
    ({"cost": "0.25"}, None, 0.25),
    ({"prompt_tokens": 3, "completion_tokens": 2}, {"prompt": "0.5", "completion": "2"}, 5.5),
    ({"prompt_tokens": 3}, {"prompt": "0.5"}, None),
    ({"prompt_tokens": 3}, None, None),
    (None, {"prompt": "0.5", "completion": "2"}, None),
)
"""A usage, the prices of the model, and the cost that the page shows."""


async def test_the_cost_is_the_reported_one_or_follows_from_the_prices(tmp_path: Path) -> None:
    async with opened(tmp_path, "/docs") as (_, page):
        for usage, pricing, cost in COSTS:
            arguments = f"{json.dumps(usage)}, {json.dumps(pricing)}"
            found = await page.run(
                f"import('/pages/events.js').then((found) => found.cost({arguments}))"
            )
            assert found == cost
