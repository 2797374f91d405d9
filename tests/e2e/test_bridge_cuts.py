"""Broken responses, over sockets: no client can treat one as complete."""

import asyncio
import json
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import pytest

from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from restbridge.server import Bridge
from tests.support.bridge_pair import REQUEST, STREAMED, Pair, bridged, contents, events, settings
from tests.support.fake_service import Stream, chunk, completion, fail
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE, until

LAST_CHUNK: Final = b"0\r\n\r\n"
LABELS: Final = {
    "http_request_method": "POST",
    "http_route": PATH,
    "http_response_status_code": "200",
    "error_type": "UPSTREAM_ERROR",
}


def post(document: Any, version: str = "1.1") -> bytes:
    body = json.dumps(document).encode()
    head = f"POST {PATH} HTTP/{version}\r\nHost: a\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def breaking(*said: str) -> Stream:
    """Return a handler that sends these contents and fails."""

    async def stream(
        params: ChatCompletionParams, context: Any
    ) -> AsyncIterator[ChatCompletionChunk]:
        for content in said:
            yield chunk(content)
        await fail(context, "UPSTREAM_ERROR", message="broken")

    return stream


def unchunked(body: bytes) -> bytes:
    """Return the data of the chunks of a body; each must be complete."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        whole, body = whole + rest[:length], rest[length + 2 :]
    return whole


def cut(said: bytes) -> list[str]:
    """Return the events of a response without its last chunk."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ntransfer-encoding: chunked" in head
    assert not body.endswith(LAST_CHUNK)
    return events(unchunked(body))


def code_of(event: str) -> str:
    code: str = json.loads(event)["error"]["code"]
    return code


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that uvicorn does not log such an end as an error."""
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        yield
    lines = [*caplog.get_records("call"), *caplog.records]
    assert [line.getMessage() for line in lines if line.name == "uvicorn.error"] == []


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with bridged() as running:
        yield running


@pytest.mark.parametrize("again", [b"", post(REQUEST)], ids=["", "with a second request"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_after_the_error_comes_the_end_of_the_connection(
    pair: Pair, version: str, again: bytes
) -> None:
    pair.service.stream = breaking("a")
    async with pair.connect() as raw:
        await raw.send(post(STREAMED, version) + again)
        said = cut(await raw.end())  # a reset would fail here

    assert (contents(said), code_of(said[-1]), len(said)) == ("a", "upstream_error", 2)
    await pair.works()
    sample = "http_server_request_duration_seconds_count"
    await until(lambda: pair.metric(sample, **LABELS) == 1)
    assert len(pair.service.asked) == 2
    await until(lambda: pair.metric("http_server_open_connections") == 1)  # of `works`


async def test_a_comment_that_opened_the_stream_changes_nothing() -> None:
    async with bridged(silence=0.01) as pair:
        told = asyncio.Event()

        async def stream(
            params: ChatCompletionParams, context: Any
        ) -> AsyncIterator[ChatCompletionChunk]:
            await told.wait()
            await fail(context, "UPSTREAM_ERROR")
            yield chunk()

        pair.service.stream = stream
        async with pair.connect() as raw:
            await raw.send(post(STREAMED))
            said = await raw.reader.readuntil(b": keep-alive\n\n\r\n")
            told.set()
            *comments, error = cut(said + await raw.end())

    assert set(comments) == {": keep-alive"}
    assert code_of(error) == "upstream_error"


async def test_one_who_reads_slowly_gets_the_error_too(pair: Pair) -> None:
    count = 500
    pair.service.stream = breaking(*["x" * 8192] * count)
    async with pair.connect(limit=4096) as raw:
        await raw.send(post(STREAMED))
        await until(lambda: pair.metric("chat_bridge_streams_open") == 1)
        said = b""
        while part := await raw.reader.read(4096):
            said += part
            await asyncio.sleep(0)
        told = cut(said)

    assert (len(told), code_of(told[-1])) == (count + 1, "upstream_error")


async def test_one_who_does_not_read_the_error_is_left_in_the_end() -> None:
    async with bridged(change=lambda limits: replace(limits, stall_seconds=0.3)) as pair:
        # More than the sockets buffer, but not enough to block the bridge.
        pair.service.stream = breaking(*["x" * 32_768] * 400)
        async with pair.connect(limit=1) as raw:
            await raw.send(post(STREAMED))
            await until(lambda: pair.metric("http_server_open_connections") == 1)
            await until(lambda: pair.metric("http_server_open_connections") == 0)
        await until(lambda: pair.bridge.running == 0)


async def test_a_drain_that_meets_an_answer_still_to_begin_gives_it_a_status(pair: Pair) -> None:
    large = completion(system_fingerprint="x" * 16 * 1024 * 1024)

    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        return large

    pair.service.create, pair.service.stream = create, breaking("a")
    async with pair.connect() as raw:
        await raw.send(post(REQUEST))
        await until(lambda: len(pair.service.asked) == 1)
        await until(lambda: pair.bridge.running == 0)
        await raw.send(post(STREAMED))
        await until(lambda: pair.metric("chat_bridge_streams_open") == 1)
        for _ in range(20):
            await pair.http.get("/healthz")  # the response waits for the preceding one
        stopping = asyncio.create_task(pair.bridge.stop(delay=0, grace=0))
        first = await raw.answer()
        second = await raw.answer()
        assert await raw.end() == b""
    await stopping

    assert (first.status, second.status) == (200, 503)
    assert second.error["code"] == "draining"


async def test_a_drain_within_a_document_is_no_defect(pair: Pair) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(b"GET /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        assert answer.status == 200
        await pair.bridge.stop(delay=0, grace=0)  # the body of the request was still awaited
        assert await raw.end() == b""


async def test_curl_says_that_the_body_is_not_whole(pair: Pair) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    pair.service.stream = breaking("a")
    process = await asyncio.create_subprocess_exec(
        *(curl, "--silent", "--no-buffer", "--json", json.dumps(STREAMED)),
        f"http://{pair.bridge.address}{PATH}",
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        printed, _ = await process.communicate()

    assert code_of(events(printed)[-1]) == "upstream_error"
    assert process.returncode == 18  # CURLE_PARTIAL_FILE


@pytest.mark.parametrize("turns", range(8))
async def test_what_connects_while_it_stops_is_closed(turns: int) -> None:
    door = Bridge(settings("127.0.0.1:1"))
    await door.start()
    stopping = asyncio.create_task(door.stop(delay=0, grace=0))
    for _ in range(turns):
        await asyncio.sleep(0)
    callers = [socket.socket() for _ in range(3)]
    for caller in callers:
        caller.setblocking(False)
        caller.connect_ex(("127.0.0.1", door.port))
    await stopping
    for caller in callers:
        with caller, suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.get_running_loop().sock_recv(caller, 1) == b""
