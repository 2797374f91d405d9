import json
from typing import Any

import pytest

from service.simulator import text
from service.simulator.completion import Completion, complete
from service.simulator.completion_request import parse
from service.simulator.error_objects import HttpError

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Tell me a secret, please."},
]


def answer(*, server_seed: int = 0, length: int = 30, **members: Any) -> Completion:
    request = parse({"model": "m", "messages": MESSAGES, **members}, tokens=length)
    return complete(request, seed=server_seed, length=length)


def words(completion: Completion, index: int = 0) -> str:
    return "".join(completion.choices[index].tokens)


def test_the_same_request_has_the_same_answer() -> None:
    assert answer(seed=3) == answer(seed=3)


@pytest.mark.parametrize(
    "other",
    [
        {"server_seed": 1},
        {"seed": 1},
        {"model": "other"},
        {"messages": [{"role": "user", "content": "Another question."}]},
    ],
)
def test_another_seed_model_or_question_has_another_answer(other: dict[str, Any]) -> None:
    assert words(answer(**other)) != words(answer())
    assert answer(**other).id != answer().id


def test_the_answer_says_that_no_model_was_called_and_repeats_no_prompt() -> None:
    whole = words(answer(length=500))

    assert whole.startswith("This is the built-in simulator; no model was called.")
    assert "secret" not in whole


def test_the_tokens_of_the_prompt_are_those_of_all_its_texts() -> None:
    # "Be" " brief" "."  "Tell" " me" " a" " secret" "," " please" "."
    assert answer().prompt_tokens == 10


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("limit", "tokens", "reason"),
    [(0, 0, "length"), (7, 7, "length"), (30, 30, "length"), (31, 30, "stop"), (None, 30, "stop")],
)
def test_the_limit_ends_the_text(member: str, limit: int | None, tokens: int, reason: str) -> None:
    members: dict[str, Any] = {member: limit}
    completion = answer(**members)

    assert completion.choices[0].finish_reason == reason
    assert len(completion.choices[0].tokens) == tokens
    assert completion.completion_tokens == tokens


def test_the_newer_limit_goes_before_the_older() -> None:
    assert answer(max_tokens=9, max_completion_tokens=4).completion_tokens == 4


@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        ("simulator", "This is the built-in "),
        ("mula", "This is the built-in si"),
        ("no model", "This is the built-in simulator; "),
        (["called", "built"], "This is the "),
        ("This", ""),
    ],
)
def test_the_text_ends_before_the_first_stop_sequence(stop: object, kept: str) -> None:
    completion = answer(stop=stop)

    assert words(completion) == kept
    assert completion.choices[0].finish_reason == "stop"
    assert all(completion.choices[0].tokens)


def test_a_stop_sequence_beyond_the_limit_is_not_reached() -> None:
    completion = answer(stop="called", max_tokens=4)

    assert words(completion) == "This is the built"
    assert completion.choices[0].finish_reason == "length"


def test_each_choice_has_its_own_text() -> None:
    completion = answer(n=4)

    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    assert len({words(completion, index) for index in range(4)}) == 4
    assert completion.completion_tokens == 120
    assert words(completion) == words(answer())


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "forecast", "parameters": SCHEMA}}


def test_a_forced_call_has_arguments_that_satisfy_its_schema() -> None:
    (choice,) = answer(tools=[TOOL], tool_choice="required").choices

    assert choice.finish_reason == "tool_calls"
    assert choice.call is not None
    assert choice.call.name == "forecast"
    assert json.loads("".join(choice.tokens)) == {"city": "simulated", "days": 1}


def test_a_call_is_cut_at_the_limit_and_not_at_a_stop_sequence() -> None:
    completion = answer(tools=[TOOL], tool_choice="required", max_tokens=3, stop="city")

    assert words(completion) == '{"city":'[: len(words(completion))]
    assert completion.completion_tokens == 3
    assert completion.choices[0].finish_reason == "length"


def test_a_function_without_parameters_takes_none() -> None:
    tool = {"type": "function", "function": {"name": "now"}}

    assert words(answer(tools=[tool], tool_choice="required")) == "{}"


def test_a_custom_tool_gets_text() -> None:
    tool = {"type": "custom", "custom": {"name": "python"}}

    assert words(answer(tools=[tool], tool_choice="required")) == "simulated input"


def test_the_older_function_call() -> None:
    functions = [{"name": "forecast", "parameters": SCHEMA}]
    (choice,) = answer(functions=functions, function_call={"name": "forecast"}).choices

    assert choice.finish_reason == "function_call"
    assert json.loads("".join(choice.tokens))["days"] == 1


def test_a_json_format_is_json() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}

    assert json.loads(words(answer(response_format=schema))) == {"city": "simulated", "days": 1}
    assert json.loads(words(answer(response_format={"type": "json_object"})))["simulated"] is True
    assert words(answer(response_format={"type": "text"})) == words(answer())


def test_json_of_lone_surrogates_stays_escaped() -> None:
    schema = {"name": "x", "schema": {"enum": ["\ud83d"]}}
    completion = answer(response_format={"type": "json_schema", "json_schema": schema})

    assert words(completion) == '"\\ud83d"'


@pytest.mark.parametrize(
    ("members", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": False}}},
            "response_format",
        ),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": False}}],
                "tool_choice": "required",
            },
            "tools",
        ),
    ],
)
def test_a_schema_that_nothing_satisfies_is_refused(members: dict[str, Any], param: str) -> None:
    with pytest.raises(HttpError) as refused:
        answer(**members)

    assert (refused.value.status, refused.value.param) == (400, param)


def test_created_comes_from_the_clock_if_there_is_one() -> None:
    request = parse({"model": "m", "messages": MESSAGES}, tokens=1)

    assert complete(request, seed=0, length=1, clock=lambda: 12.9).created == 12
    assert complete(request, seed=0, length=1).created == answer(length=1).created > 1_700_000_000


def test_names_and_texts_with_lone_surrogates_are_answered() -> None:
    messages = [{"role": "user", "content": "\ud83d"}]

    assert answer(model="\udc00", messages=messages).completion_tokens == 30
    assert text.count("\ud83d") == 1
