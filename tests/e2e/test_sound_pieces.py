"""Sound streams in more pieces than the output limit has tokens, through every door: nothing is
cut or changed, and the same reasoning under several names counts once.
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
    call,
    chunk,
    event,
    http,
    json_answer,
    raw_server,
    report,
    usage,
    whole,
)
from tests.support.priced_models import cost, priced

LIMIT: Final = 40
"""Tokens of output that each call asks for."""
TEXT: Final = "The blue whale is the largest animal that has ever lived on this planet. " * 3
REPORTED: Final = usage(completion_tokens=LIMIT, total_tokens=11 + LIMIT)


def pieces(name: str, texts: Sequence[str], *, index: int = 0) -> list[dict[str, Any]]:
    """Return a chunk for each text, in a member of the delta."""
    return [choice(index, **{name: text}) for text in texts]


def choice(index: int = 0, finish: str | None = None, **members: Any) -> dict[str, Any]:
    one = {"index": index, "delta": members, "finish_reason": finish}
    return {**chunk(None), "choices": [one]}


def called(**members: Any) -> dict[str, Any]:
    return choice(tool_calls=[{"index": 0, **members}])


ARGUMENTS: Final = json.dumps({"text": TEXT})
THOUGHTS: Final = [f" {number}" for number in range(250)]
WORDS: Final = [f" w{number}" for number in range(LIMIT)]
STREAMS: Final[Mapping[str, Sequence[dict[str, Any]]]] = {
    "a character each": [*pieces("content", TEXT), choice(finish="stop")],
    "a character each, to the limit": [*pieces("content", TEXT), choice(finish="length")],
    "a refusal": [*pieces("refusal", TEXT), choice(finish="stop")],
    "arguments": [
        called(id="c", type="function", function={"name": "f", "arguments": ""}),
        *(called(function={"arguments": letter}) for letter in ARGUMENTS),
        choice(finish="tool_calls"),
    ],
    "the input of a custom tool": [
        called(id="c", type="custom", custom={"name": "f", "input": ""}),
        *(called(custom={"input": letter}) for letter in TEXT),
        choice(finish="tool_calls"),
    ],
    "arguments of a function call": [
        choice(function_call={"name": "f", "arguments": ""}),
        *(choice(function_call={"arguments": letter}) for letter in ARGUMENTS),
        choice(finish="function_call"),
    ],
    "two choices": [
        *pieces("content", TEXT),
        *pieces("content", TEXT, index=1),
        choice(finish="stop"),
        choice(1, "stop"),
    ],
    **{
        f"{name} outside the limit": [
            *pieces(name, THOUGHTS),
            *pieces("content", WORDS),
            choice(finish="stop"),
        ]
        for name in ("reasoning_content", "reasoning", "thinking")
    },
}


async def answers(
    body: bytes, *, streamed: bool, **members: Any
) -> list[tuple[list[Any], Charge, int]]:
    """Return the documents, the charge and the hold of a call through each door."""
    found = []
    async with (
        raw_server([(body,)]) as upstream,
        accounts_stack(
            {"m": priced(upstream_model="0", upstream="raw")}, base_urls={"raw": upstream.url}
        ) as stack,
    ):
        for door in DOORS:
            team = stack.books.team()
            request = {**document("m"), "max_tokens": LIMIT, **members}
            failure, said = await call(stack, door, team.key, request, streamed=streamed)
            assert failure is None
            await stack.rests()
            (charge,) = stack.books.charges(team)
            (hold,) = stack.books.holds(team)
            found.append((said, charge, hold))
        assert stack.service.metric("chat_upstream_overruns_total", gen_ai_request_model="m") == 0
        stack.books.nothing_is_open()
    return found


def choices(said: Sequence[Any]) -> list[Any]:
    return [one for each in said for one in each["choices"]]


@pytest.mark.parametrize("requested", [True, False])
@pytest.mark.parametrize("kind", STREAMS)
async def test_pieces_are_not_tokens(kind: str, requested: bool) -> None:
    sent = STREAMS[kind]
    assert len(sent) > 4 * LIMIT
    body = http(*map(event, sent), event(report(usage=REPORTED)), DONE)
    members = {**(ASKED if requested else {}), **({"n": 2} if "two" in kind else {})}
    for said, charge, _ in await answers(body, streamed=True, **members):
        assert choices(said) == choices(sent)
        told = [one["usage"] for one in said if one.get("usage") is not None]
        assert told == ([REPORTED] if requested else [])
        if "two" not in kind:
            assert charge == Charge(amount=cost(11, LIMIT), prompt=11, completion=LIMIT)


@pytest.mark.parametrize("kind", STREAMS)
async def test_without_a_report_nothing_is_cut_either(kind: str) -> None:
    sent = STREAMS[kind]
    body = http(*map(event, sent), DONE)
    members: dict[str, Any] = {**ASKED, **({"n": 2} if "two" in kind else {})}
    for said, charge, hold in await answers(body, streamed=True, **members):
        assert choices(said) == choices(sent)
        [told] = [one["usage"] for one in said if one.get("usage") is not None]
        assert told["completion_tokens"] == charge.completion <= LIMIT * members.get("n", 1)
        assert told["estimated"]
        assert (charge.estimated, charge.partial) == (True, False)
        assert charge.amount <= hold


TWICE: Final[Mapping[str, tuple[str, ...]]] = {
    "one name": ("reasoning",),
    "two names": ("reasoning", "reasoning_content"),
    "the other one name": ("reasoning_content",),
    "details": ("reasoning", "reasoning_details"),
    "all": ("reasoning", "reasoning_content", "reasoning_details"),
}


def thought(names: Sequence[str], text: str) -> dict[str, Any]:
    details = [{"type": "reasoning.text", "text": text}]
    return {name: details if name == "reasoning_details" else text for name in names}


@pytest.mark.parametrize("kind", TWICE)
async def test_the_same_reasoning_under_several_names_counts_once(kind: str) -> None:
    thoughts = [f" t{number}" for number in range(20)]
    sent = [
        *(choice(**thought(TWICE[kind], text)) for text in thoughts),
        choice(content="Blue"),
        choice(finish="stop"),
    ]
    for said, charge, _ in await answers(http(*map(event, sent), DONE), streamed=True):
        assert choices(said) == choices(sent)
        assert (charge.completion, charge.estimated) == (len(thoughts) + 1, True)

    message = {"role": "assistant", "content": "Blue", **thought(TWICE[kind], "".join(thoughts))}
    one = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json_answer(json.dumps(whole(choices=[one], usage=None)).encode())
    for said, charge, _ in await answers(body, streamed=False):
        assert choices(said) == [one]
        size = len("Blue" + "".join(thoughts))
        assert (charge.completion, charge.estimated) == (-(-size // 4), True)
