"""The private parts of uvicorn that the bridge uses, which a new version can change."""

import asyncio
from importlib.metadata import version
from inspect import signature

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

METHODS = {
    HttpToolsProtocol: {
        "connection_made", "connection_lost", "data_received", "on_message_begin", "on_url",
        "on_header", "on_headers_complete", "on_message_complete", "on_response_complete",
        "shutdown", "timeout_keep_alive_handler", "_unset_keepalive_if_required",
    },
    uvicorn.Server: {"startup", "main_loop", "on_tick", "shutdown", "serve", "capture_signals"},
    FlowControl: {"drain"},
}  # fmt: skip
"""The methods that the bridge overrides or calls."""

PROTOCOL = {"cycle", "connections", "headers", "loop", "parser", "scope", "server_state"}
CYCLE = {
    "disconnected", "keep_alive", "message_event", "response_complete", "response_started",
}  # fmt: skip
STATE = {"connections", "default_headers", "tasks"}
SERVER = {"config", "servers", "server_state", "should_exit"}


async def nothing(scope: object, receive: object, send: object) -> None:
    raise AssertionError("not called")


def test_the_version_is_one_that_was_looked_into() -> None:
    assert version("uvicorn").startswith("0.54.")


@pytest.mark.parametrize("kind", METHODS)
def test_the_methods_are_there(kind: type) -> None:
    assert {name for name in METHODS[kind] if not callable(getattr(kind, name, None))} == set()


async def test_the_attributes_are_there() -> None:
    state = ServerState()
    config = uvicorn.Config(
        nothing, interface="asgi3", loop="none", lifespan="off", log_config=None
    )
    config.load()
    protocol = HttpToolsProtocol(config, state, {}, asyncio.get_running_loop())
    protocol.scope = {}  # type: ignore[typeddict-item]  # made per request
    server = uvicorn.Server(config)
    server.servers = []  # made at its start

    assert {name for name in PROTOCOL if not hasattr(protocol, name)} == set()
    assert {name for name in STATE if not hasattr(state, name)} == set()
    assert {name for name in SERVER if not hasattr(server, name)} == set()


def test_the_cycle_is_made_of_what_the_bridge_looks_at() -> None:
    source = RequestResponseCycle.__init__.__code__.co_names
    assert {*source} >= CYCLE
    assert "scope" in signature(RequestResponseCycle.__init__).parameters


def test_status_lines_are_bytes_by_code() -> None:
    assert httptools_impl.STATUS_LINE[431].startswith(b"HTTP/1.1 431 ")
