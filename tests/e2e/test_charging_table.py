"""The charge for each end of a call, to the nano-credit: unary and streamed, over gRPC and REST.

    rejected, refused, failed, nothing delivered    nothing
    cancelled or cut after k tokens                 the prompt and k, partial
    complete                                        the report; otherwise the count, estimated

A piece of up to 16 bytes counts as one token. A larger piece, and a unary response, count as one
token per four bytes, rounded up.

Each row makes four calls of four teams on one stack, on each database. Afterwards, nothing is held
and nothing runs.
"""

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import pytest

from chatcompletion import openai_json
from service.simulator import text
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, Answer, DoorName, document, params
from tests.support.books import Charge
from tests.support.priced_models import CREDIT, STRICT, cost, priced

PROMPT: Final = 1
"""Tokens of the prompt, as the simulator counts them."""
TIMEOUT: Final = 1.5
"""Seconds for the four tokens to arrive, in rows that end by a timeout after them."""
DELIVERED: Final = -1
"""In place of a count: the number of tokens that the caller received, at least one."""
PIECES: Final = text.split(text.INTRODUCTION)
"""The beginning of each response of the simulator, with a token in each piece."""


def counted(pieces: Sequence[str], *, streamed: bool) -> int:
    """Return the counted tokens of delivered pieces."""
    if streamed:
        return sum(1 if len(piece) <= 16 else -(-len(piece) // 4) for piece in pieces)
    return -(-len("".join(pieces)) // 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """The charge. If the prompt is None, the service counts prompt and completion, which has so
    many tokens of the simulator."""

    prompt: int | None = PROMPT
    completion: int = 8
    partial: bool = False

    @property
    def estimated(self) -> bool:
        return self.prompt is None


NOTHING: Final = None
REPORTED: Final = Used()
COUNTED: Final = Used(prompt=None)
CUT: Final = Used(prompt=None, completion=4, partial=True)
BROKEN: Final = Used(prompt=None, completion=DELIVERED, partial=True)
"""The tokens, out of four, before the connection broke; buffered ones are lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One end of a call."""

    name: str
    upstream_model: str
    whole: Used | None = NOTHING
    streamed: Used | None = NOTHING
    codes: tuple[str, str] = ("", "")
    """The codes of the error, unary and streamed; "" for success."""
    entry: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the model's entry."""
    clocks: Mapping[str, Any] = field(default_factory=dict)
    """The timeouts of the service. Only rows that end by a timeout have a short one, because other
    rows would also end by it on a slow machine."""
    request: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    leave_after: int | None = None
    forms: tuple[bool, ...] = (False, True)


def failing(name: str, fault: str, code: str, **more: Any) -> Row:
    """Return a row of a fault that delivers nothing."""
    usual: dict[str, Any] = {"codes": (code, code)}
    return Row(name=name, upstream_model=f"sim-fault:{fault},tokens=8", **(usual | more))


def cut(name: str, fault: str, code: str, **more: Any) -> Row:
    """Return a row of a stream that ends after four tokens."""
    usual: dict[str, Any] = {"streamed": CUT, "codes": (code, code), "forms": (True,)}
    return Row(name=name, upstream_model=f"sim-fault:{fault},tokens=8", **(usual | more))


def broken(name: str, fault: str) -> Row:
    """Return a row of a connection that breaks after four tokens, which arrive one by one."""
    return cut(name, f"{fault},itd=0.05", "upstream_truncated", streamed=BROKEN)


def reporting(name: str, whole: Used, streamed: Used) -> Row:
    """Return a row of a complete response with an unusual report."""
    model = f"sim-fault:{name},tokens=8"
    return Row(name=name, upstream_model=model, whole=whole, streamed=streamed)


SOUND: Final = "sim:tokens=8"

ROWS: Final = (
    # -------------------------------------------------------------- rejected before dispatch
    Row(
        name="rejected: invalid",
        upstream_model=SOUND,
        request={"temperature": 3},
        codes=("number_out_of_range", "number_out_of_range"),
    ),
    Row(
        name="rejected: more than the model's maximum",
        upstream_model=SOUND,
        request={"max_tokens": 100_001},
        codes=("number_out_of_range", "number_out_of_range"),
    ),
    Row(
        name="rejected: unknown model",
        upstream_model=SOUND,
        request={"model": "no-such-model"},
        codes=("model_not_found", "model_not_found"),
    ),
    # ------------------------------------------------------------------- never accepted
    Row(
        name="upstream unreachable",
        upstream_model=SOUND,
        entry={"upstream": "nowhere"},
        codes=("upstream_unavailable", "upstream_unavailable"),
    ),
    failing(
        "upstream hangs",
        "hang-before-headers",
        "upstream_timeout",
        clocks={"first_byte_timeout": 0.3, "request_timeout": 2.0},
    ),
    failing("upstream closes", "close-before-headers", "upstream_error"),
    failing("upstream resets", "reset-before-headers", "upstream_error"),
    # --------------------------------------------------------------------- error status
    failing("400", "400", "invalid_value"),
    failing("401", "401", "upstream_account"),
    failing("402", "402", "upstream_account"),
    failing("429 for our account", "429-quota", "upstream_account"),
    failing("404", "404", "upstream_error"),
    failing("429", "429", "upstream_rate_limited"),
    failing("500", "500", "upstream_error"),
    failing("503", "503", "upstream_unavailable"),
    failing("200 with HTML", "200-html", "upstream_invalid_response"),
    failing("200 with an error", "200-error", "upstream_error"),
    # ----------------------------------------------------------------- nothing delivered
    failing("half of a body", "truncated-body", "upstream_truncated", forms=(False,)),
    failing("reset in a body", "reset-mid-stream", "upstream_truncated", forms=(False,)),
    failing("no event", "empty-stream", "upstream_truncated", forms=(True,)),
    failing("only [DONE]", "done-only", "upstream_truncated", forms=(True,)),
    failing("error first", "error-event-first", "upstream_error", forms=(True,)),
    failing("role, then cut", "cut-chunked-body=1", "upstream_truncated", forms=(True,)),
    # --------------------------------------------------------- cut by the upstream after four
    broken("chunked body cut", "cut-chunked-body"),
    broken("reset", "reset-mid-stream"),
    broken("bad chunking", "bad-chunking"),
    cut("hangs", "hang-mid-stream", "upstream_timeout", clocks={"idle_timeout": TIMEOUT}),
    cut("clean end", "clean-end-mid-stream", "upstream_truncated"),
    cut("error event", "error-event", "upstream_error"),
    cut("named error event", "error-event-named", "upstream_error"),
    cut("malformed event", "malformed-event", "upstream_invalid_response"),
    cut(
        "no [DONE], with a report, strict",
        "no-done",
        "upstream_truncated",
        streamed=Used(partial=True),
        entry={"upstream": STRICT},
    ),
    cut(
        "no finish_reason, with a report, strict",
        "no-finish-reason",
        "upstream_truncated",
        streamed=Used(partial=True),
        entry={"upstream": STRICT},
    ),
    # ---------------------------------------------------------------------------- deadline
    Row(
        name="deadline",
        upstream_model="sim-fault:hang-mid-stream=5,tokens=8",
        streamed=CUT,
        timeout=TIMEOUT,
        codes=("deadline_exceeded", "deadline_exceeded"),
    ),
    # --------------------------------------------------------------- left by the caller
    Row(
        name="left after four",
        upstream_model="sim-fault:hang-mid-stream=5,tokens=8",
        streamed=CUT,
        leave_after=4,
        forms=(True,),
    ),
    Row(
        name="left after six of three choices",
        upstream_model="sim-fault:hang-mid-stream=9,tokens=8",
        request={"n": 3},
        streamed=Used(prompt=None, completion=6, partial=True),
        leave_after=6,
        forms=(True,),
    ),
    # ------------------------------------------------------------------------- complete
    Row(name="complete", upstream_model=SOUND, whole=REPORTED, streamed=REPORTED),
    Row(
        name="complete, with usage for the caller",
        upstream_model=SOUND,
        request={"stream_options": {"include_usage": True}},
        streamed=REPORTED,
        forms=(True,),
    ),
    Row(
        name="no [DONE], but every finish_reason",
        upstream_model="sim-fault:no-done,tokens=8",
        streamed=REPORTED,
        forms=(True,),
    ),
    Row(
        name="no finish_reason, but [DONE]",
        upstream_model="sim-fault:no-finish-reason,tokens=8",
        streamed=REPORTED,
        forms=(True,),
    ),
    Row(
        name="three choices",
        upstream_model=SOUND,
        request={"n": 3},
        whole=Used(completion=24),
        streamed=Used(completion=24),
    ),
    Row(
        name="cut by its limit",
        upstream_model=SOUND,
        request={"max_tokens": 3},
        whole=Used(completion=3),
        streamed=Used(completion=3),
    ),
    Row(
        name="free of charge",
        upstream_model=SOUND,
        entry={"input_price": 0, "output_price": 0},
        whole=REPORTED,
        streamed=REPORTED,
    ),
    Row(
        name="less than a nano-credit is one",
        upstream_model=SOUND,
        entry={"input_price": Decimal("1e-9"), "output_price": Decimal("1e-9"), "margin": 0},
        whole=REPORTED,
        streamed=REPORTED,
    ),
    Row(
        name="a margin of a thousandth of a percent",
        upstream_model=SOUND,
        entry={"input_price": 1, "output_price": 1, "margin": Decimal("0.001")},
        whole=REPORTED,
        streamed=REPORTED,
    ),
    # ------------------------------------------------------------- with an odd report
    reporting("usage-missing", COUNTED, COUNTED),
    reporting("usage-twice", REPORTED, REPORTED),
    reporting("usage-negative", COUNTED, COUNTED),
    reporting("usage-huge", COUNTED, COUNTED),
    reporting("usage-text", COUNTED, COUNTED),
    reporting("usage-fraction", COUNTED, COUNTED),
    reporting("usage-null", COUNTED, COUNTED),
    reporting("usage-list", COUNTED, COUNTED),
    Row(
        name="usage in every chunk",
        upstream_model="sim-fault:usage-in-every-chunk,tokens=8",
        streamed=REPORTED,
        forms=(True,),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_the_ending_costs_what_the_table_says(row: Row, database: str) -> None:
    entry = priced(upstream_model=row.upstream_model, **row.entry)
    request = {**document("row"), **row.request}
    cases = [(door, streamed) for door in DOORS for streamed in row.forms]
    with closed_port() as port:
        async with accounts_stack(
            {"row": entry},
            database=database,
            base_urls={"nowhere": f"http://127.0.0.1:{port}"},
            bridge_timeout=row.timeout or 60,
            **row.clocks,
        ) as stack:
            teams = {case: stack.books.team() for case in cases}
            answers = await asyncio.gather(
                *(
                    stack.ask(
                        door,
                        teams[door, streamed].key,
                        request,
                        streamed=streamed,
                        deadline=row.timeout or 60,
                        leave_after=row.leave_after,
                    )
                    for door, streamed in cases
                )
            )
            await stack.rests()

            told = {
                case: (answer.code, stack.books.charges(teams[case]))
                for case, answer in zip(cases, answers, strict=True)
            }
            assert told == {
                case: (row.codes[case[1]], expected(row, case, answer, entry, request))
                for case, answer in zip(cases, answers, strict=True)
            }
            for case in cases:
                spent = sum(charge.amount for _, charges in [told[case]] for charge in charges)
                assert stack.books.balance(teams[case]) == CREDIT - spent
            stack.books.nothing_is_open()


def expected(
    row: Row,
    case: tuple[DoorName, bool],
    answer: Answer,
    entry: Mapping[str, Any],
    request: Mapping[str, Any],
) -> list[Charge]:
    door, streamed = case
    used = row.streamed if streamed else row.whole
    if used is NOTHING:
        return []
    prompt, completion = used.prompt, used.completion
    if prompt is None:
        # The service counts a token per four bytes of the request.
        sent = {**request, "stream": True} if streamed and door != "grpc" else request
        size = openai_json.canonicalize_request(params(sent)).ByteSize()
        prompt = -(-size // 4)
    if completion == DELIVERED:
        assert 0 < answer.pieces <= 4
        completion = answer.pieces
    if streamed:
        # Without a report, the delivered output is charged.
        assert answer.pieces == completion
    if used.estimated:
        choices = request.get("n", 1)
        delivered = PIECES[: completion // choices]
        completion = counted(delivered, streamed=streamed) * choices
    return [
        Charge(
            amount=cost(prompt, completion, entry),
            prompt=prompt,
            completion=completion,
            partial=used.partial,
            estimated=used.estimated,
        )
    ]


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port that refuses connections: it is bound, but not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


# ------------------------------------------------------------------------- leaving early


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fault", ["hang-before-headers", "hang-mid-stream=1"])
async def test_who_leaves_before_a_token_pays_nothing(
    fault: str, door: DoorName, streamed: bool, database: str
) -> None:
    entry = priced(upstream_model=f"sim-fault:{fault},tokens=8")
    async with accounts_stack({"row": entry}, database=database) as stack:
        team = stack.books.team()
        call = asyncio.create_task(stack.ask(door, team.key, "row", streamed=streamed))
        record = await stack.upstream.next_record()
        assert stack.books.held(team) > 0
        call.cancel()
        await asyncio.wait((call,))
        await record.ended.wait()
        await stack.rests()

        assert record.outcome == "caller_left"
        assert stack.books.charges(team) == []
        stack.books.nothing_is_open()


# ------------------------------------------------------------------------------ reports


def reported(stack: AccountsStack, *, prompt: int, completion: int, done: bool = True) -> None:
    """Define a response of two tokens with this report."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    head = {"id": "chatcmpl-1", "created": 1, "model": "laid"}
    message = {"role": "assistant", "content": "Hello."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
    stack.upstream.reply_with(
        "laid", content_type="application/json", body=json.dumps(whole).encode()
    )

    def chunk(**members: Any) -> bytes:
        chunk = {**head, "object": "chat.completion.chunk", "choices": [], **members}
        return json.dumps(chunk).encode()

    def piece(text: str, finish: str | None = None) -> bytes:
        delta = {"content": text}
        return chunk(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])

    stack.upstream.stream_with(
        "laid", [piece("Hel"), piece("lo.", "stop"), chunk(usage=usage)], done=done
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("completion", [10**6, 2**53, 2**63 - 2])
async def test_usage_above_the_hold_is_not_charged_and_counted(
    door: DoorName, streamed: bool, completion: int, database: str
) -> None:
    entry = priced(upstream_model="laid")
    async with accounts_stack({"row": entry}, database=database) as stack:
        reported(stack, prompt=1, completion=completion)
        team = stack.books.team()
        answer = await stack.ask(door, team.key, "row", streamed=streamed)
        await stack.rests()

        (hold,) = stack.books.holds(team)
        (charge,) = stack.books.charges(team)
        assert answer.code == ""
        assert charge.amount == hold
        assert charge.completion == min(completion, 10**12)
        assert stack.books.balance(team) == CREDIT - hold
        lost = stack.service.metric("chat_usage_above_hold_nano_credits_total")
        assert lost == float(cost(1, completion, entry) - hold)
        usage = stack.books.directory.reports.usage(team.name, since=0)
        assert [sums.charged for sums in usage] == [hold]
        stack.books.nothing_is_open()


@pytest.mark.parametrize("upstream", ["simulator", STRICT])
@pytest.mark.parametrize("door", DOORS)
async def test_a_report_that_came_before_the_cut_counts(
    door: DoorName, upstream: str, database: str
) -> None:
    """And is that of a complete answer where `[DONE]` may be missing."""
    cut = upstream == STRICT
    entry = priced(upstream_model="laid", upstream=upstream)
    async with accounts_stack({"row": entry}, database=database) as stack:
        reported(stack, prompt=11, completion=7, done=False)
        team = stack.books.team()
        answer = await stack.ask(door, team.key, "row", streamed=True)
        await stack.rests()

        assert (answer.code, answer.pieces) == ("upstream_truncated" if cut else "", 2)
        assert stack.books.charges(team) == [
            Charge(amount=cost(11, 7), prompt=11, completion=7, partial=cut)
        ]
        stack.books.nothing_is_open()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_hold_is_the_price_of_what_the_upstream_is_allowed(
    streamed: bool, n: int, database: str
) -> None:
    entry = priced(upstream_model="sim-fault:hang-before-headers", input_price=0)
    async with accounts_stack({"row": entry}, database=database) as stack:
        team = stack.books.team()
        request = {**document("row"), "n": n}
        call = asyncio.create_task(stack.ask("grpc", team.key, request, streamed=streamed))
        record = await stack.upstream.next_record()

        assert record.document["max_tokens"] == 100
        assert stack.books.held(team) == cost(0, 100 * n, entry)
        assert stack.books.running(team) == 1
        call.cancel()
        await asyncio.wait((call,))
        await record.ended.wait()
        await stack.rests()
        stack.books.nothing_is_open()
