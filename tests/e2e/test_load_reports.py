"""Load reports by ORCA, read by those for whom they are: gRPC's own balancer, and Envoy's.

Each test has two services with the same upstream. One has room for 1,000 calls and one for 10, so
that the same calls are a hundred times the load for the second.
"""

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest

from chatcompletion import charges
from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from service.orca_messages import METHOD, SERVICE, Report, Request
from tests.support.envoy import WEIGHTED, envoy
from tests.support.grpc_client import KEY, client, params
from tests.support.raw_http2 import dial
from tests.support.running_service import Running, service, simulator
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.time_limit(120)

HEADER: Final = "endpoint-load-metrics-bin"
BATCH: Final = 20
MOST_BATCHES: Final = 200
PER_CALL: Final = {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s"}
OUT_OF_BAND: Final = {**PER_CALL, "enableOobLoadReport": True, "oobReportingPeriod": "1s"}


@asynccontextmanager
async def pair(reports: bool = True) -> AsyncIterator[tuple[Running, Running]]:
    async with (
        simulator() as upstream,
        service(["any"], upstream, load_reports=reports, max_concurrent_calls=1000) as roomy,
        service(["any"], upstream, load_reports=reports, max_concurrent_calls=10) as narrow,
    ):
        yield roomy, narrow


def answered(running: Running) -> int:
    labels = {"rpc_method": "CreateChatCompletion", "gen_ai_request_model": "any", "error_type": ""}
    return int(running.metric("gen_ai_server_request_duration_seconds_count", **labels))


async def prefers(roomy: Running, narrow: Running, call: Callable[[], Awaitable[Any]]) -> bool:
    """Call until one batch goes to the roomy service almost alone. Return whether one did."""
    for _ in range(MOST_BATCHES):
        before = answered(narrow)
        for _ in range(BATCH):
            await call()
        await roomy.rests()
        await narrow.rests()
        if answered(narrow) - before <= BATCH // 5:
            return True
    return False


def balanced(*services: Running, policy: dict[str, Any]) -> Any:
    """Return a client of gRPC that balances calls by the reports."""
    config = {"loadBalancingConfig": [{"weighted_round_robin": policy}]}
    target = "ipv4:" + ",".join(each.address for each in services)
    return client(target, options=[("grpc.service_config", json.dumps(config))])


@pytest.mark.parametrize("policy", [PER_CALL, OUT_OF_BAND], ids=["per-call", "out-of-band"])
async def test_grpc_weighs_replicas_by_their_reports(policy: dict[str, Any]) -> None:
    async with pair() as (roomy, narrow), balanced(roomy, narrow, policy=policy) as caller:
        assert await prefers(roomy, narrow, lambda: caller.create("any"))


async def test_without_reports_grpc_treats_replicas_alike() -> None:
    async with pair(False) as (roomy, narrow), balanced(roomy, narrow, policy=PER_CALL) as caller:
        for _ in range(10 * BATCH):
            await caller.create("any")
        await narrow.rests()
        assert abs(answered(narrow) - 5 * BATCH) <= BATCH


async def test_envoy_weighs_replicas_by_their_reports() -> None:
    async with (
        pair() as (roomy, narrow),
        envoy(roomy.address, narrow.address, policy=WEIGHTED) as proxy,
        client(proxy.address) as caller,
    ):
        assert await prefers(roomy, narrow, lambda: caller.create("any"))


async def trailer(
    running: Running, method: str, model: str, *, key: str = KEY, name: str = HEADER
) -> bytes | None:
    """Return a trailer of a call. Clients of gRPC do not show the report."""
    request = CreateChatCompletionRequest(params=params(model)).SerializeToString()
    async with dial(running.address) as raw:
        path = f"/chatcompletion.v1.ChatCompletionService/{method}"
        headers = {"authorization": f"Bearer {key}"}
        ended = await raw.call(path, request, headers=headers)
    found = ended.trailers.get(name)
    return None if found is None else b64decode(found + b"=" * (-len(found) % 4))


@pytest.mark.parametrize("method", ["CreateChatCompletion", "StreamChatCompletion"])
async def test_a_call_reports_what_it_cost(method: str) -> None:
    async with simulator() as upstream, service(["any"], upstream, load_reports=True) as running:
        report = Report.FromString(await trailer(running, method, "any"))

    assert report.request_cost["output_tokens"] > 0
    assert report.application_utilization > 0
    assert report.rps_fractional == 0  # the call itself has not ended


async def test_a_call_with_a_report_has_its_receipt_too() -> None:
    both: dict[str, Any] = {"load_reports": True, "receipts": True}
    async with simulator() as upstream, service(["any"], upstream, **both) as running:
        for name in (HEADER, charges.KEY):
            assert await trailer(running, "CreateChatCompletion", "any", name=name) is not None


async def test_a_failure_reports_too_but_not_to_strangers() -> None:
    async with simulator() as upstream, service(["any"], upstream, load_reports=True) as running:
        failed = await trailer(running, "CreateChatCompletion", "unknown")
        assert Report.FromString(failed).application_utilization > 0
        assert await trailer(running, "CreateChatCompletion", "any", key="wrong") is None


async def test_reports_are_off_by_default() -> None:
    async with simulator() as upstream, service(["any"], upstream) as running:
        assert await trailer(running, "CreateChatCompletion", "any") is None
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in _reports(running, Request()):
                pass
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_of_reports_ends_with_the_service() -> None:
    async with simulator() as upstream, service(["any"], upstream, load_reports=True) as running:
        request = Request()
        request.report_interval.seconds = 0
        call = _reports(running, request)
        first = await call.read()
        assert first.application_utilization == 0.0
        await running.server.stop(delay=0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


def _reports(running: Running, request: Any) -> Any:
    method = running.client.channel.unary_stream(
        f"/{SERVICE}/{METHOD}",
        request_serializer=Request.SerializeToString,
        response_deserializer=Report.FromString,
    )
    return method(request, timeout=PATIENCE)
