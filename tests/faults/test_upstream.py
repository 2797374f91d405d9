"""Faults of the upstream, and their effects on the caller, the upstream and the process.

    ROWS    fault of the simulator -> reason, chunks delivered before, outcome at the upstream
    SOUND   fault of the simulator -> success: the same chunks as in a plain stream
    other faults have separate tests

Each row runs twice, unary and streamed. The service must then handle the next call normally. The
next call has the same request: the fault occurs once, so that the second response shows the chunks
that should have been delivered.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc
import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionChunk, ChatCompletionParams
from service.simulator import RequestOutcome, SimulatorServer
from service.simulator.faults import ELSEWHERE, FAULTS
from service.simulator.faults.framing import PIECES, SEPARATORS, VENDOR, WIDE
from service.simulator.faults.usages import HUGE
from service.simulator.faults.whole_answers import INTERNAL_DETAILS
from service.simulator.text import INTRODUCTION, split
from service.upstream_dialect import StreamEnd
from tests.support import running_service
from tests.support.footprint import Footprint
from tests.support.grpc_client import KEY, Failed, params
from tests.support.running_service import UPSTREAM_KEY, Running, models, simulator
from tests.support.waiting import until

MEBIBYTE: Final = 1024 * 1024

service: Final = partial(running_service.service, receipts=False)
"""Runs a service whose answers have what the upstream sent, and nothing else."""

# ------------------------------------------------------------------------------ what is expected

REASONS: Final[Mapping[str, tuple[grpc.StatusCode, int, bool]]] = {
    # reason: gRPC code, HTTP status, retryable
    "UPSTREAM_UNAVAILABLE": (grpc.StatusCode.UNAVAILABLE, 502, True),
    "UPSTREAM_ERROR": (grpc.StatusCode.INTERNAL, 502, False),
    "UPSTREAM_TIMEOUT": (grpc.StatusCode.INTERNAL, 502, False),
    "UPSTREAM_INVALID_RESPONSE": (grpc.StatusCode.INTERNAL, 502, False),
    "UPSTREAM_TRUNCATED": (grpc.StatusCode.INTERNAL, 502, False),
    "UPSTREAM_ACCOUNT": (grpc.StatusCode.INTERNAL, 502, False),
    "UPSTREAM_RATE_LIMITED": (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, True),
    "INVALID_REQUEST": (grpc.StatusCode.INVALID_ARGUMENT, 422, False),
    "OVERLOADED": (grpc.StatusCode.UNAVAILABLE, 503, True),
}
DELIVERED_NOTHING: Final = (0,)
HALF: Final = (5,)
"""Of 11 chunks: the role, 8 tokens, the finish reason, the usage."""
IMPATIENT: Final[Mapping[str, float]] = {
    # The first byte of a unary response may take as long as the call.
    "first_byte_timeout": 0.5,
    "idle_timeout": 0.5,
    "request_timeout": 2.0,
}
NARROW: Final[Mapping[str, float]] = {"max_response_bytes": MEBIBYTE}
SHORT: Final[Mapping[str, float]] = {"request_timeout": 0.7}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A fault that fails the call."""

    fault: str
    reason: str
    delivered: tuple[int, ...] = DELIVERED_NOTHING
    """The possible numbers of chunks before the failure."""
    outcome: RequestOutcome = "completed"
    """The outcome at the upstream; `caller_left` means that the service closed the connection."""
    settings: Mapping[str, float] = field(default_factory=dict)
    streamed: str = ""
    """The reason of a stream, if it is another."""
    stream_end: StreamEnd = "lenient"
    value: str = ""
    most_sent: int = 16 * MEBIBYTE
    """Maximum bytes that the upstream sends; socket buffers hold some mebibytes of them."""


def _rows(reason: str, *faults: str, **common: Any) -> tuple[Row, ...]:
    return tuple(Row(fault=fault, reason=reason, **common) for fault in faults)


ROWS: Final[tuple[Row, ...]] = (
    # Connections.
    *_rows(
        "UPSTREAM_TIMEOUT",
        *("hang-before-headers", "drip-headers"),
        outcome="caller_left",
        settings=IMPATIENT,
    ),
    *_rows("UPSTREAM_INVALID_RESPONSE", "flood-headers", outcome="caller_left"),
    *_rows("UPSTREAM_INVALID_RESPONSE", "no-http", outcome="aborted"),
    *_rows(
        "UPSTREAM_TIMEOUT",
        "hang-mid-stream",
        delivered=HALF,
        outcome="caller_left",
        settings=IMPATIENT,
    ),
    *_rows(
        "UPSTREAM_TRUNCATED",
        *("reset-mid-stream", "cut-chunked-body", "truncated-body"),
        delivered=HALF,
        outcome="aborted",
    ),
    *_rows("UPSTREAM_TRUNCATED", "cut-tool-call", delivered=(5,), outcome="aborted"),
    # The client's parser gives up what came in the same read as the broken size.
    *_rows("UPSTREAM_TRUNCATED", "bad-chunking", delivered=(4, 5), outcome="aborted"),
    *_rows("UPSTREAM_TIMEOUT", "drip-body", "drip-comments", outcome="caller_left", settings=SHORT),
    # Whole answers.
    *_rows("UPSTREAM_ERROR", "500", "502", "504", "500-stream", "404"),
    *_rows("UPSTREAM_UNAVAILABLE", "503-retry-after"),
    *_rows(
        "UPSTREAM_RATE_LIMITED",
        *("429", "429-retry-after", "429-retry-after-date", "429-retry-after-garbage"),
    ),
    *_rows("UPSTREAM_ACCOUNT", "401", "402", "403", "429-quota"),
    *_rows(
        "INVALID_REQUEST",
        *("400", "400-integer-code", "400-flat", "400-text", "400-empty", "400-odd-members"),
        *("400-internal-details", "422", "422-detail"),
    ),
    *_rows(
        "UPSTREAM_INVALID_RESPONSE",
        *("200-html", "200-text", "200-array", "200-null", "200-deep"),
        *("redirect", "gzip", "json-instead-of-stream"),
    ),
    *_rows("UPSTREAM_INVALID_RESPONSE", "200-empty", "204", streamed="UPSTREAM_TRUNCATED"),
    *_rows("UPSTREAM_ERROR", "200-error"),
    # 1 GiB once it is decompressed, of which nothing is.
    *_rows(
        "UPSTREAM_INVALID_RESPONSE",
        "gzip-bomb",
        value="1024",
        outcome="caller_left",
        most_sent=MEBIBYTE,
    ),
    *_rows("UPSTREAM_ERROR", "huge-error-body", outcome="caller_left"),
    *_rows(
        "UPSTREAM_INVALID_RESPONSE", "huge-body", outcome="caller_left", most_sent=48 * MEBIBYTE
    ),
    # Streams.
    *_rows("UPSTREAM_TRUNCATED", "no-done", delivered=(11,), stream_end="strict"),
    *_rows("UPSTREAM_TRUNCATED", "no-finish-reason", delivered=(10,), stream_end="strict"),
    *_rows("UPSTREAM_TRUNCATED", "clean-end-mid-stream", delivered=HALF),
    *_rows("UPSTREAM_TRUNCATED", "empty-stream", "done-only"),
    *_rows("UPSTREAM_INVALID_RESPONSE", "malformed-event", delivered=HALF, outcome="caller_left"),
    *_rows("UPSTREAM_INVALID_RESPONSE", "array-event", delivered=(1,), outcome="caller_left"),
    *_rows("UPSTREAM_INVALID_RESPONSE", "deep-event", delivered=(1,)),
    *_rows("UPSTREAM_INVALID_RESPONSE", "huge-event", "huge-line", delivered=(1,), settings=NARROW),
    *_rows(
        "UPSTREAM_INVALID_RESPONSE",
        "endless-line",
        delivered=(1,),
        outcome="caller_left",
        settings=NARROW,
    ),
    *_rows(
        "UPSTREAM_ERROR",
        *("error-event", "error-event-then-done", "error-event-text", "error-event-named"),
        delivered=HALF,
    ),
    *_rows("UPSTREAM_ERROR", "error-event-first"),
)

ANY_OUTCOME: Final = frozenset({"huge-event", "huge-line", "flood-headers"})
"""The size of the socket buffers determines whether the service closes before these are sent."""

SOUND: Final = (
    *("body-overrun", "early-hints", "vendor-headers"),
    *("hang-after-done", "events-after-done", "untyped-stream"),
    *("one-byte-writes", "crlf", "cr-only", "mixed-line-ends", "comments"),
    *("multi-line-data", "bom", "no-space", "other-fields", "blank-lines"),
)
"""Faults that do not change the contents."""

WITH_A_TEST: Final[Mapping[str, str]] = {
    # Faults that change the contents but not the outcome of the call.
    "split-utf8": "test_texts_arrive_as_they_were_sent",
    "split-data": "test_texts_arrive_as_they_were_sent",
    "unicode-separators": "test_texts_arrive_as_they_were_sent",
    "lone-surrogates": "test_texts_arrive_as_they_were_sent",
    "escaped-json": "test_texts_arrive_as_they_were_sent",
    "vendor-members": "test_members_of_a_vendor_arrive",
    "usage-missing": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-twice": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-negative": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-huge": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-text": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-fraction": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-null": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-list": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    "usage-in-every-chunk": "test_senseless_usage_does_not_fail_a_call_and_is_counted_instead",
    # Failures without an accepted connection.
    "close-before-headers": "test_a_connection_that_ends_before_the_response",
    "reset-before-headers": "test_a_connection_that_ends_before_the_response",
    "503": "test_a_busy_upstream_is_asked_once_more",
    "refuses": "test_an_upstream_that_cannot_be_reached",
    "black-holes": "test_an_upstream_that_cannot_be_reached",
    "name does not resolve": "test_an_upstream_that_cannot_be_reached",
    "pool exhausted": "test_an_exhausted_pool",
}

CATALOGUE: Final[Mapping[str, tuple[str, ...]]] = {
    # The failure catalogue of upstreams: each item, and its faults here.
    "refuses": ("refuses",),
    "black-holes": ("black-holes",),
    "name does not resolve": ("name does not resolve",),
    "pool exhausted": ("pool exhausted",),
    "hangs before headers": ("hang-before-headers",),
    "drips headers": ("drip-headers",),
    "hangs mid-stream": ("hang-mid-stream",),
    "resets mid-stream": ("reset-mid-stream",),
    "cuts a chunked body": ("cut-chunked-body", "truncated-body", "cut-tool-call"),
    "ends cleanly without [DONE]": ("no-done", "clean-end-mid-stream", "empty-stream"),
    "ends cleanly without a finish_reason": ("no-finish-reason", "done-only"),
    "malformed JSON event": ("malformed-event", "array-event", "deep-event"),
    "event or line over 1 MiB": ("huge-event", "huge-line", "endless-line"),
    "200 with HTML": ("200-html",),
    "one-byte chunks": ("one-byte-writes",),
    "splits inside UTF-8": ("split-utf8",),
    "splits inside data:": ("split-data",),
    "U+2028 in content": ("unicode-separators",),
    "CR-only line ends": ("cr-only",),
    "CRLF line ends": ("crlf", "mixed-line-ends"),
    "comments": ("comments",),
    "multi-line data": ("multi-line-data",),
    "byte-order mark": ("bom",),
    "500": ("500",),
    "502": ("502",),
    "503": ("503",),
    "504": ("504",),
    "429 with Retry-After": ("429-retry-after", "429-retry-after-date"),
    "503 with Retry-After": ("503-retry-after",),
    "401 for our key": ("401",),
    "403 for our key": ("403",),
    "400": ("400", "400-flat", "400-text"),
    "404": ("404",),
    "422": ("422",),
    "gzip bomb": ("gzip-bomb",),
    "redirect to elsewhere": ("redirect",),
    "100 MB error body": ("huge-error-body",),
    "error event inside the stream": ("error-event", "error-event-first", "error-event-named"),
    "usage missing": ("usage-missing",),
    "usage twice": ("usage-twice",),
    "usage negative": ("usage-negative",),
    "usage huge": ("usage-huge",),
}


def test_every_fault_of_the_simulator_is_tested_once() -> None:
    tested = [*(row.fault for row in ROWS), *SOUND, *WITH_A_TEST]
    assert sorted(tested) == sorted([*FAULTS, *ELSEWHERE])


def test_every_item_of_the_catalogue_is_tested() -> None:
    tested = {row.fault for row in ROWS} | set(SOUND) | set(WITH_A_TEST)
    assert {fault for faults in CATALOGUE.values() for fault in faults} <= tested
    assert all(callable(globals()[test]) for test in WITH_A_TEST.values())


# ------------------------------------------------------------------------------------ the tables


def _forms(fault: str) -> tuple[bool, ...]:
    return {"unary": (False,), "stream": (True,), "any": (False, True)}[FAULTS[fault].form]


def _cases(*faults: str) -> list[Any]:
    return [
        pytest.param(fault, streamed, id=f"{fault}-{'stream' if streamed else 'unary'}")
        for fault in faults
        for streamed in _forms(fault)
    ]


def _once(fault: str, value: str = "") -> str:
    """Return the model that fails once, and then returns the normal response.

    Its events are 2 ms apart, so that each is read before the next.
    """
    return f"sim-fault:{fault}{'=' if value else ''}{value},times=1,tokens=8,itd=0.002"


def _request(model: str, *, streamed: bool) -> ChatCompletionParams:
    members: dict[str, Any] = {"stream_options": {"include_usage": True}} if streamed else {}
    if "cut-tool-call" in model:
        function = {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}
        members["tools"] = [{"type": "function", "function": function}]
        members["tool_choice"] = "required"
    return params(model, **members)


async def _answer(running: Running, model: str, *, streamed: bool) -> list[Any]:
    """Return the documents of a response that must succeed."""
    request = _request(model, streamed=streamed)
    if not streamed:
        completion = await running.client.create(request)
        return [json.loads(openai_json.encode_completion(completion))]
    result = await running.client.collect(request)
    assert result.failure is None
    return _documents(result.chunks)


def _documents(chunks: tuple[ChatCompletionChunk, ...]) -> list[Any]:
    return [json.loads(openai_json.encode_chunk(chunk)) for chunk in chunks]


async def _rests(running: Running, upstream: SimulatorServer, before: Footprint) -> None:
    """Check that no call leaves anything behind, here or at the upstream."""
    await running.rests()
    await until(lambda: upstream.open_requests == 0, "the upstream still answers")
    await before.returns()


def _assert_reason(failure: Failed, reason: str) -> None:
    assert failure.reason == reason
    code, http_status, retryable = REASONS[reason]
    if reason == "INVALID_REQUEST":
        http_status = failure.http_status if failure.http_status in (400, 422) else http_status
    assert (failure.code, failure.http_status, failure.retryable) == (code, http_status, retryable)
    # The upstream was reached, so clients must not retry, unless it rejected the call.
    assert failure.is_final is not failure.retryable
    assert failure.retry_delay is None or failure.retryable


@pytest.mark.parametrize(
    ("row", "streamed"),
    [
        pytest.param(row, streamed, id=f"{row.fault}-{'stream' if streamed else 'unary'}")
        for row in ROWS
        for streamed in _forms(row.fault)
    ],
)
async def test_a_fault_has_its_reason_and_leaves_nothing(row: Row, streamed: bool) -> None:
    model = _once(row.fault, row.value)
    # Without a wait for Retry-After, there is no second request, which would succeed.
    changes: dict[str, Any] = {"longest_retry_after": 0.0, **row.settings}
    async with (
        simulator() as upstream,
        service(models([model, "any"], upstream, stream_end=row.stream_end), **changes) as running,
    ):
        await running.client.create("any")
        await upstream.next_record()
        before = Footprint.take()

        request = _request(model, streamed=streamed)
        if streamed:
            result = await running.client.collect(request)
            failure, chunks = result.failure, result.chunks
        else:
            failure, chunks = await running.client.refusal(request), ()

        assert failure is not None
        _assert_reason(failure, (row.streamed if streamed else "") or row.reason)
        record = await upstream.next_record()
        async with asyncio.timeout(10):
            await record.ended.wait()
        assert record.outcome == row.outcome or row.fault in ANY_OUTCOME
        assert record.bytes_sent <= row.most_sent
        assert len(upstream.records) == 2  # the first call and this one: it was sent once
        await _rests(running, upstream, before)

        sound = await _answer(running, model, streamed=streamed)
        if streamed:
            assert len(chunks) in row.delivered
            delivered = _documents(chunks)
            if row.fault == "no-finish-reason":
                sound = [c for c in sound if not any(x["finish_reason"] for x in c["choices"])]
            assert delivered == sound[: len(delivered)]
        await _rests(running, upstream, before)


@pytest.mark.parametrize(("fault", "chunks"), [("no-done", 11), ("no-finish-reason", 10)])
async def test_an_end_that_is_not_strict_is_complete_by_default(fault: str, chunks: int) -> None:
    model = _once(fault)
    async with simulator() as upstream, service([model, "any"], upstream) as running:
        documents = await _answer(running, model, streamed=True)
        sound = await _answer(running, model, streamed=True)
        assert upstream.records[0].scenario == fault
    if fault == "no-finish-reason":
        sound = [c for c in sound if not any(x["finish_reason"] for x in c["choices"])]
    assert documents == sound
    assert len(documents) == chunks


@pytest.mark.parametrize(("fault", "streamed"), _cases(*SOUND))
async def test_an_unusual_form_of_a_sound_answer_changes_nothing(
    fault: str, streamed: bool
) -> None:
    model = _once(fault)
    async with simulator() as upstream, service([model, "any"], upstream) as running:
        await running.client.create("any")
        before = Footprint.take()
        unusual = await _answer(running, model, streamed=streamed)
        await _rests(running, upstream, before)
        assert unusual == await _answer(running, model, streamed=streamed)
        assert upstream.records[1].scenario == fault
        assert upstream.records[2].scenario == "completion"
        assert all(document["model"] == model for document in unusual)


# -------------------------------------------------------------- valid responses in unusual forms


@asynccontextmanager
async def _faulty(fault: str, **changes: Any) -> AsyncIterator[tuple[Running, SimulatorServer]]:
    async with (
        simulator() as upstream,
        service([f"sim-fault:{fault}"], upstream, **changes) as running,
    ):
        yield running, upstream


@pytest.mark.parametrize(
    ("fault", "text", "streamed"),
    [
        ("split-utf8", WIDE * 8, True),
        ("split-data", WIDE * 8, True),
        ("unicode-separators", SEPARATORS, False),
        ("unicode-separators", SEPARATORS, True),
        ("lone-surrogates", PIECES[0], False),
        ("lone-surrogates", "".join(PIECES), True),
        ("escaped-json", WIDE, False),
        ("escaped-json", WIDE, True),
    ],
)
async def test_texts_arrive_as_they_were_sent(fault: str, text: str, streamed: bool) -> None:
    async with _faulty(fault) as (running, _):
        documents = await _answer(running, f"sim-fault:{fault}", streamed=streamed)
    if streamed:
        said = "".join(
            choice["delta"].get("content") or ""
            for document in documents
            for choice in document["choices"]
        )
    else:
        said = documents[0]["choices"][0]["message"]["content"]
    assert said.startswith(text)


@pytest.mark.parametrize("streamed", [False, True])
async def test_members_of_a_vendor_arrive(streamed: bool) -> None:
    def assert_extended(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                assert_extended(item)
        elif isinstance(value, dict):
            assert value["x_vendor"] == VENDOR
            for name, member in value.items():
                if name != "x_vendor":
                    assert_extended(member)

    async with _faulty("vendor-members") as (running, _):
        for document in await _answer(running, "sim-fault:vendor-members", streamed=streamed):
            assert_extended(document)


_USAGES: Final[Mapping[str, tuple[Any, bool]]] = {
    # fault: the last usage that the caller sees, and whether it is taken for what was used
    "usage-missing": (None, False),
    "usage-twice": (8, True),
    "usage-negative": (-1, False),
    "usage-huge": (HUGE, False),
    "usage-text": ("7", False),
    "usage-fraction": (1.5, False),
    "usage-null": (None, False),
    "usage-list": (None, False),
    "usage-in-every-chunk": (8, True),
}


@pytest.mark.parametrize(("fault", "streamed"), _cases(*_USAGES))
async def test_senseless_usage_does_not_fail_a_call_and_is_counted_instead(
    fault: str, streamed: bool
) -> None:
    seen, taken = _USAGES[fault]
    model = f"sim-fault:{fault}"
    async with _faulty(fault) as (running, _):
        documents = await _answer(running, model, streamed=streamed)
        usage = documents[-1].get("usage")
        told = usage["completion_tokens"] if isinstance(usage, dict) else None
        if seen is None and streamed:  # it was requested, so that it is counted
            assert (told, usage["estimated"]) == (8, True)
        else:
            assert told == seen
        tokens_in, tokens_out = (
            running.metric(
                "gen_ai_client_token_usage_sum",
                gen_ai_request_model=model,
                gen_ai_token_type=direction,
            )
            for direction in ("input", "output")
        )
    if taken:
        assert (tokens_in, tokens_out) == (1, 8)
    else:
        # A token for each short piece of a stream, and for four bytes of a whole answer.
        whole = "".join(split(INTRODUCTION)[:8])
        assert 1 < tokens_in < 20
        assert tokens_out == (8 if streamed else -(-len(whole) // 4))


async def test_usage_that_nobody_asked_for_is_withheld() -> None:
    async with simulator() as upstream, service(["any"], upstream) as running:
        result = await running.client.collect("any")
        assert result.failure is None
        assert not any(chunk.HasField("usage") for chunk in result.chunks)
        assert all(chunk.choices for chunk in result.chunks)
        assert upstream.records[0].document["stream_options"] == {"include_usage": True}


# ------------------------------------------------------------------ what a server cannot produce


def _closed_port(stack: ExitStack) -> str:
    """Return an address that refuses connections: its port is bound, but not listening."""
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{bound.getsockname()[1]}"


def _black_hole(stack: ExitStack) -> str:
    """Return an address that does not respond: its queue of connections is full."""
    listening = stack.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    for _ in range(4):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listening.getsockname())
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def _unknown_name(_: ExitStack) -> str:
    return "http://upstream.invalid"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("make", [_closed_port, _black_hole, _unknown_name])
async def test_an_upstream_that_cannot_be_reached(
    make: Callable[[ExitStack], str], streamed: bool
) -> None:
    with ExitStack() as stack:
        async with service(["any"], make(stack), connect_timeout=0.3) as running:
            await running.client.refusal("any")
            before = Footprint.take()
            failure = await running.client.refusal("any", streamed=streamed)
            _assert_reason(failure, "UPSTREAM_UNAVAILABLE")
            assert (
                failure.error.message == "The model provider could not be reached. Try again later."
            )
            # Each of the two calls was tried twice, because nothing was sent.
            await running.rests()
            assert running.metric("chat_upstream_retries_total") == 2
            await before.returns()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", ["close-before-headers", "reset-before-headers"])
async def test_a_connection_that_ends_before_the_response(fault: str, streamed: bool) -> None:
    async with simulator() as upstream, service([_once(fault), "any"], upstream) as running:
        failure = await running.client.refusal(_once(fault), streamed=streamed)
        _assert_reason(failure, "UPSTREAM_ERROR")
        assert len(upstream.records) == 1
        await running.rests()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", ["close-before-headers", "reset-before-headers"])
async def test_a_request_that_an_idle_connection_loses_is_sent_once_more(
    fault: str, streamed: bool
) -> None:
    model = _once(fault)
    async with simulator() as upstream, service([model, "any"], upstream) as running:
        await running.client.create("any")
        documents = await _answer(running, model, streamed=streamed)
        assert documents == await _answer(running, model, streamed=streamed)
        assert [upstream.records[n].scenario for n in (1, 2)] == [fault, "completion"]
        assert running.metric("chat_upstream_retries_total") == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_busy_upstream_is_asked_once_more(streamed: bool) -> None:
    async with _faulty("503") as (running, upstream):
        failure = await running.client.refusal("sim-fault:503", streamed=streamed)
        _assert_reason(failure, "UPSTREAM_UNAVAILABLE")
        assert len(upstream.records) == 2


async def test_an_exhausted_pool() -> None:
    names = ["any", "sim-fault:hang-before-headers"]
    async with (
        simulator() as upstream,
        service(names, upstream, upstream_max_connections=1, connect_timeout=0.3) as running,
    ):
        await running.client.create("any")
        await upstream.next_record()
        before = Footprint.take()
        holding = running.client.start_create("sim-fault:hang-before-headers")
        held = await upstream.next_record()
        for streamed in (False, True):
            failure = await running.client.refusal("any", streamed=streamed)
            _assert_reason(failure, "OVERLOADED")
        assert len(upstream.records) == 2
        holding.cancel()
        await held.ended.wait()
        await running.client.create("any")
        await running.rests()
        await before.returns()


# ----------------------------------------------------------------- what must not pass either way


@asynccontextmanager
async def _canary() -> AsyncIterator[tuple[str, list[Any]]]:
    """Run a listener to which nothing must connect; yield its address and its connections."""
    callers: list[Any] = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", callers


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_redirect_is_not_followed(streamed: bool) -> None:
    async with _canary() as (url, callers), simulator() as upstream:
        model = f"sim-fault:redirect={url}/v1/chat/completions"
        async with service([model], upstream) as running:
            failure = await running.client.refusal(model, streamed=streamed)
            _assert_reason(failure, "UPSTREAM_INVALID_RESPONSE")
            assert len(upstream.records) == 1
    assert callers == []


async def test_the_environment_names_no_proxy_and_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    passwords = tmp_path / "netrc"
    passwords.write_text("machine 127.0.0.1 login someone password of-netrc\n")
    monkeypatch.setenv("NETRC", str(passwords))
    async with _canary() as (url, callers), simulator() as upstream:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with service(["any"], upstream, options=[("grpc.enable_http_proxy", 0)]) as running:
            await running.client.create("any")
        assert upstream.records[0].headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert callers == []


async def test_the_upstream_is_told_what_it_needs_and_no_more() -> None:
    async with simulator() as upstream, service(["any"], upstream) as running:
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        metadata = (
            ("x-request-id", "req-of-the-caller"),
            ("traceparent", traceparent),
            ("tracestate", "a=1"),
            ("baggage", "b=2"),
            ("cookie", "of-the-caller"),
            ("x-forwarded-for", "192.0.2.1"),
        )
        await running.client.create("any", metadata=metadata)
        headers = dict(upstream.records[0].headers)
        headers.pop("host")
        headers.pop("content-length")
        headers.pop("user-agent")
        assert headers == {
            "authorization": f"Bearer {UPSTREAM_KEY}",
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "x-request-id": "req-of-the-caller",
            "traceparent": traceparent,
            "tracestate": "a=1",
            "baggage": "b=2",
        }
        assert KEY.encode() not in upstream.records[0].body


async def test_headers_of_the_upstream_stay_inside() -> None:
    async with _faulty("vendor-headers") as (running, _):
        call = running.client.start_create("sim-fault:vendor-headers")
        await call
        initial = {name for name, _ in await call.initial_metadata() or ()}
        trailing = {name for name, _ in await call.trailing_metadata() or ()}
    assert initial == {"x-request-id", "openai-processing-ms"}
    assert trailing == set()


# ---------------------------------------------------------- the caller's mistake, told by upstream

_TOLD: Final[Mapping[str, tuple[str, str, str, str | int]]] = {
    # fault: message, type, param, code
    "400": (
        "Invalid value for 'temperature'.",
        "invalid_request_error",
        "temperature",
        "invalid_value",
    ),
    "400-integer-code": ("The prompt is too long.", "BadRequestError", "", 400),
    "400-flat": ("The prompt is too long.", "BadRequestError", "", 400),
    "400-text": ("The request is not valid.", "invalid_request_error", "", "invalid_value"),
    "400-empty": ("The request is not valid.", "invalid_request_error", "", "invalid_value"),
    "422-detail": (
        "messages: Field required",
        "invalid_request_error",
        "messages",
        "invalid_value",
    ),
    "422": (
        "Input should be a string.",
        "invalid_request_error",
        "messages[0].content",
        "string_type",
    ),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", _TOLD)
async def test_the_callers_mistake_is_told_in_the_upstreams_words(
    fault: str, streamed: bool
) -> None:
    async with _faulty(fault) as (running, _):
        error = (await running.client.refusal(f"sim-fault:{fault}", streamed=streamed)).error
    code = error.code_number if error.HasField("code_number") else error.code_text
    assert (error.message, error.type, error.param, code) == _TOLD[fault]


async def test_the_upstreams_words_are_scrubbed() -> None:
    at = "sim-fault:400-internal-details"
    async with simulator() as upstream, service({"public": at}, upstream) as running:
        failure = await running.client.refusal("public")
        assert "the prompt is too long" in failure.error.message
        for detail in (*INTERNAL_DETAILS, UPSTREAM_KEY, upstream.base_url):
            assert detail not in str(failure)


async def test_what_an_upstream_says_of_itself_is_scrubbed() -> None:
    async with simulator() as upstream, service({"public": "vendor/secret"}, upstream) as running:
        host = upstream.base_url.removeprefix("http://")
        body = {
            "error": {
                "message": f"vendor/secret at {host} refused {UPSTREAM_KEY} of org-abcdefgh",
                "type": "t",
                "param": UPSTREAM_KEY,
                "code": "vendor/secret",
            }
        }
        upstream.reply_with("vendor/secret", status=400, body=json.dumps(body).encode())
        failure = await running.client.refusal("public")
        for detail in ("vendor/secret", UPSTREAM_KEY, host, "org-abcdefgh"):
            assert detail not in str(failure)
        assert failure.error.code_text == "public"


@pytest.mark.parametrize("fault", ["401", "402", "403", "404", "502", "429-quota"])
async def test_what_the_upstream_says_of_us_stays_inside(fault: str) -> None:
    async with _faulty(fault) as (running, _):
        failure = await running.client.refusal(f"sim-fault:{fault}")
    for word in ("Incorrect API key", "Insufficient", "no access", "quota", "exist", "<"):
        assert word not in failure.error.message


async def test_a_large_error_of_the_upstream_fits_the_trailers() -> None:
    async with simulator() as upstream, service(["any"], upstream) as running:
        error = {name: f"{name} \U0001f680" * 500 for name in ("message", "type", "param", "code")}
        upstream.reply_with("any", status=400, body=json.dumps({"error": error}).encode())
        failure = await running.client.refusal("any")
        _assert_reason(failure, "INVALID_REQUEST")
        assert failure.error.message.startswith("message \U0001f680")
        assert failure.error.param.startswith("param \U0001f680")
        assert sum(map(len, failure.trailers.values())) < 4096 + 128
