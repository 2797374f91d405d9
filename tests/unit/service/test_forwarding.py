import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatcompletion import openai_json
from service.errors import InvalidRequest
from service.forwarding import Progress, outgoing, output_limit, rename
from service.models import OutputLimit
from tests.unit.service.samples import (
    MODEL,
    chunk,
    chunk_message,
    completion,
    model,
    params,
    usage_chunk,
)

CHANGED = {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens"}


def sent(*, streamed: bool = False, limit: OutputLimit = "max_tokens", **members: Any) -> Any:
    return json.loads(outgoing(params(**members), model(output_limit=limit), streamed=streamed))


# ------------------------------------------------------------------------------- output limit


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ({}, 100),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 1000}, 1000),
        ({"max_tokens": None}, 100),
        ({"max_completion_tokens": None}, 100),
        ({"max_tokens": None, "max_completion_tokens": 9}, 9),
    ],
)
def test_the_limit_is_what_is_asked_or_the_models_default(
    members: dict[str, Any], limit: int
) -> None:
    assert output_limit(params(**members), MODEL) == limit


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("asked", [1001, 2**62])
def test_more_than_the_models_maximum_is_refused(name: str, asked: int) -> None:
    for refuse in (
        lambda: output_limit(params(**{name: asked}), MODEL),
        lambda: outgoing(params(**{name: asked}), MODEL, streamed=True),
    ):
        with pytest.raises(InvalidRequest) as refused:
            refuse()

        assert refused.value.message == "Must be at most 1000 for this model."
        assert [(v.param, v.code) for v in refused.value.violations] == [
            (name, "number_out_of_range")
        ]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    "nulls",
    [
        {},
        {"max_tokens": None},
        {"max_completion_tokens": None},
        {"max_tokens": None, "max_completion_tokens": None},
    ],
)
def test_the_default_is_told_in_the_member_that_the_upstream_knows(
    limit: OutputLimit, nulls: dict[str, Any]
) -> None:
    body = sent(limit=limit, **nulls)

    assert {name: body[name] for name in body.keys() & CHANGED} == {
        "model": "vendor/gemma",
        limit: 100,
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"max_tokens": 7},
        {"max_completion_tokens": 7},
        {"max_tokens": 7, "max_completion_tokens": None},
        {"max_completion_tokens": 7, "max_tokens": None},
    ],
)
def test_a_limit_that_is_asked_stays_where_it_was_asked(asked: dict[str, Any]) -> None:
    for limit in ("max_tokens", "max_completion_tokens"):
        body = sent(limit=limit, **asked)

        assert {name: body[name] for name in body if name.startswith("max_")} == asked


# ------------------------------------------------------------------------------------ outgoing


@pytest.mark.parametrize("stream", [..., None, True, False])
def test_the_rpc_says_whether_to_stream(stream: Any) -> None:
    assert "stream" not in sent(stream=stream)
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


@settings(max_examples=200, derandomize=True, deadline=None)
@given(members=MEMBERS, streamed=st.booleans(), stream=st.none() | st.booleans())
def test_nothing_else_changes(members: dict[str, Any], streamed: bool, stream: bool | None) -> None:
    asked = {"messages": [{"role": "user", "content": "Hi", "x": None}], **members}
    body = sent(**asked, stream=stream, streamed=streamed)

    rest = {name: value for name, value in body.items() if name not in CHANGED}
    assert spelled(rest) == spelled({"messages": asked.pop("messages"), **asked})


def spelled(document: Any) -> str:
    """Return JSON in one spelling, where True is not 1 and 1.0, which JSON does not tell, is 1."""

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
    answer = openai_json.decode_completion(json.dumps(document).encode())
    rename(answer, MODEL)

    assert json.loads(openai_json.encode_completion(answer)) == {**document, "model": "default"}


def test_a_chunk_has_the_name_that_the_caller_used() -> None:
    document = chunk(x=None)
    answer = chunk_message(document)
    rename(answer, MODEL)

    assert json.loads(openai_json.encode_chunk(answer)) == {**document, "model": "default"}


@pytest.mark.parametrize("wants_usage", [True, False])
def test_the_usage_chunk_is_the_callers_if_it_was_asked_for(wants_usage: bool) -> None:
    progress = Progress(wants_usage=wants_usage)

    assert progress.observe(chunk_message(chunk("a")))
    assert progress.observe(chunk_message(usage_chunk())) is wants_usage
    assert progress.usage is not None
    assert progress.usage.total_tokens == 8


def test_usage_beside_choices_does_not_withhold_them() -> None:
    progress = Progress(wants_usage=False)
    usage = usage_chunk()["usage"]

    assert progress.observe(chunk_message(chunk("a", usage=usage)))
    assert progress.usage is not None


def test_a_null_usage_is_none() -> None:
    progress = Progress(wants_usage=False)

    assert progress.observe(chunk_message(chunk("a", usage=None)))
    assert progress.observe(chunk_message({**chunk("a", usage=None), "choices": []}))
    assert progress.usage is None


def test_the_last_usage_counts() -> None:
    progress = Progress(wants_usage=True)
    progress.observe(chunk_message(usage_chunk(1, 1)))
    progress.observe(chunk_message(usage_chunk(2, 3)))

    assert progress.usage is not None
    assert progress.usage.total_tokens == 5


def test_pieces_of_content_are_counted() -> None:
    progress = Progress(wants_usage=True)
    for document in (chunk("a"), chunk("b"), chunk("c", index=1), chunk(None, "stop")):
        progress.observe(chunk_message(document))

    assert progress.counted == 3


@pytest.mark.parametrize(
    ("documents", "complete"),
    [
        ([], False),
        ([chunk("a")], False),
        ([chunk("a"), chunk(None, "stop")], True),
        ([chunk("a", "length")], True),
        ([chunk("a"), chunk("b", index=1), chunk(None, "stop")], False),
        ([chunk("a"), chunk("b", index=1), chunk(None, "stop"), chunk("c", "x", index=1)], True),
        ([chunk("a"), chunk(None, "stop", index=1)], False),
        ([chunk("a", "")], False),
        ([usage_chunk()], False),
        ([chunk("a", "stop"), usage_chunk()], True),
    ],
)
def test_a_stream_is_complete_when_each_choice_has_its_reason(
    documents: list[dict[str, Any]], complete: bool
) -> None:
    progress = Progress(wants_usage=True)
    for document in documents:
        progress.observe(chunk_message(document))

    assert progress.complete is complete
