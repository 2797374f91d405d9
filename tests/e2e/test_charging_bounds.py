"""No call costs more than its hold, for any request and any response.

Over gRPC and REST: requests that could cost more than their hold are rejected before anything is
held; the limit that a rejection names is accepted; output without a report is counted.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest

from process.log import JsonFormatter
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, DoorName, document
from tests.support.json_equality import parse
from tests.support.priced_models import CREDIT, cost, priced

BOTH_DOORS: Final = pytest.mark.parametrize("door", DOORS)
USER: Final = {"role": "user", "content": "Hello"}
PICTURE: Final = {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}
CALL: Final = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL: Final = {"type": "function", "function": {"name": "f"}}


# ------------------------------------------------------------------- refused before it is held

REFUSED: Final[dict[str, tuple[Mapping[str, Any], str]]] = {
    "another limit": ({"MAX_TOKENS": 4000}, "max_tokens"),
    "another k": ({"max_to\u212aens": 9}, "max_tokens"),
    "another model": ({"Model": "expensive"}, "model"),
    "more choices": ({"N": 5}, "n"),
    "a template": ({"chat_template": "{% for i in range(99999) %}x {% endfor %}"}, "chat_template"),
    "a template inside": (
        {"chat_template_kwargs": {"chat_template": "x"}},
        "chat_template_kwargs.chat_template",
    ),
    "larger pictures": ({"mm_processor_kwargs": {"max_pixels": 10**9}}, "mm_processor_kwargs"),
    "the best of many": ({"best_of": 64}, "best_of"),
    "other models": ({"models": ["expensive"]}, "models"),
    "another upstream": ({"api_base": "http://a.example"}, "api_base"),
    "another key": ({"extra_headers": {"authorization": "x"}}, "extra_headers"),
    "another tier": ({"service_tier": "priority"}, "service_tier"),
    "an upstream's limit": ({"max_tokens": 1, "n_predict": 4000}, "n_predict"),
    "an upstream's choices": ({"n_cmpl": 2}, "n_cmpl"),
    "a prompt that is padded": (
        {"chat_template_kwargs": {"tokenize": True, "padding": "max_length", "max_length": 4000}},
        "chat_template_kwargs.tokenize",
    ),
    "a prompt between messages": (
        {"ensure_alternating_roles": True, "user_continue_message": {"content": "x" * 9999}},
        "ensure_alternating_roles",
    ),
    "no limit": ({"additional_drop_params": ["max_tokens"]}, "additional_drop_params"),
    "headers": (
        {"provider_specific_header": {"extra_headers": {"x-evil": "1"}}},
        "provider_specific_header",
    ),
    "tiles of a picture": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {
                                "url": "https://a.example/x.png",
                                "max_dynamic_patch": 99,
                            },
                        }
                    ],
                }
            ]
        },
        "messages[0].content[0].image_url.max_dynamic_patch",
    ),
    "a search": ({"web_search_options": {}}, "web_search_options"),
    "a tool of the upstream": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "speech": (
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
        "modalities",
    ),
    "a member of no list": ({"reserve_capacity": True}, "reserve_capacity"),
    "messages": ({"messages": [USER] * 4097}, "messages"),
    "empty messages": ({"messages": [{}] * 100_000}, "messages"),
    "parts": (
        {"messages": [USER, {"role": "user", "content": [PICTURE] * 4097}]},
        "messages[1].content",
    ),
    "parts in all": (
        {"messages": [{"role": "user", "content": [PICTURE] * 1000}] * 5},
        "messages[4].content",
    ),
    "calls": (
        {"messages": [{"role": "assistant", "tool_calls": [CALL] * 4097}]},
        "messages[0].tool_calls",
    ),
    "tools": ({"tools": [TOOL] * 4097}, "tools"),
}


@pytest.mark.parametrize(("members", "param"), REFUSED.values(), ids=REFUSED)
@BOTH_DOORS
async def test_what_would_cost_more_than_is_held_is_refused(
    door: DoorName, members: Mapping[str, Any], param: str
) -> None:
    async with accounts_stack({"default": priced()}) as stack:
        team = stack.books.team()
        for streamed in (False, True):
            answer = await stack.ask(
                door, team.key, {**document("default"), **members}, streamed=streamed
            )

            assert answer.status == 422
            assert answer.retryable is False
            if isinstance(answer.error, Mapping):
                assert answer.error["param"] == param
            else:
                assert param.encode() in answer.error
        assert stack.books.holds(team) == []
        assert len(stack.upstream.records) == 0


@BOTH_DOORS
async def test_the_log_names_the_setting_that_would_allow_a_member(
    door: DoorName, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service.telemetry")
    caplog.handler.setFormatter(JsonFormatter())
    async with accounts_stack({"default": priced(allowed_members=["n_predict"])}) as stack:
        team = stack.books.team()
        refused = await stack.ask(door, team.key, {**document("default"), "n_cmpl": 2})
        allowed = await stack.ask(door, team.key, {**document("default"), "n_predict": 4})
        await stack.rests()

        assert (refused.status, allowed.status) == (422, 200)
        assert stack.upstream.records[0].document["n_predict"] == 4
    lines = list(map(json.loads, caplog.text.splitlines()))
    told = [(line["violations"], line["settings"]) for line in lines if "settings" in line]
    assert told == [(["n_cmpl"], ["models.default.allowed_members"])]
    assert "allowed_members" not in repr(refused)


PASSES: Final[Mapping[str, Any]] = {
    "top_k": 40,
    "min_p": 0.050,
    "repetition_penalty": 1.10,
    "guided_json": {"type": "object", "b": 1, "a": 2.0},
    "ignore_eos": False,
    "stop_token_ids": [],
    "chat_template_kwargs": {"enable_thinking": False, "thinking_budget": 512},
    "use_beam_search": None,
}
SAYS_NOTHING: Final[Mapping[str, Any]] = {
    "fallbacks": [],
    "options": {},
    "use_beam_search": False,
    "num_retries": 0,
    "api_key": "",
}


@BOTH_DOORS
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_harmless_passes_as_it_is_and_what_says_nothing_does_not(
    door: DoorName, streamed: bool
) -> None:
    async with accounts_stack({"default": priced()}) as stack:
        team = stack.books.team()
        for members in (PASSES, SAYS_NOTHING):
            answer = await stack.ask(
                door, team.key, {**document("default"), **members}, streamed=streamed
            )
            assert answer.code == ""
        await stack.rests()

        passed, left = (parse(stack.upstream.records[at].body) for at in (0, 1))
        assert {name: passed[name] for name in PASSES} == parse(json.dumps(PASSES))
        assert not SAYS_NOTHING.keys() & left.keys()


@BOTH_DOORS
@pytest.mark.parametrize("known", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("asked", ["max_tokens", "max_completion_tokens"])
async def test_an_upstream_is_told_the_limit_where_it_heeds_it(
    door: DoorName, known: str, asked: str
) -> None:
    async with accounts_stack({"default": priced(output_limit=known)}) as stack:
        team = stack.books.team()
        answer = await stack.ask(door, team.key, {**document("default"), asked: 3})
        await stack.rests()

        sent = stack.upstream.records[0].document
        assert answer.code == ""
        assert {name: sent[name] for name in sent if name.startswith("max_")} == {known: 3}


# -------------------------------------------------------------------------------- the hint

PREDICTION: Final = {"type": "content", "content": "word " * 20}
ASKED: Final[dict[str, Mapping[str, Any]]] = {
    "no limit": {},
    "a limit": {"max_tokens": 90_000},
    "the other limit": {"max_completion_tokens": 90_000},
    "null": {"max_completion_tokens": None},
    "several choices": {"n": 3},
    "a prediction": {"prediction": PREDICTION},
}
PLAIN: Final = priced(
    upstream_model="sim:tokens=1",
    default_output_tokens=1000,
    input_price=1,
    output_price=1,
    margin=0,
)


@pytest.mark.parametrize("members", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("limits", [{"credit": 900_000}, {"tokens_per_minute": 900}])
@BOTH_DOORS
async def test_the_largest_limit_that_is_told_is_admitted_and_one_more_is_not(
    door: DoorName, limits: Mapping[str, int], members: Mapping[str, Any]
) -> None:
    async with accounts_stack({"default": PLAIN}) as stack:
        team = stack.books.team(**limits)
        refused = await stack.ask(door, team.key, {**document("default"), **members})
        told = re.search(r"to at most (\d+)\.", refused.message)
        assert told is not None
        rest = {name: value for name, value in members.items() if value not in (None, 90_000)}
        one_more, admitted = [
            await stack.ask(door, team.key, {**document("default"), **rest, "max_tokens": limit})
            for limit in (int(told[1]) + 1, int(told[1]))
        ]
        await stack.rests()

        assert refused.status == one_more.status != 200
        assert admitted.code == ""


@BOTH_DOORS
async def test_where_no_limit_fits_none_is_told(door: DoorName) -> None:
    async with accounts_stack({"default": PLAIN}) as stack:
        for limits in ({"credit": 500_000}, {"tokens_per_minute": 500}):
            team = stack.books.team(**limits)
            refused = await stack.ask(door, team.key, "default")

            assert refused.status in (402, 429)
            assert "max_tokens" not in refused.message


# ------------------------------------------------------------------------------ what is counted

ENTRY: Final = priced(upstream_model="laid", attachment_estimate=200)


def lay(stack: AccountsStack, chunks: Sequence[Mapping[str, Any]], *, done: bool) -> None:
    """Define a stream of these deltas, each with its usage."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "laid"}
    events = []
    for chunk in chunks:
        members = dict(chunk)
        usage = {"usage": members.pop("usage")} if "usage" in members else {}
        choice = {
            "index": members.pop("index", 0),
            "finish_reason": members.pop("finish_reason", None),
            "delta": members,
        }
        events.append(json.dumps({**head, "choices": [choice], **usage}).encode())
    stack.upstream.stream_with("laid", events, done=done)


def usage(prompt: int, completion: int) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"usage": {**counts, "total_tokens": prompt + completion}}


ARGUMENTS: Final = json.dumps({"x": "word " * 50})
STOP: Final = {"finish_reason": "stop"}

COUNTED: Final[dict[str, tuple[Sequence[Mapping[str, Any]], bool, int | None, int]]] = {
    # The output, whether it is complete, and the charge: prompt (None: estimated), completion.
    "early report, cut": (
        [{"content": "", **usage(10, 0)}, *[{"content": "four"}] * 50],
        False,
        10,
        50,
    ),
    "of each choice alone, cut": (
        [{"content": "four", "index": i, **usage(10, k)} for k in range(1, 6) for i in range(4)],
        False,
        10,
        20,
    ),
    "zeros in each": ([*[{"content": "four", **usage(0, 0)}] * 50, STOP], True, None, 50),
    "a call in one piece": (
        [
            {
                "tool_calls": [
                    {"index": 0, "id": "c", "function": {"name": "f", "arguments": ARGUMENTS}}
                ]
            },
            STOP,
        ],
        True,
        None,
        (len(ARGUMENTS) + 1 + 3) // 4,
    ),
    "long pieces, cut": ([{"content": "word " * 16}] * 3, False, None, 60),
    "members that nobody knows, cut": ([{"thinking": "12"}] * 5, False, None, 5),
}


@pytest.mark.parametrize(("chunks", "done", "prompt", "completion"), COUNTED.values(), ids=COUNTED)
@BOTH_DOORS
async def test_what_was_delivered_is_charged_where_no_report_covers_it(
    door: DoorName,
    chunks: Sequence[Mapping[str, Any]],
    done: bool,
    prompt: int | None,
    completion: int,
) -> None:
    async with accounts_stack({"default": ENTRY}) as stack:
        lay(stack, chunks, done=done)
        team = stack.books.team()
        request = document("default", messages=[USER], n=4)
        await stack.ask(door, team.key, request, streamed=True)
        await stack.rests()

        (charge,) = stack.books.charges(team)
        assert (charge.completion, charge.partial) == (completion, not done)
        assert charge.estimated
        assert charge.prompt == prompt or (prompt is None and 0 < charge.prompt < 20)
        assert charge.amount == cost(charge.prompt, charge.completion, ENTRY)
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_an_upstream_that_disregards_the_limit_is_cut_as_it_should_have_done(
    door: DoorName,
) -> None:
    async with accounts_stack({"default": ENTRY}) as stack:
        lay(stack, [{"content": "four"}] * 500, done=False)
        team = stack.books.team()
        request = document("default", messages=[USER], max_tokens=50)
        answer = await stack.ask(door, team.key, request, streamed=True)
        await stack.rests()

        assert (answer.code, answer.pieces) == ("", 16 * (50 + 64) // 4 + 1)
        (charge,) = stack.books.charges(team)
        assert (charge.completion, charge.partial, charge.estimated) == (50, False, True)
        (hold,) = stack.books.holds(team)
        assert charge.amount <= hold
        name = "chat_upstream_overruns_total"
        assert stack.service.metric(name, gen_ai_request_model="default") == 1
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_a_cut_within_a_call_is_an_error(door: DoorName) -> None:
    async with accounts_stack({"default": ENTRY}) as stack:
        call = {"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": "four"}}]}
        lay(stack, [{"content": "four"}, *[call] * 500], done=True)
        team = stack.books.team()
        request = document("default", messages=[USER], max_tokens=50)
        answer = await stack.ask(door, team.key, request, streamed=True)
        await stack.rests()

        assert (answer.code, answer.retryable or False) == ("upstream_invalid_response", False)
        assert "output limit" in answer.message
        (charge,) = stack.books.charges(team)
        assert (charge.completion, charge.partial, charge.estimated) == (50, True, True)
        name = "chat_upstream_overruns_total"
        assert stack.service.metric(name, gen_ai_request_model="default") == 1
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_a_character_a_piece_is_no_overrun(door: DoorName) -> None:
    async with accounts_stack({"default": ENTRY}) as stack:
        text = "The blue whale is the largest animal that has ever lived. " * 8
        letters: list[dict[str, Any]] = [{"content": letter} for letter in text]
        lay(stack, [*letters, {**STOP, **usage(11, 100)}], done=True)
        team = stack.books.team()
        request = document("default", messages=[USER], max_tokens=100)
        answer = await stack.ask(door, team.key, request, streamed=True)
        await stack.rests()

        assert (answer.code, answer.pieces) == ("", len(text))
        (charge,) = stack.books.charges(team)
        assert (charge.prompt, charge.completion, charge.estimated) == (11, 100, False)
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_a_name_that_each_piece_of_a_call_repeats_is_no_overrun(door: DoorName) -> None:
    """NVIDIA NIM sends this for MiniMax."""
    async with accounts_stack({"default": ENTRY}) as stack:
        arguments = json.dumps({"query": "whale song " * 30})
        calls: list[dict[str, Any]] = [
            {"tool_calls": [{"index": 0, "function": {"name": "search_the_web", "arguments": a}}]}
            for a in arguments
        ]
        lay(stack, [*calls, {**STOP, **usage(11, 100)}], done=True)
        team = stack.books.team()
        request = document("default", messages=[USER], max_tokens=100)
        answer = await stack.ask(door, team.key, request, streamed=True)
        await stack.rests()

        assert answer.code == ""
        (charge,) = stack.books.charges(team)
        assert (charge.prompt, charge.completion, charge.estimated) == (11, 100, False)
        stack.books.nothing_is_open()


@pytest.mark.parametrize("streamed", [True, False])
@BOTH_DOORS
async def test_two_answers_are_charged_as_two_where_each_is_reported_alone(
    door: DoorName, *, streamed: bool
) -> None:
    """llama.cpp reports each choice after its finish_reason, and one choice in a unary response."""
    async with accounts_stack({"default": ENTRY}) as stack:
        head = {"id": "c", "created": 1, "model": "laid"}
        if streamed:
            chunk = {**head, "object": "chat.completion.chunk"}
            pieces: list[dict[str, Any]] = [
                {"choices": [{"index": i, "delta": {"content": "four"}, "finish_reason": None}]}
                for _ in range(40)
                for i in (0, 1)
            ]
            ends: list[dict[str, Any]] = []
            for i in (1, 0):
                ends += [
                    {"choices": [{"index": i, "delta": {}, "finish_reason": "stop"}]},
                    {"choices": [], **usage(10, 41)},
                ]
            events = [json.dumps({**chunk, **each}).encode() for each in (*pieces, *ends)]
            stack.upstream.stream_with("laid", events)
        else:
            choices = [
                {
                    "index": i,
                    "message": {"role": "assistant", "content": "four" * 40},
                    "finish_reason": "stop",
                }
                for i in (0, 1)
            ]
            body = {**head, "object": "chat.completion", "choices": choices, **usage(10, 41)}
            stack.upstream.reply_with("laid", body=json.dumps(body).encode())
        team = stack.books.team()
        answer = await stack.ask(
            door, team.key, document("default", messages=[USER], n=2), streamed=streamed
        )
        await stack.rests()

        assert answer.code == ""
        (charge,) = stack.books.charges(team)
        assert (charge.prompt, charge.completion) == (10, 82 if streamed else 80)
        assert charge.estimated is not streamed
        assert charge.amount == cost(10, charge.completion, ENTRY)
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_a_total_of_two_answers_in_hindi_is_charged(door: DoorName) -> None:
    """Each piece of nine bytes counts as one token."""
    async with accounts_stack({"default": ENTRY}) as stack:
        text = "नीली व्हेल पृथ्वी पर अब तक का सबसे बड़ा जानवर है। " * 8
        total = 2 * len(text.encode()) // 9
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            for i in (0, 1)
        ]
        body = {"id": "c", "object": "chat.completion", "choices": choices, **usage(10, total)}
        stack.upstream.reply_with("laid", body=json.dumps(body).encode())
        team = stack.books.team()
        answer = await stack.ask(door, team.key, document("default", messages=[USER], n=2))
        await stack.rests()

        assert answer.code == ""
        (charge,) = stack.books.charges(team)
        assert (charge.prompt, charge.completion, charge.estimated) == (10, total, False)
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_pictures_are_not_free_where_nothing_is_reported(door: DoorName) -> None:
    async with accounts_stack({"default": ENTRY}) as stack:
        lay(stack, [{"content": "yes"}], done=False)
        team = stack.books.team()
        content = [{"type": "text", "text": "is it a cat"}, *[PICTURE] * 5]
        request = document("default", messages=[{"role": "user", "content": content}])
        await stack.ask(door, team.key, request, streamed=True)
        await stack.rests()

        (charge,) = stack.books.charges(team)
        assert 1000 < charge.prompt < 1100
        (hold,) = stack.books.holds(team)
        assert charge.amount < hold
        assert stack.books.balance(team) == CREDIT - charge.amount
