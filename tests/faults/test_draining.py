"""Callers who keep calling while a replica drains, without a pause and without health checks.

each of their calls ends with OK or with a retryable DRAINING; none is cancelled
each DRAINING comes after GOAWAY, so that the call after it goes to another replica
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import signal
from collections import Counter
from typing import Final

import grpc
import pytest

from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from tests.support.grpc_client import KEY, Client, failed, params
from tests.support.processes import service_process
from tests.support.raw_http2 import dial
from tests.support.running_service import service, simulator
from tests.support.waiting import PATIENCE, until

CHANNELS: Final = 8
CALLERS: Final = 25
"""The number of callers per channel."""
ROUND_ROBIN: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
)
FOREVER: Final = "600"
CREATE: Final = "/chatcompletion.v1.ChatCompletionService/CreateChatCompletion"
LIST: Final = "/chatcompletion.v1.ModelService/ListModels"
UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE.value[0]
OK: Final = grpc.StatusCode.OK.value[0]


async def _calls(caller: Client, outcomes: Counter[str], over: asyncio.Event) -> None:
    """Call without a pause and count the results."""
    number = 0
    while not over.is_set():
        number += 1
        outcomes[await _outcome(caller, streamed=number % 2 == 0)] += 1


async def _outcome(caller: Client, *, streamed: bool) -> str:
    try:
        if streamed:
            failure = (await caller.collect("default")).failure
        else:
            await caller.create("default")
            failure = None
    except grpc.aio.AioRpcError as error:
        failure = failed(error)
    if failure is None:
        return "OK"
    if failure.reason == "DRAINING":
        # Only if the upstream cannot have started to generate.
        assert failure.retryable is not failure.is_final
        return "DRAINING"
    return f"{failure.code.name}: {failure.message}"


@pytest.mark.alone  # a call that crosses GOAWAY is cancelled: the busier the machine, the more do
@pytest.mark.parametrize("grace", ["0", FOREVER])
async def test_no_call_is_cancelled_while_the_listener_closes(grace: str) -> None:
    variables = {"CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN": "0", "CHAT_DRAIN_GRACE": grace}
    outcomes: Counter[str] = Counter()
    over = asyncio.Event()
    async with (
        service_process(**variables) as (leaving, _),
        service_process(**variables) as (staying, _),
    ):
        target = f"ipv4:{await leaving.address()},{await staying.address()}"
        channels = [
            grpc.aio.insecure_channel(target, options=(*ROUND_ROBIN, ("test.number", number)))
            for number in range(CHANNELS)
        ]
        callers = [
            asyncio.create_task(_calls(Client(channel), outcomes, over))
            for channel in channels
            for _ in range(CALLERS)
        ]
        try:
            await until(lambda: outcomes["OK"] > 2 * len(callers))
            leaving.send(signal.SIGTERM)
            assert await leaving.exit_status() == 0
            since = outcomes["OK"]
            await until(lambda: outcomes["OK"] > since + len(callers))
        finally:
            over.set()
            await asyncio.gather(*callers)
            for channel in channels:
                await channel.close()
    assert outcomes.keys() == {"OK", "DRAINING"}


async def test_a_call_that_comes_while_the_listener_closes_is_answered_after_goaway() -> None:
    async with (
        simulator() as upstream,
        service(["any"], upstream) as running,
        dial(running.address) as raw,
    ):
        assert (await raw.ended(raw.begin(LIST, b"", key=KEY))).code == OK
        stopping = asyncio.create_task(running.server.stop())
        await asyncio.sleep(0)
        streams = [raw.begin(LIST, b"", key=KEY) for _ in range(50)]
        endings = [await raw.ended(stream) for stream in streams]
        await stopping
    assert {(one.code, one.reason, one.after_goaway) for one in endings} == {
        (UNAVAILABLE, "draining", True)
    }


async def test_a_call_that_is_complete_while_the_listener_closes_ends_after_goaway() -> None:
    name = "sim:ttft=0.04,tokens=1"
    message = CreateChatCompletionRequest(params=params(name)).SerializeToString()
    async with (
        simulator() as upstream,
        service([name], upstream, drain_grace=PATIENCE) as running,
        dial(running.address) as raw,
    ):
        stream = raw.begin(CREATE, message, key=KEY)
        await upstream.next_record()
        stopping = asyncio.create_task(running.server.stop())
        ended = await raw.ended(stream)
        await stopping
    assert (ended.code, ended.after_goaway) == (OK, True)
