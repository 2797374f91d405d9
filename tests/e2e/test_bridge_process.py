"""`python -m restbridge` as a process: its start, its output and its end."""

import asyncio
import json
import re
import signal
import socket
from typing import Any

import httpx
import pytest

from process.lifetime import SECOND
from tests.support.bridge_pair import REQUEST, STREAMED, broken, contents, events
from tests.support.fake_service import Context, FakeService, chunk, serve
from tests.support.processes import Process, process
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE, wait

MODULE = "restbridge"
KEY = "sk-test-0123456789abcdef"


def environment(target: str = "127.0.0.1:1", **changes: str) -> dict[str, str]:
    return {
        "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
        "CHAT_BRIDGE_METRICS_LISTEN": "none",
        "CHAT_BRIDGE_DRAIN_DELAY": "0",
        "CHAT_SERVICE_TARGET": target,
        **changes,
    }


async def client(bridge: Process) -> httpx.AsyncClient:
    address = await bridge.address()
    return httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE, trust_env=False)


async def ended(bridge: Process) -> tuple[int, str]:
    status = await bridge.exit_status()
    return status, "\n".join(bridge.lines)


async def test_help_has_every_setting() -> None:
    async with process(MODULE, {}, "--help") as bridge:
        assert await bridge.exit_status() == 0
    text = bridge.output.decode()
    assert text.startswith("usage: python -m restbridge [--standalone]")
    assert "CHAT_SERVICE_TARGET (default: 127.0.0.1:50051)" in text


@pytest.mark.parametrize(
    ("changes", "arguments", "told"),
    [
        (
            {"CHAT_BRIDGE_TIMEOUT": "soon", "CHAT_SERVICE_TARGET": "x"},
            (),
            ["CHAT_SERVICE_TARGET must be ", "CHAT_BRIDGE_TIMEOUT must be "],
        ),
        ({}, ("--verbose",), ["unknown argument"]),
        ({"CHAT_LISTEN": "x"}, ("--standalone",), ["CHAT_LISTEN must be "]),
    ],
)
async def test_a_wrong_setting_is_named(
    changes: dict[str, str], arguments: tuple[str, ...], told: list[str]
) -> None:
    async with process(MODULE, environment() | changes, *arguments) as bridge:
        status, text = await ended(bridge)
    assert status == 2
    assert all(line in text for line in told)
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["CHAT_BRIDGE_LISTEN", "CHAT_BRIDGE_METRICS_LISTEN"])
async def test_a_port_in_use_is_named(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process(MODULE, environment(**{name: address})) as bridge:
            status, text = await ended(bridge)
    assert status == 1
    assert text.startswith(f"{name}: cannot listen on {address}: Address already in use. Port ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_stream_finish(number: signal.Signals) -> None:
    fake = FakeService()
    go_on = asyncio.Event()

    async def stream(params: Any, context: Context) -> Any:
        yield chunk("a")
        await go_on.wait()
        yield chunk("b")

    fake.stream = stream
    async with serve(fake), process(MODULE, environment(fake.address)) as bridge:
        async with (
            await client(bridge) as http,
            http.stream("POST", PATH, json=STREAMED) as response,
        ):
            parts = response.aiter_raw()
            said = await anext(parts)
            bridge.send(number)
            await bridge.event("draining")
            go_on.set()
            said += b"".join([part async for part in parts])
        assert (contents(events(said)), events(said)[-1]) == ("ab", "[DONE]")
        assert await bridge.exit_status() == 0
    assert (await bridge.event("stopped"))["level"] == "info"


@pytest.mark.parametrize("again", [True, False])
async def test_what_does_not_finish_is_ended_after_the_grace_or_at_once(*, again: bool) -> None:
    fake = FakeService()

    async def stream(params: Any, context: Context) -> Any:
        yield chunk("a")
        await asyncio.Event().wait()

    fake.stream = stream
    grace = environment(CHAT_BRIDGE_DRAIN_GRACE="3600" if again else "0.1")
    async with (
        serve(fake),
        process(MODULE, grace | {"CHAT_SERVICE_TARGET": fake.address}) as bridge,
    ):
        async with (
            await client(bridge) as http,
            http.stream("POST", PATH, json=STREAMED) as response,
        ):
            parts = response.aiter_raw()
            said = await anext(parts)
            bridge.send(signal.SIGTERM)
            assert (await bridge.event("draining"))["hint"] == SECOND
            if again:
                bridge.send(signal.SIGTERM)
            said += await broken(parts)
        assert json.loads(events(said)[-1])["error"]["code"] == "draining"
        assert await bridge.exit_status() == 0
        assert len(bridge.events("ending calls")) == again
        await wait(fake.cancelled)


async def test_the_log_has_one_line_for_a_request_and_no_secret_in_it() -> None:
    fake = FakeService()
    async with serve(fake), process(MODULE, environment(fake.address)) as bridge:
        async with await client(bridge) as http:
            await http.post(
                f"{PATH}?key=canary",
                json={**REQUEST, "messages": [{"role": "user", "content": "canary"}]},
                headers={"authorization": "Bearer canary", "x-request-id": "mine"},
            )
            await http.post(PATH, content=b'{"canary', headers={"content-type": "application/json"})
            await http.get("/canary")
        line = await bridge.event("request")
        bridge.send(signal.SIGINT)
        assert await bridge.exit_status() == 0
    assert line["request_id"] == "mine"
    assert (line["method"], line["route"], line["status"]) == ("POST", PATH, 200)
    assert [json.loads(text)["event"] for text in bridge.lines].count("request") == 3
    assert "canary" not in "\n".join(bridge.lines)


async def test_the_metrics_have_a_port_of_their_own() -> None:
    listen = {"CHAT_BRIDGE_METRICS_LISTEN": "127.0.0.1:0"}
    async with process(MODULE, environment() | listen) as bridge, await client(bridge) as http:
        port = (await bridge.event("serving"))["metrics_port"]
        await http.get("/healthz")
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        assert (await http.get("/metrics")).status_code == 404
    assert 'http_route="/healthz"' in text


@pytest.mark.parametrize("key", ["", KEY])
async def test_standalone_runs_all_and_says_how_to_use_it(key: str) -> None:
    changes = {
        "CHAT_LISTEN": "127.0.0.1:0",
        "CHAT_METRICS_LISTEN": "none",
        "CHAT_BOOTSTRAP_API_KEY": key,
        "CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN": "0",
        "CHAT_SIMULATOR_INTER_TOKEN_DELAY": "0",
    }
    async with process(MODULE, environment() | changes, "--standalone") as bridge:
        async with await client(bridge) as http:
            told = await bridge.event("serving")
            assert (await http.get("/readyz")).status_code == 200
            refused = await http.post(PATH, json={**REQUEST, "model": "default"})
            assert refused.status_code == 401
            if key:
                response = await http.post(
                    PATH,
                    json={**STREAMED, "model": "default", "max_tokens": 3},
                    headers={"authorization": f"Bearer {key}"},
                )
                assert events(response.content)[-1] == "[DONE]"
        bridge.send(signal.SIGINT)
        assert await bridge.exit_status() == 0
    text = bridge.output.decode()
    assert f"http://{told['address']}/v1" in text
    assert "simulator" in text
    [shown] = set(re.findall(r"sk-[\w-]+", text))
    assert shown == key or re.fullmatch(r"sk-live-[A-Za-z0-9_-]{43}", shown)
    assert shown not in "\n".join(bridge.lines)
    assert "curl" in text
