"""The writes of a response, on a fake transport. `test_bridge_hostile` tests the limits."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from restbridge.http.limits import Limits
from restbridge.http.protocol import BoundedProtocol
from restbridge.telemetry import Telemetry

App = Callable[[Scope, Receive, Send], Awaitable[None]]
HEAD = {"type": "http.response.start", "status": 200, "headers": []}
SIZED = {**HEAD, "headers": [(b"content-length", b"2")]}
REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


class Pretended(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.limits: tuple[int | None, int | None] | None = None
        self.closed = False
        self.socket = socket.socket(socket.AF_UNIX)

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.socket.close()
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = high, low

    def pause_reading(self) -> None:
        pass


async def served(app: App, *requests: bytes) -> Pretended:
    """Return the transport after requests, of which each follows the response to the last."""
    config = uvicorn.Config(app, interface="asgi3", loop="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    protocol = BoundedProtocol(
        config,
        state,
        {},
        limits=Limits(),
        telemetry=Telemetry(),
        closing=lambda: False,
        draining=lambda: False,
    )
    transport = Pretended()
    protocol.connection_made(transport)
    for request in requests or (REQUEST,):
        protocol.data_received(request)
        await asyncio.gather(*state.tasks)
    protocol.connection_lost(None)
    transport.socket.close()
    return transport


def answering(*messages: dict[str, Any]) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_a_document_is_one_write() -> None:
    transport = await served(answering(SIZED, body(b"{}")))

    (written,) = transport.writes
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"\r\n\r\n{}")


async def test_of_a_stream_only_the_first_event_waits_for_nothing_but_the_head() -> None:
    transport = await served(
        answering(HEAD, body(b"a", more=True), body(b"b", more=True), body(b""))
    )

    assert transport.writes[0].endswith(b"\r\n\r\n1\r\na\r\n")
    assert transport.writes[1:] == [b"1\r\nb\r\n", b"0\r\n\r\n"]


async def test_a_stream_waits_as_soon_as_the_socket_does_not_accept_everything() -> None:
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["state"]["restbridge.connection"]
        await send(HEAD)
        await connection.drained()
        order.append("accepted")
        connection.pause_writing()
        asyncio.get_running_loop().call_soon(order.append, "read")
        asyncio.get_running_loop().call_soon(connection.resume_writing)
        await connection.drained()
        order.append("drained")
        await send(body(b""))

    transport = await served(app)

    assert order == ["accepted", "read", "drained"]
    # High 0 would pause TLS forever; a higher one would keep more than one event.
    assert transport.limits == (1, 0)


async def test_a_request_after_one_that_was_forgotten_is_read() -> None:
    methods: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        methods.append(scope["method"])
        connection = scope["state"]["restbridge.connection"]
        await receive()
        await send(HEAD)
        connection.forget_request()
        assert scope == {"method": "POST"}
        assert connection.parser is None
        await send(body(b"1"))

    transport = await served(app, REQUEST, REQUEST)

    assert methods == ["POST", "POST"]
    assert b"".join(transport.writes).count(b"1\r\n1\r\n0\r\n\r\n") == 2


async def test_a_request_within_the_response_to_a_forgotten_one_ends_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["state"]["restbridge.connection"]
        await receive()
        await send(HEAD)
        connection.forget_request()
        connection.data_received(REQUEST)
        await send(body(b"1"))

    transport = await served(app)

    assert transport.closed
    assert b"".join(transport.writes).endswith(b"1\r\n1\r\n0\r\n\r\n")


async def test_a_body_that_is_not_complete_is_read_after_its_head_is_forgotten() -> None:
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["state"]["restbridge.connection"]
        await send(HEAD)
        connection.forget_request()
        connection.data_received(b"{}")
        bodies.append((await receive())["body"])
        await send(body(b"1"))

    await served(app, REQUEST.removesuffix(b"{}"))

    assert bodies == [b"{}"]


async def test_a_large_document_is_not_copied() -> None:
    size = 64 * 1024 + 1
    head = {**HEAD, "headers": [(b"content-length", b"%d" % size)]}
    transport = await served(answering(head, body(bytes(size))))

    assert list(map(len, transport.writes[1:])) == [size]


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
async def test_a_head_alone_is_sent(method: bytes) -> None:
    sent = SIZED if method == b"HEAD" else {**HEAD, "headers": [(b"content-length", b"0")]}
    transport = await served(answering(sent, body(b"")), method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert b"".join(transport.writes).endswith(b"\r\n\r\n")


async def test_a_head_is_sent_before_the_connection_is_cut() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        scope["state"]["restbridge.connection"].cut()

    transport = await served(app)

    assert b"".join(transport.writes).endswith(b"\r\n\r\n")
    assert transport.closed


async def test_a_head_is_sent_before_an_exception_closes_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        raise RuntimeError

    transport = await served(app)

    assert b"".join(transport.writes).endswith(b"\r\n\r\n")
    assert transport.closed


async def test_a_client_that_waits_to_send_its_body_may_do_so_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        asked.cancel()
        await send(SIZED)
        await send(body(b"{}"))

    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    transport = await served(app, head)

    assert transport.writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert len(transport.writes) == 2
