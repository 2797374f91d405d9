"""Requests that no client library sends, on raw sockets: a clear error, and no other effect."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from restbridge.http.limits import Limits
from tests.support.bridge_pair import REQUEST, STREAMED, Pair, bridged
from tests.support.running_bridge import PATH
from tests.support.waiting import wait

HOST = b"Host: a\r\n"
GET = b"GET /v1/models HTTP/1.1\r\n" + HOST
POST = f"POST {PATH} HTTP/1.1\r\n".encode() + HOST
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = json.dumps(REQUEST).encode()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with bridged() as running:
        yield running


def changed(**limits: Any) -> Callable[[Limits], Limits]:
    return lambda usual: replace(usual, **limits)


async def refused(pair: Pair, data: bytes, status: int, code: str) -> None:
    """Assert that the bridge rejects these bytes, closes the connection and serves others."""
    async with pair.connect() as raw:
        answer = await raw.ask(data)
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
        assert answer.headers["connection"] == "close"
        assert await raw.end() == b""
    await pair.works()


# ---------------------------------------------------------------------------- not one HTTP request


MALFORMED = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 64,
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"BREW /v1/models HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /v1/models HTTP/0.9\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET /v1/models HTTP/2.0\r\n" + HOST + b"\r\n",
    "a path outside of ASCII": "GET /v1/models/ü HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "no path": b"GET http://elsewhere HTTP/1.1\r\n" + HOST + b"\r\n",
    "no Host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two Hosts": GET + HOST + b"\r\n",
    "a Host that is none": b"GET /v1/models HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a folded line": GET + b"X: a\r\n b\r\n\r\n",
    "bare line feeds": b"GET /v1/models HTTP/1.1\nHost: a\n\n",
    "a space before the colon": b"GET /v1/models HTTP/1.1\r\nHost : a\r\n\r\n",
    "a NUL": GET + b"X: a\0b\r\n\r\n",
    "a bare carriage return": GET + b"X: a\rb\r\n\r\n",
    "CL and TE": POST + JSON + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "TE and CL": POST + JSON + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "two equal CL": POST + JSON + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two CL": POST + JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of CL": POST + JSON + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed CL": POST + JSON + b"Content-Length: +2\r\n\r\n{}",
    "TE twice": POST + JSON + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "TE that is not last": POST + JSON + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE of more": POST + JSON + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE misspelt": POST + JSON + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": f"POST {PATH} HTTP/1.0\r\n".encode() + HOST + CHUNKED + b"\r\n0\r\n\r\n",
    "a chunk of negative size": POST + JSON + CHUNKED + b"\r\n-1\r\n",
    "a chunk of too large a size": POST + JSON + CHUNKED + b"\r\nfffffffffffffffff\r\n",
    "a chunk longer than it says": POST + JSON + CHUNKED + b"\r\n2\r\n{}}\r\n0\r\n\r\n",
    "a chunk with a bare line feed": POST + JSON + CHUNKED + b"\r\n2\n{}\n0\n\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_one_request_is_400(pair: Pair, data: bytes) -> None:
    await refused(pair, data, 400, "malformed_request")
    assert pair.service.asked != []  # the request after it
    assert len(pair.service.asked) == 1


async def test_a_request_id_is_kept_on_a_refusal_too(pair: Pair) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(GET + b"X-Request-Id: mine\r\n" + HOST + b"\r\n")
    assert answer.headers["x-request-id"] == "mine"


async def test_a_request_id_is_not_that_of_the_request_before(pair: Pair) -> None:
    async with pair.connect() as raw:
        first = await raw.ask(GET + b"X-Request-Id: mine\r\n\r\n")
        second = await raw.ask(b"\x00")
    assert (first.headers["x-request-id"], second.status) == ("mine", 400)
    assert second.headers["x-request-id"] != "mine"


async def test_a_malformed_end_of_a_body_does_not_reach_the_service(pair: Pair) -> None:
    async with pair.connect() as raw:
        await raw.send(POST + JSON + CHUNKED + b"\r\n%x\r\n%b\r\n" % (len(BODY), BODY))
        answer = await raw.ask(b"oops\r\n")
        assert (answer.status, answer.error["code"]) == (400, "malformed_request")
    assert pair.service.asked == []


# ----------------------------------------------------------------------------- too much, too slow


@pytest.mark.parametrize(
    "data",
    [
        GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        GET + b"X" * 100_000 + b": a\r\n\r\n",
        GET + b"X: a\r\n" * 101 + b"\r\n",
        GET + b"".join(b"X%d: " % i + b"a" * 1000 + b"\r\n" for i in range(80)) + b"\r\n",
        b"GET /v1/models/" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        GET + b"X: " + b"a" * 1_000_000,
    ],
    ids=["value", "name", "many", "sum", "path", "endless"],
)
async def test_too_long_a_head_is_431(pair: Pair, data: bytes) -> None:
    await refused(pair, data, 431, "headers_too_large")


async def test_a_head_that_drips_is_431_in_the_end(pair: Pair) -> None:
    async with pair.connect() as raw:
        await raw.send(GET + b"X: ")
        for _ in range(80):
            await raw.send(b"a" * 1000)
            await pair.http.get("/healthz")
        answer = await raw.answer()
        assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
    await pair.works()


@pytest.mark.parametrize("key", [b"a" * 16_000, b"a" * 5000, b"\xff" * 40, b"a\tb"])
async def test_a_key_that_is_none_is_not_carried(pair: Pair, key: bytes) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(GET + b"Authorization: Bearer " + key + b"\r\n\r\n")
    assert answer.status == 200  # the fake service accepts a call without a key
    assert "authorization" not in pair.service.metadata[0]


async def test_two_keys_are_none(pair: Pair) -> None:
    async with pair.connect() as raw:
        await raw.ask(GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n")
    assert "authorization" not in pair.service.metadata[0]


async def test_a_slow_head_is_408() -> None:
    async with bridged(change=changed(head_seconds=0.05)) as pair:
        await refused(pair, GET, 408, "request_timeout")
        await refused(pair, b"G", 408, "request_timeout")
        # Line breaks before a request do not count.
        async with pair.connect() as raw:
            await raw.send(b"\r\n")
            assert (await raw.answer()).status == 408


async def test_a_second_head_is_timed_too() -> None:
    async with bridged(change=changed(head_seconds=0.05)) as pair, pair.connect() as raw:
        assert (await raw.ask(GET + b"\r\n")).status == 200
        assert (await raw.ask(b"GET ")).status == 408


async def test_a_connection_without_a_request_is_closed() -> None:
    async with bridged(change=changed(head_seconds=0.05)) as pair, pair.connect() as raw:
        assert await raw.end() == b""


async def test_the_kernel_resets_a_connection_whose_client_takes_nothing(pair: Pair) -> None:
    """The kernel's timeout runs from the first byte that is not acknowledged."""
    async with pair.connect() as raw:
        await raw.ask(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        here = raw.writer.get_extra_info("sockname")
        (accepted,) = [
            connection.transport.get_extra_info("socket")
            for connection in pair.bridge._server.server_state.connections
            if connection.transport.get_extra_info("peername") == here
        ]
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000


async def test_an_idle_connection_is_closed() -> None:
    async with bridged(change=changed(idle_seconds=0.05)) as pair, pair.connect() as raw:
        assert (await raw.ask(GET + b"\r\n")).status == 200
        assert await raw.end() == b""


@pytest.mark.parametrize("begin", [b"Content-Length: 9\r\n\r\n{", CHUNKED + b"\r\n1\r\n{\r\n"])
async def test_a_slow_body_is_408(begin: bytes) -> None:
    async with bridged(change=changed(body_seconds=0.05)) as pair:
        await refused(pair, POST + JSON + begin, 408, "request_timeout")
        assert len(pair.service.asked) == 1


@pytest.mark.parametrize("length", [True, False])
async def test_a_large_body_is_413_and_the_answer_arrives(pair: Pair, *, length: bool) -> None:
    body = b'{"a":"' + b"x" * 40_000_000 + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    response = await pair.http.post(
        PATH,
        content=body if length else pieces(),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert response.headers["connection"] == "close"
    await pair.works()


async def test_a_length_that_is_too_large_is_refused_before_the_body(pair: Pair) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(
            POST + JSON + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n"
        )
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


async def test_a_body_of_the_limit_is_read() -> None:
    async with bridged(CHAT_MAX_REQUEST_BYTES="4096") as pair:
        for size, status in ((4096, 200), (4097, 413)):
            body = BODY + b" " * (size - len(BODY))
            response = await pair.http.post(
                PATH, content=body, headers={"content-type": "application/json"}
            )
            assert response.status_code == status


async def test_all_bodies_together_are_limited() -> None:
    async with bridged(change=changed(bodies_bytes=200_000)) as pair:
        async with pair.connect() as raw:
            await raw.send(POST + JSON + b"Content-Length: 200001\r\n\r\n" + b" " * 150_000)
            async with pair.connect() as other:
                head = POST + JSON + b"Content-Length: 100000\r\n\r\n"
                answer = await other.ask(head + b" " * 100_000)
                # The later one of the two.
                assert answer.status in {400, 503}
        await pair.works()


async def test_a_body_in_single_bytes_is_read(pair: Pair) -> None:
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    async with pair.connect() as raw:
        answer = await raw.ask(POST + JSON + CHUNKED + b"\r\n" + pieces)
    assert answer.status == 200


async def test_headers_after_the_body_are_dropped(pair: Pair) -> None:
    body = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    async with pair.connect() as raw:
        answer = await raw.ask(
            POST + JSON + CHUNKED + b"\r\n" + body + b"Authorization: Bearer x\r\n\r\n"
        )
        assert answer.status == 200
        assert (await raw.ask(GET + b"\r\n")).status == 200
    assert all("authorization" not in metadata for metadata in pair.service.metadata)


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/nope"])
async def test_a_body_where_none_belongs_is_not_the_next_request(pair: Pair, path: str) -> None:
    async with pair.connect() as raw:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n".encode()
        smuggled = GET + b"\r\n"
        answer = await raw.ask(head % len(smuggled) + smuggled)
        assert answer.status in {200, 404}
        if answer.headers.get("connection") == "close":
            assert await raw.end() == b""
        else:
            assert (await raw.ask(b"BREW\r\n\r\n")).status == 400
    await pair.works()


async def test_connections_are_limited() -> None:
    async with bridged(CHAT_BRIDGE_MAX_CONNECTIONS="1") as pair, pair.connect() as raw:
        assert (await raw.ask(GET + b"\r\n")).status == 200
        async with pair.connect() as other:
            answer = await other.answer()
            assert (answer.status, answer.error["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert await other.end() == b""
        assert (await raw.ask(GET + b"\r\n")).status == 200


# ------------------------------------------------------------------------------ unusual, but right


async def test_a_second_request_is_served_after_the_first(pair: Pair) -> None:
    async with pair.connect() as raw:
        for _ in range(3):
            assert (await raw.ask(GET + b"\r\n")).status == 200
            assert (
                await raw.ask(POST + JSON + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
            ).status == 200


async def test_a_second_request_before_the_answer_is_not_answered(pair: Pair) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(GET + b"\r\n" + GET + b"\r\n")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await raw.end() == b""
    assert len(pair.service.metadata) == 1


async def test_a_request_in_single_bytes_is_answered(pair: Pair) -> None:
    async with pair.connect() as raw:
        for byte in POST + JSON + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY):
            await raw.send(bytes([byte]))
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_upgrade_is_ignored(pair: Pair, framing: str) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    framed = {
        "length": b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
        "chunked": CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    }[framing]
    async with pair.connect() as raw:
        assert (await raw.ask(GET + upgrade + b"\r\n")).status == 200
        assert (await raw.ask(POST + JSON + upgrade + framed)).status == 200
        # The body can also follow later.
        head, _, body = framed.partition(b"\r\n\r\n")
        await raw.send(POST + JSON + upgrade + head + b"\r\n\r\n")
        assert (await raw.ask(body)).status == 200
        assert (await raw.ask(GET + b"\r\n")).status == 200
    assert len(pair.service.asked) == 2


async def test_expect_is_answered(pair: Pair) -> None:
    async with pair.connect() as raw:
        await raw.send(
            POST + JSON + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        )
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await raw.ask(BODY)).status == 200


async def test_an_old_client_is_answered(pair: Pair) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_an_absolute_url_is_its_path(pair: Pair) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(b"GET http://elsewhere/v1/models HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.status == 200


async def test_many_idle_connections_leave_the_others_alone(pair: Pair) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", pair.bridge.port) for _ in range(200)]
    await pair.works()
    for _, writer in idle:
        writer.close()


async def test_leaving_within_the_body_ends_the_exchange(pair: Pair) -> None:
    async with pair.connect() as raw:
        await raw.send(POST + JSON + b"Content-Length: 100\r\n\r\n{")
        while not pair.bridge.running:
            await pair.http.get("/healthz")
    while pair.bridge.running:
        await pair.http.get("/healthz")
    assert pair.service.asked == []


async def test_a_malformed_second_request_does_not_spoil_a_stream(pair: Pair) -> None:
    body = json.dumps(STREAMED).encode()
    async with pair.connect() as raw:
        await raw.send(POST + JSON + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await wait(pair.service.begun)
        await raw.send(b"\x00\x01\x02 nonsense\r\n\r\n")
        said = await raw.end()
    assert said.startswith(b"HTTP/1.1 200")
