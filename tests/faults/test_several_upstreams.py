"""Models with several upstreams: which one gets a call, and when a call moves to the next.

The faults of the simulator are selected by the name of the model at each upstream.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pytest

from service.models import Catalogue
from service.simulator import SimulatorServer
from tests.support.grpc_client import params
from tests.support.running_service import Running, service, several, simulator
from tests.support.waiting import until

HANGS: Final = "sim-fault:hang-before-headers"
AWAY: Final = "http://127.0.0.1:9"
MODES: Final = pytest.mark.parametrize("streamed", [False, True])


def entry(first: str, second: str = "any", **members: Any) -> dict[str, Any]:
    """Return a model whose second upstream is for fallback, with its name at each of them."""
    ways = [
        {"upstream": "first", "upstream_model": first},
        {"upstream": "second", "upstream_model": second, "order": 1},
    ]
    return {"upstreams": ways, **members}


async def succeeds(running: Running, model: str, *, streamed: bool) -> None:
    if streamed:
        result = await running.client.collect(model)
        assert result.failure is None
        assert result.text
    else:
        assert (await running.client.create(model)).model == model


def retries(running: Running) -> float:
    return running.metric("chat_upstream_retries_total")


@MODES
@pytest.mark.parametrize("fault", ["429", "503-retry-after=60", "429-retry-after=60"])
async def test_a_refusal_without_work_moves_a_call_on(fault: str, streamed: bool) -> None:
    async with simulator() as first, simulator() as second:
        known = several({"first": first, "second": second}, {"m": entry(f"sim-fault:{fault}")})
        async with service(known) as running:
            await succeeds(running, "m", streamed=streamed)
            assert (len(first.records), len(second.records)) == (1, 1)
            await running.rests()
            assert retries(running) == 1
            assert running.metric("chat_upstream_fallbacks_total", upstream="first") == 1
            metric = "chat_upstream_request_duration_seconds_count"
            assert running.metric(metric, upstream="second", status="200") == 1


@MODES
async def test_an_upstream_that_is_away_moves_a_call_on(streamed: bool) -> None:
    async with simulator() as second:
        known = several({"first": AWAY, "second": second}, {"m": entry("any")})
        async with service(known) as running:
            await succeeds(running, "m", streamed=streamed)
            assert len(second.records) == 1


@MODES
@pytest.mark.parametrize(
    "fault", ["400", "422", "500", "502", "504", "200-html", "close-before-headers", "no-http"]
)
async def test_a_call_that_may_have_been_worked_for_stays(fault: str, streamed: bool) -> None:
    async with simulator() as first, simulator() as second:
        known = several({"first": first, "second": second}, {"m": entry(f"sim-fault:{fault}")})
        async with service(known) as running:
            await running.client.refusal("m", streamed=streamed)
            assert (len(first.records), len(second.records)) == (1, 0)


@pytest.mark.parametrize("fault", ["reset-mid-stream", "error-event-first", "clean-end-mid-stream"])
async def test_a_stream_that_has_begun_stays(fault: str) -> None:
    async with simulator() as first, simulator() as second:
        known = several({"first": first, "second": second}, {"m": entry(f"sim-fault:{fault}")})
        async with service(known) as running:
            assert (await running.client.collect("m")).failure is not None
            assert len(second.records) == 0


async def test_a_call_moves_once() -> None:
    async with simulator() as first, simulator() as second, simulator() as third:
        ways = [
            {"upstream": name, "upstream_model": "sim-fault:429", "order": order}
            for order, name in enumerate(("first", "second", "third"))
        ]
        known = several(
            {"first": first, "second": second, "third": third}, {"m": {"upstreams": ways}}
        )
        async with service(known) as running:
            failure = await running.client.refusal("m")
            assert failure.reason == "UPSTREAM_RATE_LIMITED"
            counts = [len(each.records) for each in (first, second, third)]
            assert counts == [1, 1, 0]


async def test_moves_are_a_fifth_of_the_calls() -> None:
    async with simulator() as first, simulator() as second:
        known = several({"first": first, "second": second}, {"m": entry("sim-fault:429")})
        async with service(known) as running:
            reasons = Counter[str]()
            for _ in range(30):
                result = await running.client.collect("m")
                reasons[result.failure.reason if result.failure else ""] += 1
            assert reasons.keys() == {"", "UPSTREAM_RATE_LIMITED"}
            assert 10 <= len(second.records) <= 16
            assert len(first.records) == 30


@MODES
async def test_each_upstream_gets_the_request_in_its_dialect(streamed: bool) -> None:
    async with simulator() as first, simulator() as second:
        known = several(
            {
                "first": {
                    "base_url": first.base_url,
                    "api_key_variable": "FIRST",
                    "headers": {"x-way": "first"},
                },
                "second": {
                    "base_url": second.base_url,
                    "api_key_variable": "SECOND",
                    "output_limit": "max_completion_tokens",
                    "query": {"way": "second"},
                },
            },
            {"m": entry("sim-fault:429", "other/name")},
            FIRST="first-key-canary",
            SECOND="second-key-canary",
        )
        async with service(known) as running:
            request = params("m", max_tokens=7)
            if streamed:
                assert (await running.client.collect(request)).failure is None
            else:
                assert (await running.client.create(request)).model == "m"
        sent = [json.loads(each.records[0].body) for each in (first, second)]
        assert (sent[0]["model"], sent[0]["max_tokens"]) == ("sim-fault:429", 7)
        assert (sent[1]["model"], sent[1]["max_completion_tokens"]) == ("other/name", 7)
        assert "max_completion_tokens" not in sent[0]
        assert "max_tokens" not in sent[1]
        headers = [each.records[0].headers for each in (first, second)]
        assert headers[0]["authorization"] == "Bearer first-key-canary"
        assert headers[1]["authorization"] == "Bearer second-key-canary"
        assert "x-way" not in headers[1]
        assert second.records[0].path.endswith("?way=second")


async def test_calls_are_spread_by_weight() -> None:
    async with simulator() as first, simulator() as second:
        ways = [{"upstream": "first", "weight": 4}, {"upstream": "second"}]
        known = several({"first": first, "second": second}, {"m": {"upstreams": ways}})
        async with service(known) as running:
            for _ in range(100):
                await running.client.create("m")
            # 80, give or take five deviations.
            assert 60 <= len(first.records) <= 99
            assert len(first.records) + len(second.records) == 100


async def _cut_off(running: Running, first: SimulatorServer) -> None:
    for _ in range(5):
        await running.client.refusal("broken")
    await running.rests()
    metric = "chat_upstream_breaker_state"
    assert running.metric(metric, upstream="first", state="open") == 1
    first.records.clear()


async def test_an_upstream_that_is_cut_off_is_passed_over_without_a_retry() -> None:
    async with simulator() as first, simulator() as second:
        broken = {"upstream": "first", "upstream_model": "sim-fault:500"}
        known = several({"first": first, "second": second}, {"m": entry("any"), "broken": broken})
        async with service(known, breaker_pause=3600.0) as running:
            await _cut_off(running, first)
            for _ in range(20):
                await running.client.create("m")
            assert (len(first.records), len(second.records)) == (0, 20)
            await running.rests()
            assert retries(running) == 0


async def test_a_retry_is_not_the_probe_of_a_breaker() -> None:
    async with simulator() as first, simulator() as second:
        broken = {"upstream": "first", "upstream_model": "sim-fault:500"}
        back = {
            "upstreams": [
                {"upstream": "second", "upstream_model": "sim-fault:429"},
                {"upstream": "first", "upstream_model": "any", "order": 1},
            ]
        }
        known = several({"first": first, "second": second}, {"m": back, "broken": broken})
        async with service(known, breaker_pause=0.05) as running:
            await _cut_off(running, first)
            await asyncio.sleep(0.06)
            assert (await running.client.refusal("m")).reason == "UPSTREAM_RATE_LIMITED"
            assert len(first.records) == 0


async def test_all_cut_off_is_overloaded() -> None:
    async with simulator() as first, simulator() as second:
        both = entry("sim-fault:500", "sim-fault:500")
        known = several({"first": first, "second": second}, {"m": both})
        async with service(known, breaker_pause=40.0) as running:
            for _ in range(10):
                assert (await running.client.refusal("m")).reason == "UPSTREAM_ERROR"
            failure = await running.client.refusal("m")
            assert failure.reason == "OVERLOADED"
            assert failure.retry_delay is not None
            assert 10 < failure.retry_delay <= 40
            assert (len(first.records), len(second.records)) == (5, 5)


async def test_a_full_upstream_is_passed_over() -> None:
    async with simulator() as first, simulator() as second:
        known = several(
            {"first": {"base_url": first.base_url, "max_calls": 3}, "second": second},
            {"m": entry("any"), HANGS: {"upstream": "first"}},
        )
        async with service(known) as running:
            hanging = [running.client.start_create(HANGS) for _ in range(3)]
            await until(lambda: first.open_requests == 3)
            for _ in range(5):
                await running.client.create("m")
            assert len(second.records) == 5
            for call in hanging:
                call.cancel()
            await running.rests()


async def test_a_deadline_ends_a_call_that_moved() -> None:
    async with simulator() as first, simulator() as second:
        known = several({"first": first, "second": second}, {"m": entry("sim-fault:429", HANGS)})
        async with service(known) as running:
            failure = await running.client.refusal("m", deadline=0.5)
            assert failure.reason in ("", "DEADLINE_EXCEEDED")  # gRPC's own clock can be first
            await running.rests()
            assert len(second.records) == 1
            await until(lambda: second.open_requests == 0)


# ---------------------------------------------------------------------- the one that answered


SHOWN: Final = "x-chat-upstream"


@MODES
async def test_a_response_names_the_upstream_that_answered(streamed: bool) -> None:
    async with simulator() as first, simulator() as second:
        ways = entry("sim-fault:429", "any")
        ways["upstreams"][1]["upstream"] = "größe 2"
        known = several({"first": first, "größe 2": second}, {"m": ways})
        async with service(known, shows_upstream=True) as running:
            start = running.client.start_stream if streamed else running.client.start_create
            call = start("m")
            metadata = dict(await call.initial_metadata() or ())
            assert metadata[SHOWN] == "gr%C3%B6%C3%9Fe%202"
            call.cancel()


async def test_a_failure_names_it_if_it_answered() -> None:
    async with simulator() as first:
        names = ("sim-fault:500", "sim-fault:429", "any")
        known = several(
            {"first": first, "away": AWAY},
            {**{name: {"upstream": "first"} for name in names}, "away": {"upstream": "away"}},
        )
        async with service(known, shows_upstream=True) as running:
            for name in names[:2]:
                assert (await running.client.refusal(name)).trailers[SHOWN] == "first"
            assert SHOWN not in (await running.client.refusal("away")).trailers
            assert SHOWN not in (await running.client.refusal("unknown")).trailers


async def test_by_default_no_response_names_it() -> None:
    async with simulator() as first:
        known = several({"first": first}, {"any": {"upstream": "first"}})
        async with service(known) as running:
            call = running.client.start_create("any")
            assert SHOWN not in dict(await call.initial_metadata() or ())
            failure = await running.client.refusal(params("any", temperature=9))
            assert SHOWN not in failure.trailers
            call.cancel()


# ------------------------------------------------------------------------------------------- keys


GOOD: Final = "good-key-canary-1"
BAD: Final = "bad-key-canary-2"


def keyed(upstream: SimulatorServer, *, entries: Mapping[str, Any], **more: Any) -> Catalogue:
    """Return models at an upstream with a bad key and a good one, and further upstreams."""
    first = {"base_url": upstream.base_url, "api_key_variables": ["BAD_KEY", "GOOD_KEY"]}
    return several({"first": first, **more}, entries, BAD_KEY=BAD, GOOD_KEY=GOOD)


def used(upstream: SimulatorServer) -> list[str]:
    """Return the keys of the requests to an upstream."""
    records = (upstream.records[index] for index in range(len(upstream.records)))
    return [record.headers["authorization"].removeprefix("Bearer ") for record in records]


@MODES
async def test_requests_take_turns_with_the_keys(streamed: bool) -> None:
    async with simulator() as upstream:
        known = keyed(upstream, entries={"m": {"upstream": "first"}})
        async with service(known) as running:
            for _ in range(6):
                await succeeds(running, "m", streamed=streamed)
            assert sorted(used(upstream)[:2]) == [BAD, GOOD]
            assert used(upstream) == used(upstream)[:2] * 3


@MODES
async def test_a_refused_key_is_set_aside_and_no_caller_sees_it(
    streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with simulator(api_key=GOOD) as upstream:
        known = keyed(upstream, entries={"m": {"upstream": "first"}})
        async with service(known) as running:
            for _ in range(20):
                await succeeds(running, "m", streamed=streamed)
            assert Counter(used(upstream)) == {GOOD: 20, BAD: 1}
            metric = "chat_upstream_key_refusals_total"
            assert running.metric(metric, upstream="first") == 1
            metric = "chat_upstream_fallbacks_total"
            assert running.metric(metric, upstream="first") == 0
        [line] = [each for each in caplog.records if each.message == "upstream key refused"]
        assert line.levelname == "ERROR"
        assert BAD not in caplog.text


async def test_a_refused_key_comes_back() -> None:
    async with simulator(api_key=GOOD) as upstream:
        known = keyed(upstream, entries={"m": {"upstream": "first"}})
        async with service(known, key_pause=0.05) as running:
            for _ in range(2):
                for _ in range(3):
                    await running.client.create("m")
                await asyncio.sleep(0.06)
            assert used(upstream).count(BAD) >= 2


async def test_with_no_key_left_callers_get_the_refusal() -> None:
    async with simulator(api_key="another") as upstream:
        known = keyed(upstream, entries={"m": {"upstream": "first"}})
        async with service(known) as running:
            for _ in range(10):
                assert (await running.client.refusal("m")).reason == "UPSTREAM_ACCOUNT"
            # The first call tries both keys, and every other one a single key.
            assert len(upstream.records) == 11


async def test_without_a_key_calls_go_to_another_upstream_without_a_retry() -> None:
    async with simulator(api_key="another") as first, simulator() as second:
        known = keyed(first, entries={"m": entry("any")}, second=second)
        async with service(known) as running:
            assert (await running.client.refusal("m")).reason == "UPSTREAM_ACCOUNT"
            for _ in range(20):
                await running.client.create("m")
            assert (len(first.records), len(second.records)) == (2, 20)


async def test_a_call_without_a_key_left_moves_on() -> None:
    async with simulator(api_key="another") as first, simulator() as second:
        known = several({"first": first, "second": second}, {"m": entry("any")})
        async with service(known) as running:
            for _ in range(20):
                await running.client.create("m")
            assert (len(first.records), len(second.records)) == (1, 20)


@pytest.mark.parametrize("fault", ["402", "429-quota"])
async def test_other_refusals_of_an_account_set_a_key_aside(fault: str) -> None:
    async with simulator() as first, simulator() as second:
        known = keyed(first, entries={"m": entry(f"sim-fault:{fault}")}, second=second)
        async with service(known) as running:
            assert (await running.client.refusal("m")).reason == "UPSTREAM_ACCOUNT"
            assert {*used(first)} == {GOOD, BAD}
            await running.client.create("m")
            assert len(second.records) == 1
