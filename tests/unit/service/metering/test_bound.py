import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Final
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.errors import InvalidRequest
from service.metering import bound as bounds
from service.metering import overhead, price
from service.metering.usage_parts import Parts
from service.models import (
    NANO,
    NO_SPECIAL_PRICES,
    SPECIAL_PRICES,
    Model,
    SpecialPrices,
    Upstream,
)
from service.simulator import completion, completion_request
from tests.support.examples import examples

REPEATABLE = examples(200)

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
SPECIAL = st.builds(
    lambda request, **prices: SpecialPrices(**prices, request=request),
    PRICES,
    **{name: st.none() | PRICES for name in SPECIAL_PRICES},
)
MODELS = st.builds(
    lambda input_price, output_price, margin, maximum, special: replace(
        MODEL,
        input_price=input_price,
        output_price=output_price,
        margin=margin,
        maximum_output_tokens=maximum,
        special=special,
    ),
    PRICES,
    PRICES,
    PRICES,
    st.integers(1, 10_000_000),
    st.just(NO_SPECIAL_PRICES) | SPECIAL,
)
TOKENS = st.integers(0, 10_000_000)
PARTS = st.builds(Parts, *[TOKENS] * 6)


def params(**members: object) -> ChatCompletionParams:
    document = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}
    return openai_json.decode_request(json.dumps(document).encode())


def parts(*items: object) -> ChatCompletionParams:
    return params(messages=[{"role": "user", "content": list(items)}])


def prompt_estimate(asked: ChatCompletionParams, model: Model) -> int:
    return bounds.bound_of(asked, model, 1).prompt_estimate


def prompt_bound(asked: ChatCompletionParams, model: Model = MODEL) -> int:
    return bounds.bound_of(asked, model, 1).prompt_tokens


def text_bound(asked: ChatCompletionParams) -> int:
    """Return the bound of the texts, without the overhead of templates."""
    around = overhead.TOKENS_PER_PROMPT + overhead.TOKENS_PER_MESSAGE * len(asked.messages)
    return prompt_bound(asked) - around


def test_the_margins_are_these() -> None:
    assert (overhead.TOKENS_PER_PROMPT, bounds.MOST_PROMPT_TOKENS) == (512, 10**9)
    assert (overhead.TOKENS_PER_MESSAGE, bounds.TOKENS_PER_TOOL) == (16, 64)


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
    assert price.cost(replace(MODEL, margin=margin), prompt, completion_tokens).amount == expected


@REPEATABLE
@given(MODELS, TOKENS, TOKENS)
def test_the_price_is_the_exact_one_rounded_up_once(model: Model, prompt: int, output: int) -> None:
    exact = Fraction(prompt * model.input_price + output * model.output_price, 10**6)
    exact = (exact + model.special.request) * (1 + Fraction(model.margin, NANO) / 100)
    assert price.cost(model, prompt, output).amount == ceil(exact)


@REPEATABLE
@given(MODELS, st.tuples(TOKENS, TOKENS), st.tuples(TOKENS, TOKENS), PARTS)
def test_a_hold_covers_the_price_of_whatever_is_within_its_bound(
    model: Model, one: tuple[int, int], other: tuple[int, int], parts: Parts
) -> None:
    bound = max(one[0], other[0]), max(one[1], other[1])
    amount, prompt = price.cost(model, *one, parts)
    assert 0 <= prompt <= amount <= price.most(model, *bound)


@REPEATABLE
@given(MODELS, TOKENS, TOKENS, PARTS)
def test_each_kind_of_token_has_its_own_price(
    model: Model, prompt: int, output: int, parts: Parts
) -> None:
    special = model.special
    named = (
        (0, parts.cached, special.cached_input),
        (0, parts.written, special.cache_write),
        (0, parts.audio, special.input_audio),
        (0, parts.image, special.input_image),
        (1, parts.reasoning, special.reasoning),
        (1, parts.spoken, special.output_audio),
    )
    left, usual = [prompt, output], (model.input_price, model.output_price)
    exact = Fraction(special.request * 10**6)
    for side, count, own in named:
        taken = min(count, left[side])
        left[side] -= taken
        # A price that is not set is the usual one, never 0.
        exact += taken * (usual[side] if own is None else own)
    exact += sum(rest * each for rest, each in zip(left, usual, strict=True))
    exact *= (1 + Fraction(model.margin, NANO) / 100) / 10**6
    assert price.cost(model, prompt, output, parts).amount == ceil(exact)


def test_the_smallest_price_is_not_rounded_to_nothing() -> None:
    cheapest = replace(MODEL, input_price=1, output_price=0)
    assert price.cost(cheapest, 1, 0).amount == 1
    assert price.cost(cheapest, 1_000_000, 0).amount == 1
    assert price.cost(cheapest, 1_000_001, 0).amount == 2


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
    body = completion_request.decode(openai_json.encode_request(asked))
    answer = completion.complete(completion_request.parse(body, tokens=100), seed=0, length=100)
    bound = bounds.bound_of(asked, MODEL, limit)
    assert answer.prompt_tokens <= bound.prompt_tokens
    assert answer.completion_tokens <= bound.completion_tokens


UNSETTLED = st.text(
    st.sampled_from("a\u0301\u0316\u0323é\u1e69\u0fb9\ufb01\ufdfa\u2126각\u1100\u1161\U0001d160😀"),
    max_size=60,
)
FORMS: Final = ("NFC", "NFKC")

PLACES: dict[str, Callable[[str], ChatCompletionParams]] = {
    "content": lambda text: params(messages=[{"role": "user", "content": text}]),
    "part": lambda text: parts({"type": "text", "text": text}),
    "refusal": lambda text: params(messages=[{"role": "assistant", "refusal": text}]),
    "reasoning": lambda text: params(messages=[{"role": "assistant", "reasoning": text}]),
    "name": lambda text: params(messages=[{"role": "user", "name": text, "content": ""}]),
    "answer of a tool": lambda text: params(messages=[{"role": "tool", "content": text}]),
    "description": lambda text: params(functions=[{"name": "f", "description": text}]),
    "schema": lambda text: params(functions=[{"name": "f", "parameters": {"const": text}}]),
    "format": lambda text: params(
        response_format={"type": "json_schema", "json_schema": {"description": text}}
    ),
    "arguments": lambda text: called(json.dumps({"x": text}, ensure_ascii=False)),
    "escaped arguments": lambda text: called(json.dumps({"x": text})),
    "input": lambda text: params(
        messages=[{"role": "assistant", "tool_calls": [{"custom": {"name": "c", "input": text}}]}]
    ),
    "unknown": lambda text: params(documents=[text]),
    "unknown, of a part": lambda text: parts({"type": "thinking", "thinking": text}),
}


def called(arguments: str) -> ChatCompletionParams:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return params(messages=[{"role": "assistant", "tool_calls": [call]}])


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@REPEATABLE
@given(text=TEXTS | UNSETTLED)
def test_each_byte_of_a_text_may_be_a_token_in_any_normal_form(
    place: Callable[[str], ChatCompletionParams], text: str
) -> None:
    longest = max(len(normalize(form, text).encode()) for form in FORMS)
    assert text_bound(place(text)) >= max(longest, len(text.encode()))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("word " * 100, 500),
        ("é" * 100, 200),
        ("漢字" * 100, 600),
        ("각" * 100, 300),  # a syllable is no longer, even beside what is not normalized
        ("각\ufb01" * 100, 600),
        ("\u0fb9" * 100, 600),
        ("\ufdfa" * 100, 3300),
    ],
)
def test_a_text_is_bounded_by_no_more_than_its_longest_form(text: str, size: int) -> None:
    nothing = text_bound(params(messages=[{"role": "user", "content": ""}]))
    added = text_bound(params(messages=[{"role": "user", "content": text}])) - nothing
    assert size <= added <= size + 2  # the length of the length


def test_a_template_may_add_to_the_prompt_and_to_each_message() -> None:
    found = [
        prompt_bound(params(messages=[{"role": "user", "content": ""}] * count))
        for count in range(1, 50)
    ]
    for count, bound in enumerate(found, 1):
        assert bound >= overhead.TOKENS_PER_PROMPT + count * overhead.TOKENS_PER_MESSAGE


@pytest.mark.parametrize("output_limit", [1, 100, 8192])
@pytest.mark.parametrize(("members", "choices"), [({}, 1), ({"n": 1}, 1), ({"n": 128}, 128)])
def test_each_choice_may_reach_the_limit(
    output_limit: int, members: dict[str, object], choices: int
) -> None:
    bound = bounds.bound_of(params(**members), MODEL, output_limit)
    assert bound.completion_tokens == output_limit * choices
    assert bound.tokens == bound.prompt_tokens + bound.completion_tokens


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.sampled_from([0.1, 1e15, -1e-5, 2.5])
    | st.text(st.sampled_from("ab \x01\n\"\\\\/<>&'\x7fé漢😀\u2028"), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.sampled_from('a"é<'), max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def as_templates_write(value: object) -> list[str]:
    """Return JSON as chat templates write it, with every option of Python and of Jinja."""
    texts = [
        json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)
        for indent in (None, 4)
        for ensure_ascii in (False, True)
    ]
    for character in "<>&'":
        texts += [text.replace(character, f"\\u{ord(character):04x}") for text in texts]
    return texts


WRITTEN: dict[str, Callable[[object], ChatCompletionParams]] = {
    "tool": lambda value: params(
        tools=[{"type": "function", "function": {"name": "f", "parameters": value}}]
    ),
    "function": lambda value: params(functions=[{"name": "f", "parameters": value}]),
    "vendor's tool": lambda value: params(tools=[{"type": "mcp", "x": value}]),
    "format": lambda value: params(
        response_format={"type": "json_schema", "json_schema": {"name": "f", "schema": value}}
    ),
    "vendor's format": lambda value: params(response_format={"type": "grammar", "x": value}),
    "unknown": lambda value: params(x=value),
    "unknown, of a message": lambda value: params(
        messages=[{"role": "user", "content": "", "x": value}]
    ),
    "unknown, of a part": lambda value: parts({"type": "text", "text": "", "x": value}),
}


@pytest.mark.parametrize("place", WRITTEN.values(), ids=WRITTEN)
@REPEATABLE
@given(value=VALUES)
def test_a_template_may_write_json_at_its_longest(
    place: Callable[[object], ChatCompletionParams], value: object
) -> None:
    longest = max(len(text.encode()) for text in as_templates_write(value))
    assert text_bound(place(value)) >= longest


@REPEATABLE
@given(VALUES, st.booleans())
def test_what_a_tool_was_called_with_may_be_written_as_a_string_or_as_json(
    value: object, ensure_ascii: bool
) -> None:
    arguments = json.dumps(value, ensure_ascii=ensure_ascii)
    bound = text_bound(called(arguments))
    for written in (arguments, value):
        assert bound >= max(len(text.encode()) for text in as_templates_write(written))


@REPEATABLE
@given(VALUES)
def test_what_a_tool_answered_may_be_written_as_a_string(value: object) -> None:
    content = json.dumps(value)
    for role in ("tool", "function", "ipython"):
        answered = params(messages=[{"role": role, "content": content, "name": "f"}])
        assert text_bound(answered) >= max(map(len, as_templates_write(content)))


def test_json_is_bounded_where_it_is_wide_far_inside() -> None:
    inside: object = [[] for _ in range(1000)]
    for _ in range(100):
        inside = [inside]
    for place in WRITTEN.values():
        assert text_bound(place(inside)) >= len(json.dumps(inside, indent=4)) > 400_000


@pytest.mark.parametrize(
    "arguments", ["[" * 10_000, '"' * 1001, "]" * 10_000, '{"a":' * 2000, "\\u" * 1000, "\\" * 1001]
)
def test_arguments_may_be_anything(arguments: str) -> None:
    assert text_bound(called(arguments)) >= len(json.dumps(arguments))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "\ud83d", "content": "x"},
        {"role": "user", "content": "\ud83d"},
        {"role": "user", "content": [{"type": "\ud83d", "text": "\ud83d"}]},
        {"role": "user", "content": [{"type": "video_url", "video_url": "\ud83d", "\ud83d": 1}]},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": "\ud83d"}}]},
        {"role": "tool", "content": [{"type": "\ud83d", "image_url": {"url": "\ud83d"}}]},
    ],
)
def test_half_a_surrogate_pair_is_bounded_as_it_is_spelt(message: dict[str, object]) -> None:
    assert text_bound(params(messages=[message])) >= len("\\ud83d")


def test_no_prompt_has_more_tokens_than_the_store_can_count() -> None:
    asked = called("[" * 300_000 + "]" * 300_000)
    assert prompt_bound(asked) == bounds.MOST_PROMPT_TOKENS


def test_an_unremarkable_tool_is_held_with_some_times_its_bytes() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the web for pages about a topic and return the best of them.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string", "description": "What to look for"}},
                "required": ["query"],
            },
        },
    }
    compact = len(json.dumps(tool, separators=(",", ":")))
    held = prompt_bound(params(tools=[tool])) - prompt_bound(params())
    assert 2 * compact < held < 4 * compact


@pytest.mark.parametrize("count", [1, 128])
def test_a_template_may_add_to_each_tool(count: int) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}] * count
    added = prompt_bound(params(tools=tools)) - prompt_bound(params())
    assert added >= count * (bounds.TOKENS_PER_TOOL + len("functionf"))


def test_a_template_may_add_to_each_call_that_is_sent_back() -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": ""}}
    asked = params(
        messages=[
            {"role": "assistant", "tool_calls": [call] * 100},
            {"role": "assistant", "function_call": {"name": "f", "arguments": ""}},
        ]
    )
    assert prompt_bound(asked) >= 101 * bounds.TOKENS_PER_TOOL


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
    "part",
    [
        {"type": "text", "text": "no"},
        {"type": "refusal", "refusal": "no"},
        {"type": "thinking", "thinking": "no", "signature": "s"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "no"}]},
        {"type": "reasoning", "reasoning": "no"},
    ],
)
def test_texts_are_no_attachments(part: dict[str, object]) -> None:
    assert prompt_bound(parts(part)) < MODEL.attachment_tokens
    assert prompt_estimate(parts(part), MODEL) < MODEL.attachment_estimate


def test_what_the_upstream_says_and_fetches_by_itself_is_an_attachment() -> None:
    without = prompt_bound(params())
    spoken = params(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}])
    assert prompt_bound(spoken) >= MODEL.attachment_tokens
    searching = params(web_search_options={})
    assert prompt_bound(searching) >= without + MODEL.attachment_tokens
    with_a_tool_of_its_own = params(tools=[{"type": "web_search"}])
    assert prompt_bound(with_a_tool_of_its_own) >= without + MODEL.attachment_tokens


DATA = "A" * 1_000_000
PICTURE: dict[str, object] = {
    "type": "image_url",
    "image_url": {"url": f"data:image/png;base64,{DATA}"},
}
SOUNDS: dict[str, dict[str, object]] = {
    "sound": {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
    "a vendor's sound": {"type": "audio_url", "audio_url": {"url": DATA}},
    "film": {"type": "video_url", "video_url": {"url": DATA}},
    "a vendor's film": {"type": "video", "video": DATA},
}


def said_by(role: str, part: dict[str, object]) -> ChatCompletionParams:
    return params(messages=[{"role": role, "content": [part]}])


@pytest.mark.parametrize("role", ["user", "tool"])
def test_the_bytes_of_a_picture_are_not_tokens(role: str) -> None:
    bound = prompt_bound(said_by(role, PICTURE))
    assert MODEL.attachment_tokens < bound < MODEL.attachment_tokens + 1000


@pytest.mark.parametrize("role", ["user", "tool"])
@pytest.mark.parametrize("part", SOUNDS.values(), ids=SOUNDS)
def test_sounds_and_films_are_as_many_tokens_as_their_length_allows(
    part: dict[str, object], role: str
) -> None:
    heard = len(DATA) // 64
    for most, tokens in ((1000, heard), (heard - 100, heard), (2 * heard, 2 * heard)):
        bound = prompt_bound(said_by(role, part), replace(MODEL, attachment_tokens=most))
        assert tokens <= bound < tokens + 1200


def test_a_sound_that_is_sent_back_is_as_many_tokens_as_its_length_allows() -> None:
    asked = params(messages=[{"role": "assistant", "audio": {"id": "a", "data": DATA}}])
    assert len(DATA) // 64 <= prompt_bound(asked) < len(DATA) // 64 + 1000


def test_the_bytes_of_a_file_may_be_tokens() -> None:
    asked = parts({"type": "file", "file": {"file_data": "A" * 100_000}})
    assert prompt_bound(asked) >= 100_000 + MODEL.attachment_tokens


PREDICTIONS = {
    "text": ("word " * 100, 500),
    "parts": ([{"type": "text", "text": "word " * 50}] * 2, 500),
    "not normalized": ("\u0fb9" * 100, 600),
}


@pytest.mark.parametrize(("content", "size"), PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("n", [1, 3])
def test_a_prediction_may_be_rejected_and_is_paid_for_then(
    content: object, size: int, n: int
) -> None:
    bound = bounds.bound_of(
        params(n=n, prediction={"type": "content", "content": content}), MODEL, 10
    )
    assert bound.completion_tokens == 10 * n + bound.predicted_tokens
    assert n * size <= bound.predicted_tokens <= n * (size + 50)


@pytest.mark.parametrize("nulls", [{}, {"max_tokens": None}, {"max_completion_tokens": None}])
def test_the_output_limit_is_no_part_of_the_prompt(nulls: dict[str, object]) -> None:
    without = prompt_bound(params())
    for name in ("max_tokens", "max_completion_tokens"):
        for limit in (1, 1000, 10**6):
            assert prompt_bound(params(**{**nulls, name: limit})) == without


def test_members_that_are_unknown_are_bounded_by_their_bytes() -> None:
    text = "x" * 10_000
    assert prompt_bound(params(documents=[text])) >= 10_000
    assert prompt_bound(params(messages=[{"role": "user", "content": "", "notes": text}])) >= 10_000


# ------------------------------------------------------------------------------------ estimate


def test_an_estimate_is_within_the_bound_and_about_a_fourth_of_the_text() -> None:
    asked = params(messages=[{"role": "user", "content": "word " * 1000}])
    assert 1250 <= prompt_estimate(asked, MODEL) <= 1300


@pytest.mark.parametrize("part", MEDIA.values(), ids=MEDIA)
def test_an_estimate_is_never_above_the_bound(part: dict[str, object]) -> None:
    assert 0 < prompt_estimate(parts(part), MODEL) <= prompt_bound(parts(part))


@pytest.mark.parametrize("part", [*MEDIA.values(), PICTURE, *SOUNDS.values()])
@pytest.mark.parametrize("each", [1, 256, 1000])
def test_an_attachment_is_estimated_by_the_model_and_not_by_its_bytes(
    part: dict[str, object], each: int
) -> None:
    model = replace(MODEL, attachment_estimate=each)
    text = {"type": "text", "text": "is it a cat"}
    without = prompt_estimate(parts(text), model)
    estimate = prompt_estimate(parts(text, *[part] * 5), model)
    assert without + 5 * each <= estimate <= without + 5 * each + 200


def test_a_file_is_estimated_like_a_picture() -> None:
    asked = parts({"type": "file", "file": {"file_data": DATA}})
    assert 256 <= prompt_estimate(asked, MODEL) < 300


# ----------------------------------------------------------------------------- largest output


@REPEATABLE
@given(MODELS, st.integers(0, 100_000), st.integers(1, 128), st.data())
def test_the_largest_output_fits_and_one_more_does_not(
    model: Model, prompt: int, n: int, data: st.DataObject
) -> None:
    maximum, predicted = model.maximum_output_tokens, data.draw(st.integers(0, 1000))
    most = price.most(model, prompt, maximum * n + predicted)
    credit = data.draw(st.integers(0, most + 1))
    bound = bounds.Bound(prompt_tokens=prompt, completion_tokens=0, predicted_tokens=predicted)
    largest = bounds.largest_output(model, bound, n, credit)
    assert 0 <= largest <= maximum
    if largest > 0:
        assert price.most(model, prompt, largest * n + predicted) <= credit
    if largest < maximum:
        assert price.most(model, prompt, (largest + 1) * n + predicted) > credit


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"max_tokens": 8192},
        {"max_completion_tokens": 8192},
        {"max_completion_tokens": None},
        {"prediction": {"type": "content", "content": "word " * 20}},
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_a_request_with_the_largest_output_is_covered(members: dict[str, object], n: int) -> None:
    credit = 12_345_678
    refused = bounds.bound_of(params(n=n, **members), MODEL, 8192)
    assert price.most(MODEL, refused.prompt_tokens, refused.completion_tokens) > credit
    largest = bounds.largest_output(MODEL, refused, n, credit)
    assert largest > 0
    members = {name: value for name, value in members.items() if value != 8192}
    bound = bounds.bound_of(params(n=n, **members, max_tokens=largest), MODEL, largest)
    assert price.most(MODEL, bound.prompt_tokens, bound.completion_tokens) <= credit


def test_where_not_even_the_prompt_is_covered_there_is_none() -> None:
    prompt = bounds.Bound(prompt_tokens=1_000, completion_tokens=0)
    assert bounds.largest_output(MODEL, prompt, 1, 2_999_999) == 0
    assert bounds.largest_output(MODEL, prompt, 1, 0) == 0
    assert (
        bounds.largest_output(replace(MODEL, input_price=0, output_price=0), prompt, 1, 0) == 8192
    )


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
    members: dict[str, object], limit: int
) -> None:
    assert bounds.output_limit(params(**members), MODEL) == limit


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("asked", [8193, 2**62])
def test_more_than_the_models_maximum_is_refused(name: str, asked: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bounds.output_limit(params(**{name: asked}), MODEL)

    assert refused.value.message == (
        f"Invalid '{name}': the model '{MODEL.name}' supports at most 8192 completion tokens, "
        f"but got {asked}."
    )
    assert [(v.param, v.code) for v in refused.value.violations] == [(name, "number_out_of_range")]
