import json
from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.accounts import money
from service.models import NANO, Model, Upstream
from service.simulator import completion, request

REPEATABLE = settings(max_examples=200, derandomize=True, deadline=None)

MODEL = Model(
    name="m",
    upstream=Upstream(name="u", base_url="", api_key=""),
    upstream_model="m",
    default_output_tokens=100,
    maximum_output_tokens=8192,
    output_limit="max_tokens",
    input_price=3 * NANO,
    output_price=15 * NANO,
    margin=0,
    attachment_tokens=1000,
    owned_by="o",
    created=0,
)

PRICES = st.integers(0, 1_000_000 * NANO) | st.just(0)
MODELS = st.builds(
    lambda input_price, output_price, margin, maximum: replace(
        MODEL,
        input_price=input_price,
        output_price=output_price,
        margin=margin,
        maximum_output_tokens=maximum,
    ),
    PRICES,
    PRICES,
    PRICES,
    st.integers(1, 10_000_000),
)
TOKENS = st.integers(0, 10_000_000)


def params(**members: object) -> ChatCompletionParams:
    document = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}
    return openai_json.decode_request(json.dumps(document).encode())


def parts(*items: object) -> ChatCompletionParams:
    return params(messages=[{"role": "user", "content": list(items)}])


def prompt_bound(asked: ChatCompletionParams) -> int:
    return money.bound(asked, MODEL, 1).prompt_tokens


# --------------------------------------------------------------------------------------- price


@pytest.mark.parametrize(
    ("prompt", "completion_tokens", "margin", "expected"),
    [
        (0, 0, 0, 0),
        (1, 0, 0, 3_000),
        (0, 1, 0, 15_000),
        (1_000_000, 1_000_000, 0, 18 * NANO),
        (1, 1, 20 * NANO, 21_600),
        (1, 0, 1, 3_001),  # a nano-percent more, rounded up
    ],
)
def test_price(prompt: int, completion_tokens: int, margin: int, expected: int) -> None:
    assert money.price(replace(MODEL, margin=margin), prompt, completion_tokens) == expected


@REPEATABLE
@given(MODELS, TOKENS, TOKENS)
def test_the_price_is_the_exact_one_rounded_up_once(model: Model, prompt: int, output: int) -> None:
    exact = Fraction(prompt * model.input_price + output * model.output_price, 10**6)
    exact *= 1 + Fraction(model.margin, NANO) / 100
    assert money.price(model, prompt, output) == ceil(exact)


@REPEATABLE
@given(MODELS, st.tuples(TOKENS, TOKENS), st.tuples(TOKENS, TOKENS))
def test_a_hold_covers_the_price_of_whatever_is_within_its_bound(
    model: Model, one: tuple[int, int], other: tuple[int, int]
) -> None:
    bound = max(one[0], other[0]), max(one[1], other[1])
    assert 0 <= money.price(model, *one) <= money.price(model, *bound)


def test_the_smallest_price_is_not_rounded_to_nothing() -> None:
    cheapest = replace(MODEL, input_price=1, output_price=0)
    assert money.price(cheapest, 1, 0) == 1
    assert money.price(cheapest, 1_000_000, 0) == 1
    assert money.price(cheapest, 1_000_001, 0) == 2


# --------------------------------------------------------------------------------------- bound

TEXTS = st.text(max_size=200) | st.sampled_from(["a" * 5000, "😀" * 300, "\x00" * 50, ",;" * 400])
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS}),
        st.fixed_dictionaries(
            {
                "role": st.just("user"),
                "content": st.lists(
                    st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}),
                    min_size=1,
                    max_size=4,
                ),
            }
        ),
        st.fixed_dictionaries(
            {
                "role": st.just("assistant"),
                "tool_calls": st.lists(
                    st.fixed_dictionaries(
                        {
                            "id": st.just("c"),
                            "type": st.just("function"),
                            "function": st.fixed_dictionaries({"name": TEXTS, "arguments": TEXTS}),
                        }
                    ),
                    min_size=1,
                    max_size=3,
                ),
            }
        ),
    ),
    min_size=1,
    max_size=5,
)


@REPEATABLE
@given(MESSAGES, st.integers(1, 64), st.integers(1, 5))
def test_the_simulator_uses_no_more_than_the_bound(
    messages: list[dict[str, object]], limit: int, n: int
) -> None:
    asked = params(messages=messages, n=n, max_tokens=limit)
    body = request.decode(openai_json.encode_request(asked))
    answer = completion.complete(request.parse(body, tokens=100), seed=0, length=100)
    bound = money.bound(asked, MODEL, limit)
    assert answer.prompt_tokens <= bound.prompt_tokens
    assert answer.completion_tokens <= bound.completion_tokens


@REPEATABLE
@given(TEXTS)
def test_each_byte_of_a_text_may_be_a_token(text: str) -> None:
    assert prompt_bound(params(messages=[{"role": "user", "content": text}])) >= len(text.encode())


def test_a_template_may_add_to_the_prompt_and_to_each_message() -> None:
    bounds = [
        prompt_bound(params(messages=[{"role": "user", "content": ""}] * count))
        for count in range(1, 50)
    ]
    for count, bound in enumerate(bounds, 1):
        assert bound >= money.TOKENS_PER_PROMPT + count * money.TOKENS_PER_MESSAGE


@pytest.mark.parametrize("output_limit", [1, 100, 8192])
@pytest.mark.parametrize(("members", "choices"), [({}, 1), ({"n": 1}, 1), ({"n": 128}, 128)])
def test_each_choice_may_reach_the_limit(
    output_limit: int, members: dict[str, object], choices: int
) -> None:
    bound = money.bound(params(**members), MODEL, output_limit)
    assert bound.completion_tokens == output_limit * choices
    assert bound.tokens == bound.prompt_tokens + bound.completion_tokens


SCHEMA = {"type": "object", "properties": {"x": {"enum": list(range(10)) * 50}}}


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]},
        {"functions": [{"name": "f", "parameters": SCHEMA}]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "f", "schema": SCHEMA},
            }
        },
    ],
)
def test_a_schema_may_be_indented(members: dict[str, object]) -> None:
    compact = len(json.dumps(SCHEMA, separators=(",", ":")))
    assert prompt_bound(params(**members)) - prompt_bound(params()) >= 2 * compact


@pytest.mark.parametrize("count", [1, 128])
def test_a_template_may_add_to_each_tool(count: int) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}] * count
    added = prompt_bound(params(tools=tools)) - prompt_bound(params())
    assert added >= count * (money.TOKENS_PER_TOOL + len("functionf"))


def test_a_template_may_add_to_each_call_that_is_sent_back() -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": ""}}
    asked = params(
        messages=[
            {"role": "assistant", "tool_calls": [call] * 100},
            {"role": "assistant", "function_call": {"name": "f", "arguments": ""}},
        ]
    )
    assert prompt_bound(asked) >= 101 * money.TOKENS_PER_TOOL


MEDIA = {
    "picture": {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
    "sound": {"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}},
    "file": {"type": "file", "file": {"file_id": "file-1"}},
    "a vendor's": {"type": "video_url", "video_url": {"url": "https://example.com/film"}},
    "without a type": {"image_url": {"url": "https://example.com/a.png"}},
    "called a text": {"type": "text", "text": "", "image_url": {"url": "https://example.com/a"}},
    "of no type": {"video": "https://example.com/film"},
}


@pytest.mark.parametrize("part", MEDIA.values(), ids=MEDIA)
def test_each_attachment_is_bounded_by_the_model(part: dict[str, object]) -> None:
    text = {"type": "text", "text": "what is this?"}
    without = prompt_bound(parts(text))
    assert prompt_bound(parts(text, part)) >= without + MODEL.attachment_tokens
    assert prompt_bound(parts(text, part, part)) >= without + 2 * MODEL.attachment_tokens


@pytest.mark.parametrize(
    "part", [{"type": "text", "text": "no"}, {"type": "refusal", "refusal": "no"}]
)
def test_texts_are_no_attachments(part: dict[str, object]) -> None:
    assert prompt_bound(parts(part)) < MODEL.attachment_tokens


def test_what_the_upstream_says_and_fetches_by_itself_is_an_attachment() -> None:
    without = prompt_bound(params())
    spoken = params(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}])
    assert prompt_bound(spoken) >= MODEL.attachment_tokens
    searching = params(web_search_options={})
    assert prompt_bound(searching) >= without + MODEL.attachment_tokens
    with_a_tool_of_its_own = params(tools=[{"type": "web_search"}])
    assert prompt_bound(with_a_tool_of_its_own) >= without + MODEL.attachment_tokens


def test_the_bytes_of_pictures_and_sounds_are_not_tokens() -> None:
    data = "A" * 1_000_000
    for part in (
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ):
        assert prompt_bound(parts(part)) < MODEL.attachment_tokens + 1000


def test_the_bytes_of_a_file_may_be_tokens() -> None:
    asked = parts({"type": "file", "file": {"file_data": "A" * 100_000}})
    assert prompt_bound(asked) >= 100_000 + MODEL.attachment_tokens


def test_members_that_are_unknown_are_bounded_by_their_bytes() -> None:
    text = "x" * 10_000
    assert prompt_bound(params(documents=[text])) >= 10_000
    assert prompt_bound(params(messages=[{"role": "user", "content": "", "notes": text}])) >= 10_000


# ------------------------------------------------------------------------------------ estimate


def test_an_estimate_is_within_the_bound_and_about_a_fourth_of_the_text() -> None:
    asked = params(messages=[{"role": "user", "content": "word " * 1000}])
    assert 1250 <= money.estimate(asked) <= 1300


@pytest.mark.parametrize("part", MEDIA.values(), ids=MEDIA)
def test_an_estimate_is_never_above_the_bound(part: dict[str, object]) -> None:
    assert 0 < money.estimate(parts(part)) <= prompt_bound(parts(part))


def test_nothing_is_estimated_for_the_bytes_of_attachments() -> None:
    data = "A" * 1_000_000
    asked = parts(
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "file", "file": {"file_data": data}},
    )
    assert money.estimate(asked) < 100


# ----------------------------------------------------------------------------- largest output


@REPEATABLE
@given(MODELS, st.integers(0, 100_000), st.integers(1, 128), st.data())
def test_the_largest_output_fits_and_one_more_does_not(
    model: Model, prompt: int, n: int, data: st.DataObject
) -> None:
    maximum = model.maximum_output_tokens
    most = money.price(model, prompt, maximum * n)
    credit = data.draw(st.integers(0, most + 1))
    largest = money.largest_output(model, prompt, n, credit)
    assert 0 <= largest <= maximum
    if largest > 0:
        assert money.price(model, prompt, largest * n) <= credit
    if largest < maximum:
        assert money.price(model, prompt, (largest + 1) * n) > credit


def test_a_request_with_the_largest_output_is_covered() -> None:
    credit = 12_345_678
    asked = params(n=3)
    refused = money.bound(asked, MODEL, 8192)
    assert money.price(MODEL, refused.prompt_tokens, refused.completion_tokens) > credit
    largest = money.largest_output(MODEL, refused.prompt_tokens, 3, credit)
    bound = money.bound(asked, MODEL, largest)
    assert money.price(MODEL, bound.prompt_tokens, bound.completion_tokens) <= credit


def test_where_not_even_the_prompt_is_covered_there_is_none() -> None:
    assert money.largest_output(MODEL, 1_000, 1, 2_999_999) == 0
    assert money.largest_output(MODEL, 1_000, 1, 0) == 0
    assert money.largest_output(replace(MODEL, input_price=0, output_price=0), 1_000, 1, 0) == 8192
