"""A call fails after the upstream may have started to generate: no proxy repeats it.

    caller -> Envoy -> service -> upstream      UNAVAILABLE without response headers before it
                    -> service -> upstream      (Trailers-Only) is sent to the next service

A repeated call would be paid for twice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from service.simulator import SimulatorServer
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import document
from tests.support.envoy import ISTIO, Envoy, envoy
from tests.support.grpc_client import Client, client
from tests.support.priced_models import priced
from tests.support.running_service import Running, service, simulator
from tests.support.waiting import PATIENCE

SILENT: Final = "sim-fault:hang-before-headers"
STUCK: Final = "sim-fault:hang-mid-stream"
NO_UPSTREAM: Final = "http://127.0.0.1:9"
NAMES: Final = ["any", SILENT, STUCK]
LONGEST_CALL: Final = 8.0
"""Seconds; a repeated call would take longer."""

HEADERS: Final = {
    "content-type": "application/json",
    "x-should-retry": "false",
    "x-request-id": "req-of-the-caller",
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
}
"""Headers of a response over REST, of a key with a limit."""

RETRYING = pytest.mark.parametrize("retry_on", ["unavailable", ISTIO])
FORMS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicas:
    """Two services behind a proxy, and a caller in front of it."""

    services: tuple[Running, Running]
    proxy: Envoy
    caller: Client

    @property
    def busy(self) -> Running:
        """The service that runs a call."""
        (found,) = [each for each in self.services if each.calls_in_flight]
        return found


@asynccontextmanager
async def _replicas(*upstreams: SimulatorServer | str, retry_on: str) -> AsyncIterator[Replicas]:
    """Run two services, each with its upstream, behind a proxy that retries."""
    one, other = upstreams
    async with (
        service(NAMES, one) as first,
        service(NAMES, other) as second,
        envoy(first.address, second.address, retry_on=retry_on) as proxy,
        client(proxy.address) as caller,
    ):
        yield Replicas(services=(first, second), proxy=proxy, caller=caller)


@RETRYING
@pytest.mark.parametrize(("model", "streamed"), [(SILENT, False), (SILENT, True), (STUCK, False)])
async def test_a_call_that_was_dispatched_is_not_sent_again(
    retry_on: str, model: str, streamed: bool
) -> None:
    async with (
        simulator() as upstream,
        _replicas(upstream, upstream, retry_on=retry_on) as replicas,
    ):
        call = asyncio.create_task(
            replicas.caller.refusal(model, streamed=streamed, deadline=LONGEST_CALL)
        )
        async with asyncio.timeout(PATIENCE):
            await upstream.next_record()
        await replicas.busy.server.stop()
        failure = await call
        assert (failure.reason, failure.retryable, failure.is_final) == ("DRAINING", False, True)
        assert len(upstream.records) == 1
        assert await replicas.proxy.counter("upstream_rq_retry") == 0


@RETRYING
@FORMS
async def test_a_call_that_was_not_dispatched_is_sent_again(retry_on: str, streamed: bool) -> None:
    async with (
        simulator() as upstream,
        _replicas(NO_UPSTREAM, upstream, retry_on=retry_on) as replicas,
    ):
        # At least one of two calls in turn reaches the service that cannot reach its upstream.
        for _ in range(2):
            if streamed:
                assert (await replicas.caller.collect("any")).failure is None
            else:
                await replicas.caller.create("any")
        assert len(upstream.records) == 2
        retries = await replicas.proxy.counter("upstream_rq_retry")
        assert retries > 0
        assert await replicas.proxy.counter("upstream_rq_retry_success") == retries


@FORMS
async def test_over_rest_it_is_a_status_with_the_headers_of_limits(streamed: bool) -> None:
    models = {"failing": priced(upstream_model="sim-fault:500")}
    async with accounts_stack(models) as stack:
        team = stack.books.team(requests_per_minute=60)
        response = await stack.web.post(
            "/v1/chat/completions",
            headers={"authorization": f"Bearer {team.key}", "x-request-id": "req-of-the-caller"},
            json=document("failing", stream=streamed),
        )
        told: dict[str, Any] = {name: response.headers.get(name) for name in HEADERS}
        assert (response.status_code, told) == (502, HEADERS)
        assert response.json()["error"]["code"] == "upstream_error"
