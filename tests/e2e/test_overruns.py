"""Streams that certainly exceed the output limit, through every door: a cut text ends as the
upstream should have ended it, with marked usage; a cut call is an error.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest

from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS, document
from tests.support.books import Charge
from tests.support.odd_answers import (
    ASKED,
    DONE,
    INVALID,
    Failure,
    call,
    chunk,
    event,
    http,
    raw_server,
    report,
    usage,
)
from tests.support.priced_models import cost, priced

LIMIT: Final = 50
CUT_AFTER: Final = 16 * (LIMIT + 64) // 4 + 1
"""The pieces of four bytes before a cut."""
PIECES: Final = 2 * CUT_AFTER


def delta(index: int = 0, finish: str | None = None, **members: Any) -> bytes:
    choice = {"index": index, "delta": members, "finish_reason": finish}
    return event({**chunk(None), "choices": [choice]})


def tool(**members: Any) -> bytes:
    return delta(tool_calls=[{"index": 0, **members}])


FOUR: Final = event(chunk("four"))
ARGUMENTS: Final = tool(function={"arguments": "four"})
CALLS: Final[Mapping[str, Sequence[bytes]]] = {
    "tool": [
        tool(id="c", type="function", function={"name": "f", "arguments": '{"a":"'}),
        *[ARGUMENTS] * PIECES,
        tool(function={"arguments": '"}'}),
        delta(finish="tool_calls"),
    ],
    "after text": [*[FOUR] * 20, *[ARGUMENTS] * PIECES],
    "before text": [ARGUMENTS, *[FOUR] * PIECES],
    "custom tool": [tool(custom={"name": "f", "input": "four"})] * PIECES,
    "function": [delta(function_call={"arguments": "four"})] * PIECES,
    "one of two choices": [
        delta(1, "stop", content="four"),
        *[ARGUMENTS] * (2 * PIECES),
    ],
    "with a report in each": [
        event(
            {
                **json.loads(ARGUMENTS.removeprefix(b"data: ")),
                "usage": usage(completion_tokens=number, total_tokens=11 + number),
            }
        )
        for number in range(1, PIECES)
    ],
}


async def outcomes(
    body: Sequence[bytes], **members: Any
) -> list[tuple[Failure | None, list[Any], Charge]]:
    """Return the failure, the documents and the charge of a stream through each door."""
    found = []
    async with (
        raw_server([(http(*body, event(report()), DONE),)]) as upstream,
        accounts_stack(
            {"m": priced(upstream_model="0", upstream="raw")}, base_urls={"raw": upstream.url}
        ) as stack,
    ):
        for door in DOORS:
            team = stack.books.team()
            request = {**document("m"), "max_tokens": LIMIT, **members}
            failure, said = await call(stack, door, team.key, request, streamed=True)
            await stack.rests()
            (charge,) = stack.books.charges(team)
            (hold,) = stack.books.holds(team)
            assert charge.amount == min(hold, cost(charge.prompt, charge.completion))
            found.append((failure, said, charge))
        name = "chat_upstream_overruns_total"
        assert stack.service.metric(name, gen_ai_request_model="m") == len(DOORS)
        stack.books.nothing_is_open()
    return found


def choices(said: Sequence[Any]) -> list[Any]:
    return [choice for one in said for choice in one["choices"]]


@pytest.mark.parametrize("requested", [True, False])
@pytest.mark.parametrize("kind", CALLS)
async def test_a_cut_within_a_call_is_an_error_and_no_success(kind: str, requested: bool) -> None:
    members = {**(ASKED if requested else {}), **({"n": 2} if "two" in kind else {})}
    for failure, said, charge in await outcomes(CALLS[kind], **members):
        assert failure is not None
        assert (failure.error["code"], failure.retryable or False) == (INVALID, False)
        assert "output limit" in failure.error["message"]
        # Neither an end nor usage can be taken for those of a whole response.
        ends = {
            each["index"]: each["finish_reason"] for each in choices(said) if each["finish_reason"]
        }
        assert ends == ({1: "stop"} if "two" in kind else {})
        assert [one["usage"] for one in said if one.get("usage") is not None] == []
        assert len(said) > CUT_AFTER // 2
        assert charge.partial


async def test_the_arguments_of_a_cut_call_are_no_json() -> None:
    for _, said, charge in await outcomes(CALLS["tool"]):
        arguments = "".join(
            called["function"]["arguments"]
            for choice in choices(said)
            for called in choice["delta"]["tool_calls"]
        )
        assert arguments.startswith('{"a":"fourfour')
        with pytest.raises(ValueError, match="Unterminated string"):
            json.loads(arguments)
        assert (charge.completion, charge.estimated) == (LIMIT, True)


@pytest.mark.parametrize("requested", [True, False])
async def test_a_cut_text_ends_by_its_length_with_marked_usage(requested: bool) -> None:
    for failure, said, charge in await outcomes([FOUR] * PIECES, **(ASKED if requested else {})):
        assert failure is None
        finishes = [each["finish_reason"] for each in choices(said)]
        assert finishes == [*[None] * CUT_AFTER, "length"]
        used = {
            "prompt_tokens": charge.prompt,
            "completion_tokens": LIMIT,
            "total_tokens": charge.prompt + LIMIT,
            "estimated": True,
        }
        told = [one["usage"] for one in said if one.get("usage") is not None]
        assert told == ([used] if requested else [])
        assert (charge.completion, charge.partial, charge.estimated) == (LIMIT, False, True)


async def test_usage_that_the_upstream_reported_before_a_cut_is_not_marked() -> None:
    each = [
        event({**chunk("four"), "usage": usage(completion_tokens=n, total_tokens=11 + n)})
        for n in range(1, PIECES)
    ]
    for failure, said, charge in await outcomes(each, **ASKED):
        assert failure is None
        told = [one["usage"] for one in said if one.get("usage") is not None]
        assert told == [usage(completion_tokens=CUT_AFTER, total_tokens=11 + CUT_AFTER)]
        assert (charge.prompt, charge.completion, charge.estimated) == (11, CUT_AFTER, False)
