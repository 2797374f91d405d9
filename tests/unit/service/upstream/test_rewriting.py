import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion
from service.models import OUTPUT_LIMITS, OutputLimit
from service.upstream.rewriting import outgoing, rename, restyle
from service.upstream_dialect import Dialect
from tests.support.examples import examples
from tests.support.samples import (
    MODEL,
    accepted,
    chunk,
    chunk_message,
    completion,
    model,
)


def completion_message(document: dict[str, Any]) -> ChatCompletion:
    return openai_json.decode_completion(json.dumps(document).encode())


CHANGED = {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens"}


def sent(*, streamed: bool = False, limit: OutputLimit = "max_tokens", **members: Any) -> Any:
    return json.loads(outgoing(accepted(model(output_limit=limit), **members), streamed=streamed))


# ------------------------------------------------------------------------------- output limit


@pytest.mark.parametrize("limit", OUTPUT_LIMITS)
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, 100),
        ({"max_tokens": None}, 100),
        ({"max_completion_tokens": None}, 100),
        ({"max_tokens": None, "max_completion_tokens": None}, 100),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7),
        ({"max_completion_tokens": 7, "max_tokens": None}, 7),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_limit_is_told_in_the_member_that_the_upstream_knows_and_in_no_other(
    limit: OutputLimit, asked: dict[str, Any], told: int, streamed: bool
) -> None:
    body = sent(limit=limit, streamed=streamed, **asked)

    assert {name: body[name] for name in body if name.startswith("max_")} == {limit: told}


# ------------------------------------------------------------------------------------ outgoing


@pytest.mark.parametrize("stream", [..., None, True, False])
def test_the_rpc_says_whether_to_stream(stream: Any) -> None:
    assert sent(stream=stream).get("stream") is (False if stream is False else None)
    assert ("stream" in sent(stream=stream)) is (stream is False)
    assert sent(stream=stream, streamed=True)["stream"] is True


@pytest.mark.parametrize(
    ("given_options", "sent_options"),
    [
        (..., {"include_usage": True}),
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": None}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": True}, {"include_usage": True}),
        (
            {"include_obfuscation": False, "x": [1]},
            {"include_usage": True, "include_obfuscation": False, "x": [1]},
        ),
        (
            {"include_obfuscation": None},
            {"include_usage": True, "include_obfuscation": None},
        ),
    ],
)
def test_usage_is_always_asked_for_in_a_stream(given_options: Any, sent_options: Any) -> None:
    assert sent(stream_options=given_options, streamed=True)["stream_options"] == sent_options


def test_a_null_of_stream_options_does_not_go_out_without_a_stream() -> None:
    assert "stream_options" not in sent(stream_options=None)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
MEMBERS = st.dictionaries(
    st.sampled_from(
        [
            *("temperature", "top_p", "n", "stop", "seed", "tools", "tool_choice", "metadata"),
            *("logit_bias", "response_format", "reasoning_effort", "user", "functions", "audio"),
            *("top_k", "guided_json", "chat_template_kwargs", "x"),
        ]
    )
    | st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda name: name not in CHANGED),
    JSON,
    max_size=6,
)


@examples(200)
@given(members=MEMBERS, streamed=st.booleans(), stream=st.none() | st.booleans())
def test_nothing_else_changes(members: dict[str, Any], streamed: bool, stream: bool | None) -> None:
    asked = {"messages": [{"role": "user", "content": "Hi", "x": None}], **members}
    body = sent(**asked, stream=stream, streamed=streamed)

    rest = {name: value for name, value in body.items() if name not in CHANGED}
    assert spelled(rest) == spelled({"messages": asked.pop("messages"), **asked})


def spelled(document: Any) -> str:
    """Return JSON in one spelling, in which True and 1 differ, and 1.0 and 1 do not."""

    def plain(value: Any) -> Any:
        match value:
            case float() if value.is_integer():
                return int(value)
            case list():
                return [plain(item) for item in value]
            case dict():
                return {name: plain(item) for name, item in value.items()}
        return value

    return json.dumps(plain(document), sort_keys=True)


# -------------------------------------------------------------------------------- coming back


@pytest.mark.parametrize("name", ["vendor/gemma", None, 7, ...])
def test_an_answer_has_the_name_that_the_caller_used(name: Any) -> None:
    document = completion(model=name)
    if name is ...:
        del document["model"]
    answer = completion_message(document)
    rename(answer, MODEL)

    assert json.loads(openai_json.encode_completion(answer)) == {**document, "model": "default"}


def test_a_chunk_has_the_name_that_the_caller_used() -> None:
    document = chunk(x=None)
    answer = chunk_message(document)
    rename(answer, MODEL)

    assert json.loads(openai_json.encode_chunk(answer)) == {**document, "model": "default"}


# ------------------------------------------------------------------------------------- dialects


def test_a_limit_that_nobody_set_is_not_sent_if_none_is_imposed() -> None:
    free = model(imposes_limit=False)
    for members, limit in (({}, None), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 7}, 7)):
        body = json.loads(outgoing(accepted(free, **members), streamed=False))
        assert body.get("max_tokens") == limit


def test_finish_reasons_are_translated() -> None:
    odd = model(dialect=Dialect(finish_reasons={"eos": "stop"}))
    for told, wanted in (("eos", "stop"), ("length", "length"), (None, "")):
        message = chunk_message(chunk("a", told))
        restyle(message, odd)
        assert message.choices[0].finish_reason == wanted


COSTS = {"cost": 0.1, "cost_details": {}, "estimated_cost": 1, "queue_time": 2}


@pytest.mark.parametrize(
    ("price", "hides", "left"),
    [
        (1, None, {"queue_time"}),
        (0, None, set(COSTS)),
        (1, False, set(COSTS)),
        (0, True, {"queue_time"}),
    ],
)
def test_costs_are_hidden_if_the_model_has_a_price(
    price: int, hides: bool | None, left: set[str]
) -> None:
    priced = model(input_price=price, dialect=Dialect(hides_cost=hides))
    message = completion_message(completion(usage={"prompt_tokens": 1, **COSTS}))
    restyle(message, priced)

    assert set(message.usage.extra_json) == left
