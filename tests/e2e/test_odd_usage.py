"""Usage in a stream, as callers get it: requested or not, from upstreams that send it oddly or
never; and an upstream that refuses `stream_options`, through every door.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS, document
from tests.support.odd_answers import (
    ASKED,
    COUNTED,
    DONE,
    PIECES,
    REPORT,
    STOP,
    STREAM,
    Row,
    call,
    check,
    chunk,
    event,
    http,
    json_answer,
    raw_server,
    report,
    stream,
    usage,
)
from tests.support.priced_models import priced

TOTALS: Final = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
SILENT: Final = event(chunk(None, usage=usage()))
BESIDE: Final = event(chunk(None, "stop", usage=usage()))
COST: Final = event({**chunk(None), "choices": [], "usage": usage(cost=0.5, queue_time=1)})


def unusual(choices: Mapping[str, Any]) -> bytes:
    """Return a usage chunk with other choices than an empty array."""
    members = {name: value for name, value in report().items() if name != "choices"}
    return event({**members, **choices})


EACH: Final = (
    event(chunk("Blue", usage=usage(completion_tokens=1))),
    event(chunk(" whale", "stop", usage=usage())),
)

ROWS: Final[tuple[Row, ...]] = (
    stream("requested, in a chunk", *STREAM, request=ASKED, usages=(usage(),)),
    stream("requested, beside the end", *PIECES, BESIDE, DONE, request=ASKED, usages=(usage(),)),
    stream("requested, in each chunk", *EACH, DONE, request=ASKED, usages=(usage(),)),
    stream(
        "requested, beside nothing", *PIECES, STOP, SILENT, DONE, request=ASKED, usages=(usage(),)
    ),
    stream(
        "requested, before [DONE] is left out", *PIECES, BESIDE, request=ASKED, usages=(usage(),)
    ),
    stream("not requested, beside the end", *PIECES, BESIDE, DONE),
    stream("not requested, beside nothing", *PIECES, STOP, SILENT, DONE),
    stream("not requested, in each chunk", *EACH, DONE),
    stream(
        "running totals, requested",
        *(*EACH, REPORT, DONE),
        request=TOTALS,
        usages=(usage(completion_tokens=1), usage(), usage()),
    ),
    stream("costs", *PIECES, STOP, COST, DONE, request=ASKED, usages=(usage(queue_time=1),)),
    stream("not requested, never", *PIECES, STOP, DONE, used=COUNTED),
    *(
        row
        for name, choices in (
            ("null", {"choices": None}),
            ("no", {}),
            ("an empty text for", {"choices": ""}),
        )
        for row in (
            stream(
                f"requested, beside {name} choices",
                *(*PIECES, STOP, unusual(choices), DONE),
                request=ASKED,
                usages=(usage(),),
            ),
            stream(f"not requested, beside {name} choices", *PIECES, STOP, unusual(choices), DONE),
        )
    ),
    stream(
        "one character each, in one choice",
        *(event(chunk(letter)) for letter in "Blue whale"),
        *(STOP, REPORT, DONE),
        request=ASKED,
        usages=(usage(),),
    ),
)


async def test_usage_has_a_chunk_of_its_own() -> None:
    await check(ROWS)


@pytest.mark.parametrize("body", [(*PIECES, STOP, DONE), (*PIECES, STOP), (*PIECES, DONE)])
async def test_usage_that_nobody_reported_is_counted_and_marked(body: tuple[bytes, ...]) -> None:
    async with (
        raw_server([(http(*body),)]) as upstream,
        accounts_stack(
            {"m": priced(upstream_model="0", upstream="raw")}, base_urls={"raw": upstream.url}
        ) as stack,
    ):
        for door in DOORS:
            team = stack.books.team()
            request = {**document("m"), **ASKED}
            failure, said = await call(stack, door, team.key, request, streamed=True)
            assert failure is None
            await stack.service.rests()
            (charge,) = stack.books.charges(team)
            assert said[-1]["choices"] == []
            assert said[-1]["usage"] == {
                "prompt_tokens": charge.prompt,
                "completion_tokens": charge.completion,
                "total_tokens": charge.prompt + charge.completion,
                "estimated": True,
            }
            assert (charge.completion, charge.estimated, charge.partial) == (2, True, False)
            assert [each for each in said[:-1] if each.get("usage") is not None] == []
        await stack.rests()


REFUSALS: Final[dict[str, Any]] = {
    "Mistral": {
        "object": "error",
        "message": {
            "detail": [
                {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Not allowed"}
            ]
        },
    },
    "param": {"error": {"message": "Unsupported parameter.", "param": "stream_options"}},
    "text": {"error": "unknown field `stream_options`"},
    "inner": {"error": {"message": "Unrecognized request argument: include_usage"}},
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("requested", [False, True])
async def test_an_upstream_that_refuses_stream_options_is_asked_without(
    refusal: str, requested: bool
) -> None:
    body = json.dumps(REFUSALS[refusal]).encode()
    async with (
        raw_server([(json_answer(body, status=422), http(*PIECES, STOP, DONE))]) as upstream,
        accounts_stack(
            {"m": priced(upstream_model="0", upstream="raw")}, base_urls={"raw": upstream.url}
        ) as stack,
    ):
        for door in DOORS:
            team = stack.books.team()
            request = {**document("m"), **(ASKED if requested else {})}
            failure, said = await call(stack, door, team.key, request, streamed=True)
            assert failure is None
            assert ("usage" in said[-1]) is requested
            await stack.service.rests()
            (charge,) = stack.books.charges(team)
            assert charge.estimated
        await stack.rests()
        options = ["stream_options" in each for each in upstream.bodies]
        assert options == [True, False, False, False]


async def test_refused_options_of_a_caller_change_no_other_charge() -> None:
    body = json.dumps(REFUSALS["param"]).encode()
    async with (
        raw_server(
            [(json_answer(body, status=422), http(*PIECES, STOP, REPORT, DONE))]
        ) as upstream,
        accounts_stack(
            {"m": priced(upstream_model="0", upstream="raw")}, base_urls={"raw": upstream.url}
        ) as stack,
    ):
        team = stack.books.team()
        for members in (TOTALS, {}):
            request = {**document("m"), **members}
            failure, _ = await call(stack, "grpc", team.key, request, streamed=True)
            assert failure is None
            await stack.service.rests()
        assert [charge.estimated for charge in stack.books.charges(team)] == [False, False]
        options = [each.get("stream_options") for each in upstream.bodies]
        assert options == [TOTALS["stream_options"], *([{"include_usage": True}] * 2)]
        await stack.rests()


async def test_stream_is_false_upstream_only_if_the_caller_sent_it() -> None:
    whole = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
    async with (
        raw_server([(json_answer(whole),)]) as upstream,
        accounts_stack(
            {"m": priced(upstream_model="0", upstream="raw")}, base_urls={"raw": upstream.url}
        ) as stack,
    ):
        for door in DOORS:
            for members in ({}, {"stream": False}):
                request = {**document("m"), **members}
                failure, _ = await call(
                    stack, door, stack.books.team().key, request, streamed=False
                )
                assert failure is None
                assert ("stream" in upstream.bodies[-1]) is bool(members)
                assert not upstream.bodies[-1].get("stream")
        await stack.rests()
