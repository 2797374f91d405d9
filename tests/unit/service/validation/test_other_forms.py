"""Requests in other forms, and the same requests in the form of the contract."""

import json
from typing import Any, Final

import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service import validation
from service.metering.bound import bound_of
from service.validation.entry_counts import MOST
from service.validation.other_forms import in_contract_form
from tests.support.samples import model, params

URL: Final = "https://a.example/x.png"
IMAGE: Final = {"type": "image_url", "image_url": {"url": URL}}
PRICED: Final = model(input_price=1, output_price=1, attachment_tokens=5000)
FREE: Final = model()


def user(content: Any, **members: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **members}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def assistant(**members: Any) -> dict[str, Any]:
    return {"role": "assistant", **members}


def call(arguments: Any, **members: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": arguments},
        **members,
    }


FORMS: Final[list[tuple[dict[str, Any], dict[str, Any]]]] = [
    # Strings in an array of parts.
    (user(["a", "b"]), user([text("a"), text("b")])),
    (user(["a", IMAGE]), user([text("a"), IMAGE])),
    (user([IMAGE, "a"]), user([IMAGE, text("a")])),
    ({"role": "system", "content": ["a"]}, {"role": "system", "content": [text("a")]}),
    (assistant(content=["a", text("b")]), assistant(content=[text("a"), text("b")])),
    # The address of a picture, as a string.
    (user([{**IMAGE, "image_url": URL}]), user([IMAGE])),
    (user([text("a"), {**IMAGE, "image_url": URL}]), user([text("a"), IMAGE])),
    (user(["a", {**IMAGE, "image_url": URL}]), user([text("a"), IMAGE])),
    (user([{"type": "text", "image_url": URL}]), user([{**IMAGE, "type": "text"}])),
    # Tool calls.
    (assistant(tool_calls=[call({"a": 1})]), assistant(tool_calls=[call('{"a": 1}')])),
    (assistant(tool_calls=[call([])]), assistant(tool_calls=[call("[]")])),
    (assistant(tool_calls=[call("", id=7)]), assistant(tool_calls=[call("", id="7")])),
    (
        assistant(tool_calls=[{"type": "custom", "custom": {"name": "f", "input": {}}}]),
        assistant(tool_calls=[{"type": "custom", "custom": {"name": "f", "input": "{}"}}]),
    ),
    (
        assistant(function_call={"name": "f", "arguments": {}}),
        assistant(function_call={"name": "f", "arguments": "{}"}),
    ),
    (
        {"role": "tool", "tool_call_id": 7, "content": ["a"]},
        {"role": "tool", "tool_call_id": "7", "content": [text("a")]},
    ),
    (assistant(tool_calls=[call(""), 7]), assistant(tool_calls=[call(""), {"value": 7}])),
    # Pictures that an assistant made.
    (assistant(images=[IMAGE]), assistant(content=[{**IMAGE, "text": '"type""image_url"'}])),
    (
        assistant(content="a", images=[{"image_url": URL}]),
        assistant(content=[text("a"), {**IMAGE, "text": ""}]),
    ),
    (
        assistant(content=[text("a")], images=[URL]),
        assistant(content=[text("a"), {**IMAGE, "text": ""}]),
    ),
    (assistant(content={"text": "a"}), assistant(content=[{"text": "a"}])),
]
"""Messages as callers send them, and in the form of the contract."""


def of(message: dict[str, Any]) -> ChatCompletionParams:
    return params(messages=[user("Hello"), message])


def named(row: Any) -> str:
    return json.dumps(row)[:70]


@pytest.mark.parametrize(("sent", "formed"), FORMS, ids=named)
def test_a_message_in_another_form_is_read_as_in_that_of_the_contract(
    sent: dict[str, Any], formed: dict[str, Any]
) -> None:
    asked = of(sent)
    before = asked.SerializeToString(deterministic=True)

    assert in_contract_form(asked) == of(formed)
    assert asked.SerializeToString(deterministic=True) == before
    assert json.loads(openai_json.encode_request(asked))["messages"][1] == sent


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"top_k": 5, "tools": []},
        {"messages": [user("a"), assistant(tool_calls=[], images=[], reasoning_details=[{}])]},
        {"messages": [user([IMAGE]), assistant(content=None, audio=None)]},
    ],
    ids=named,
)
def test_a_request_in_the_form_of_the_contract_is_not_copied(members: dict[str, Any]) -> None:
    asked = params(**members)

    assert in_contract_form(asked) is asked


@pytest.mark.parametrize(
    "content", [[7], ["a", None], ["a", [IMAGE]], {"text": "a"}, 7, [True]], ids=named
)
def test_what_has_no_form_of_the_contract_is_mistyped(content: Any) -> None:
    found = validation.violations(in_contract_form(of(user(content))), streamed=False)

    assert {violation.code for violation in found} == {"invalid_type"}
    assert all(violation.param.startswith("messages[1].content") for violation in found)


@pytest.mark.parametrize(
    "message",
    [
        user(["a", IMAGE]),
        user([{**IMAGE, "image_url": URL}]),
        user([{"type": "text", "text": "a", "image_url": URL}]),
        {"role": "tool", "tool_call_id": "c", "content": ["a", IMAGE]},
        assistant(images=[IMAGE]),
        assistant(content="a", images=[{"type": "image_url", "image_url": URL}]),
        assistant(content={"type": "image_url", "image_url": URL}),
    ],
    ids=named,
)
def test_a_picture_costs_the_same_in_every_form(message: dict[str, Any]) -> None:
    asked = in_contract_form(of(message))
    plain = bound_of(of(user("a")), PRICED, 1).prompt_tokens
    held = bound_of(asked, PRICED, 1).prompt_tokens

    assert plain + PRICED.attachment_tokens <= held < plain + PRICED.attachment_tokens + 1000
    assert bound_of(asked, PRICED, 1).prompt_estimate >= PRICED.attachment_estimate


@pytest.mark.parametrize("form", ["string", "images", "content"])
def test_the_base64_of_a_picture_is_no_text_in_any_form(form: str) -> None:
    url = "data:image/png;base64," + "A" * 1_000_000
    message = {
        "string": user([{"type": "image_url", "image_url": url}]),
        "images": assistant(images=[{"type": "image_url", "image_url": {"url": url}}]),
        "content": user(["a", {"type": "image_url", "image_url": {"url": url}}]),
    }[form]

    assert bound_of(in_contract_form(of(message)), PRICED, 1).prompt_tokens < 10_000


@pytest.mark.parametrize(
    "message",
    [
        user(["a"] * (MOST + 1)),
        assistant(tool_calls=[call("")] * (MOST + 1) + [7]),
        assistant(images=[URL] * (MOST + 1)),
    ],
    ids=["content", "tool_calls", "images"],
)
def test_too_many_entries_are_refused_in_every_form(message: dict[str, Any]) -> None:
    crowd = validation.crowd(in_contract_form(of(message)))

    assert crowd is not None
    assert crowd.code == "too_long"


def test_members_that_change_the_cost_of_a_part_are_found_in_every_form() -> None:
    part = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    pictured = {"type": "image_url", "image_url": {"url": URL, "max_dynamic_patch": 9}}

    for inner, param in (
        (part, "messages[1].content[1].cache_control"),
        (pictured, "messages[1].content[1].image_url.max_dynamic_patch"),
    ):
        asked = in_contract_form(of(user(["a", inner])))
        assert [v.param for v in validation.refused(asked, PRICED)] == [param]
