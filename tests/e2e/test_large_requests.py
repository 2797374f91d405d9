"""Requests of many MiB arrive whole, up to CHAT_MAX_REQUEST_BYTES, and together within a bound."""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service import server
from service.call import MOST_BYTES
from tests.support.asking import params
from tests.support.grpc_client import failed
from tests.support.processes import service_process
from tests.support.running_bridge import PATH
from tests.support.running_service import service, simulator
from tests.support.stack import PUBLIC, UPSTREAM_NAME, stack
from tests.support.waiting import until

MEBIBYTE: Final = 1024 * 1024
HELD: Final = "sim-fault:hang-before-headers"


def photo(mebibytes: int) -> dict[str, Any]:
    """Return a request with a photo as base64."""
    url = "data:image/jpeg;base64," + "0123456789abcdef" * (mebibytes * MEBIBYTE // 16)
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"model": PUBLIC, "messages": [{"role": "user", "content": [part]}]}


async def test_a_photo_of_ten_megabytes_crosses_both_doors() -> None:
    request = photo(14)
    body = json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                       "choices": [{"index": 0, "message": {"content": "x"},
                                    "finish_reason": "stop"}]}).encode()  # fmt: skip
    async with stack() as running, running.http() as http:
        running.upstream.reply_with(UPSTREAM_NAME, body=body)
        response = await http.post(PATH, json=request)
        await running.service.client.create(params(request))
        records = running.upstream.records
        received = [json.loads(records[at].body)["messages"] for at in range(len(records))]

    assert response.status_code == 200, response.text
    assert received == [request["messages"]] * 2


@pytest.mark.parametrize("known", [True, False], ids=["length", "chunks"])
async def test_the_message_of_413_names_the_limit(known: bool) -> None:
    request = json.dumps(photo(3)).encode()

    async def chunks() -> Any:
        yield request

    small = {"max_request_bytes": 2 * MEBIBYTE}
    async with stack(service=small) as running, running.http() as http:
        at_service = await http.post(PATH, content=request)
    async with stack(max_body_bytes=2 * MEBIBYTE) as running, running.http() as http:
        at_bridge = await http.post(PATH, content=request if known else chunks())

    expected = "Request too large: expected at most 2 MiB, but got 3.0 MiB. "
    assert at_service.status_code == at_bridge.status_code == 413
    assert at_service.json()["error"]["message"].startswith(expected)
    message = at_bridge.json()["error"]["message"]
    assert message.startswith(expected if known else "Request too large: expected at most 2 MiB. ")


async def test_large_requests_share_a_bound_and_small_ones_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MOST_BYTES", 10 * MEBIBYTE)
    async with simulator() as upstream:
        names = (HELD, UPSTREAM_NAME)
        async with service(names, upstream, max_request_bytes=4 * MEBIBYTE) as running:
            large = params({**photo(3), "model": HELD})
            calls = [asyncio.create_task(running.client.create(large)) for _ in range(6)]
            await until(lambda: sum(call.done() for call in calls) == 3, "three are refused")
            for call in calls:
                if call.done():
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call
                    found = failed(caught.value)
                    assert (found.reason, found.retryable) == ("OVERLOADED", True)
                    assert "large requests" in found.message
            assert (await running.client.create(UPSTREAM_NAME)).choices
            for call in calls:
                call.cancel()
            await running.rests()
            assert (await running.client.create(_small(large))).choices


def _small(large: ChatCompletionParams) -> ChatCompletionParams:
    """Return a request that is as large and gets a response."""
    request = ChatCompletionParams()
    request.CopyFrom(large)
    request.model = UPSTREAM_NAME
    return request


@pytest.mark.alone
@pytest.mark.time_limit(180)
async def test_the_memory_for_many_large_requests_is_bounded() -> None:
    size, calls = 16, 40
    async with (
        simulator() as upstream,
        service_process(CHAT_UPSTREAM_BASE_URL=upstream.base_url, CHAT_UPSTREAM_MODEL=HELD) as (
            running,
            caller,
        ),
    ):
        before = _memory(running.process.pid)
        large = params({**photo(size), "model": "default"})
        waiting = {asyncio.create_task(caller.create(large, deadline=150)) for _ in range(calls)}
        most = MOST_BYTES // (size * MEBIBYTE)
        refused: set[asyncio.Task[Any]] = set()
        async with asyncio.timeout(150):
            while len(refused) < calls - most:
                done, _ = await asyncio.wait(waiting - refused, return_when="FIRST_COMPLETED")
                refused |= done
        reasons = {_reason(call.exception()) for call in refused}
        grown = _memory(running.process.pid) - before
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    assert reasons == {"OVERLOADED"}
    # A request is in memory as a message and as the body for the upstream. gRPC has two copies of
    # each one that it receives, also of those that are then refused.
    assert grown < 6 * MOST_BYTES


def _reason(error: BaseException | None) -> str:
    assert isinstance(error, grpc.aio.AioRpcError)
    return failed(error).reason or str(error)


def _memory(pid: int) -> int:
    """Return the largest memory of a process so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
