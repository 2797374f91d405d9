"""The chunks of a stream, from bytes, without an upstream. `test_client` tests the client."""

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion import openai_json
from service import errors
from service.metering.progress import Progress
from service.models import Model
from service.upstream.chunks import MOST_TOGETHER, ChunkReader, apart, together
from service.upstream_dialect import Dialect
from tests.support.examples import examples
from tests.support.samples import MODEL, model, record


def event(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    document = {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
BROKEN = b"data: {\n\n"


STRICT = model(dialect=Dialect(stream_end="strict"))


def reader(of: Model = MODEL, **members: Any) -> tuple[ChunkReader, Progress]:
    progress = Progress(wants_usage=False, **members)
    return ChunkReader(of, progress, record(), max_event_bytes=10_000), progress


def test_what_was_read_is_not_kept_while_its_chunk_is_delivered() -> None:
    size = 1_000_000
    progress = Progress(wants_usage=False)
    made = ChunkReader(MODEL, progress, record(), max_event_bytes=2 * size)
    tracemalloc.start()
    try:
        chunks = made.take(event("a" * size) + event("b"))
        response = next(chunks)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(response.chunk.choices[0].delta.content_text) == size
    assert kept < size / 2


def test_of_a_large_chunk_only_what_others_share_is_kept() -> None:
    made, _ = reader()
    for size, choices in ((10, 1), (5_000, 0)):
        delivered = next(apart(made.take(event("x" * size))))
        assert [len(each.chunk.choices) for each in delivered] == [1]
        assert made._last is not None
        assert (made._last.id, len(made._last.choices)) == (delivered[0].chunk.id, choices)


def text_of(response: Any) -> str:
    text: str = response.chunk.choices[0].delta.content_text
    return text


def texts(batches: Iterator[Any]) -> list[list[str]]:
    return [[text_of(each) for each in responses] for responses in batches]


def test_chunks_apart_are_observed_one_after_the_other() -> None:
    made, progress = reader()
    chunks = apart(made.take(event("a") + event("b")))

    assert texts(iter([next(chunks)])) == [["a"]]
    assert progress.counted == 1
    assert texts(chunks) == [["b"]]
    assert progress.counted == 2


def usage(completion: int) -> bytes:
    counts = {"prompt_tokens": 1, "completion_tokens": completion, "cost": 2}
    document = {"id": "1", "choices": [], "usage": counts}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def test_the_usage_chunk_at_the_end_is_kept_for_the_receipt() -> None:
    progress = Progress(wants_usage=True)
    made = ChunkReader(MODEL, progress, record(), max_event_bytes=10_000, keeps_usage=True)
    body = usage(1) + event("a", "stop") + usage(2) + usage(3) + DONE

    delivered = [each.chunk.usage.completion_tokens or text_of(each) for each in made.take(body)]

    assert delivered == [1, "a", 2]
    assert made.is_done
    assert progress.kept is not None
    assert progress.kept.chunk.usage.completion_tokens == 3
    assert dict(progress.kept.chunk.usage.extra_json) == {
        "cost_details": '{"upstream_inference_cost":2}'
    }


def test_a_usage_chunk_that_is_made_is_kept_too() -> None:
    progress = Progress(wants_usage=True)
    made = ChunkReader(MODEL, progress, record(), max_event_bytes=10_000, keeps_usage=True)

    assert len([*made.take(event("a", "stop") + DONE)]) == 1
    assert progress.kept is not None
    assert progress.kept.chunk.usage.extra_json["estimated"] == "true"


def test_chunks_together_are_those_of_a_piece() -> None:
    made, _ = reader()

    assert texts(together(made.take(event("a") + event("b") + event("c")[:20]))) == [["a", "b"]]
    assert texts(together(made.take(event("c")[20:]))) == [["c"]]
    assert texts(together(made.take(b": nothing\n\n"))) == []


def test_of_a_large_piece_only_some_chunks_are_together() -> None:
    made, progress = reader()
    sequences = together(made.take(event("a") * (2 * MOST_TOGETHER + 1)))

    assert len(next(sequences)) == MOST_TOGETHER
    assert progress.counted == MOST_TOGETHER  # the rest is not decoded yet
    assert list(map(len, sequences)) == [MOST_TOGETHER, 1]


@pytest.mark.parametrize("deliver", [apart, together])
def test_what_came_before_a_failure_is_delivered(deliver: Any) -> None:
    made, _ = reader()
    delivered: list[str] = []

    def take() -> None:
        for chunks in deliver(made.take(event("a") + event("b") + BROKEN)):
            delivered.extend(map(text_of, chunks))

    with pytest.raises(errors.UpstreamInvalidResponse):
        take()
    assert delivered == ["a", "b"]


def test_nothing_is_delivered_before_a_failure_that_comes_first() -> None:
    made, _ = reader()

    with pytest.raises(errors.UpstreamInvalidResponse):
        next(together(made.take(BROKEN)))


def test_nothing_is_read_after_the_end() -> None:
    made, _ = reader()

    assert texts(together(made.take(event("a", "stop") + DONE + BROKEN))) == [["a"]]
    assert made.is_done
    assert not made.is_cut


def read(pieces: Iterable[bytes], made: ChunkReader) -> tuple[list[str], str]:
    """Return the texts of a whole body, and the name of its failure or of its end."""
    found: list[str] = []
    try:
        for piece in pieces:
            found += map(text_of, made.take(piece))
            if made.is_done or made.is_cut:
                return found, "done" if made.is_done else "cut"
        found += map(text_of, made.finish())
    except errors.Failure as failure:
        return found, type(failure).__name__
    return found, "done" if made.is_done else "cut"


BODIES: dict[str, tuple[bytes, list[str], str, str]] = {
    # A body, the texts of its chunks, and its end if the upstream is lenient, and if it is strict.
    "complete": (event("a") + event("b", "stop") + DONE, ["a", "b"], "done", "done"),
    "nothing": (b"", [], "UpstreamTruncated", "UpstreamTruncated"),
    "empty lines": (b"\r\n\n", [], "UpstreamTruncated", "UpstreamTruncated"),
    "a comment": (b": hi\n\n", [], "UpstreamTruncated", "UpstreamTruncated"),
    "a byte-order mark": (b"\xef\xbb\xbf" + event("a", "stop") + DONE, ["a"], "done", "done"),
    "CRLF": ((event("a", "stop") + DONE).replace(b"\n", b"\r\n"), ["a"], "done", "done"),
    "[DONE] alone": (DONE, [], "UpstreamTruncated", "UpstreamTruncated"),
    "no finish_reason": (event("a") + DONE, ["a"], "done", "UpstreamTruncated"),
    "no [DONE]": (event("a", "stop"), ["a"], "done", "UpstreamTruncated"),
    "neither": (event("a"), ["a"], "UpstreamTruncated", "UpstreamTruncated"),
    "[DONE] without its end": (event("a", "stop") + b"data: [DONE]", ["a"], "done", "done"),
    "an event without its end": (event("a", "stop")[:-2], ["a"], "done", "UpstreamTruncated"),
    "half an event": (
        event("a", "stop") + event("b")[:-3],
        ["a"],
        "UpstreamTruncated",
        "UpstreamTruncated",
    ),
    "an error without its end": (
        event("a", "stop") + b'data: {"error":{"code":429}}',
        ["a"],
        "UpstreamRateLimited",
        "UpstreamRateLimited",
    ),
    "not UTF-8": (
        event("a", "stop").replace(b'"a"', b'"\xe9"') + DONE,
        ["\ufffd"],
        "done",
        "done",
    ),
    "a broken event": (
        event("a", "stop") + BROKEN + DONE,
        ["a"],
        "UpstreamInvalidResponse",
        "UpstreamInvalidResponse",
    ),
    "JSON": (
        b'\xef\xbb\xbf\n {"error":{"code":429}}',
        [],
        "UpstreamRateLimited",
        "UpstreamRateLimited",
    ),
    "HTML": (
        b"\n<html>\n" + event("a", "stop") + DONE,
        [],
        "UpstreamInvalidResponse",
        "UpstreamInvalidResponse",
    ),
    "text": (b"no events\n\n", [], "UpstreamInvalidResponse", "UpstreamInvalidResponse"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_cut_at_any_byte_gives_the_same_chunks_and_the_same_end(name: str) -> None:
    body, wanted, lenient, strict = BODIES[name]

    for of, end in ((MODEL, lenient), (STRICT, strict)):
        for at in range(len(body) + 1):
            made, _ = reader(of)
            assert read([body[:at], body[at:]], made) == (wanted, end)
        made, _ = reader(of)
        assert read([body[at : at + 1] for at in range(len(body))], made) == (wanted, end)


@examples(100)
@given(st.sampled_from(sorted(BODIES)), st.lists(st.integers(0, 400), max_size=6))
def test_it_does_not_matter_how_a_body_is_cut(name: str, cuts: list[int]) -> None:
    body, wanted, end, _ = BODIES[name]
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    made, _ = reader()

    assert read([body[a:b] for a, b in pairwise(places)], made) == (wanted, end)


PROOF = 2 * 1 + 64 + 1
"""Pieces of this size that prove that a limit of one token is ignored; the last one here lacks its
empty line."""


def test_an_answer_beyond_its_limit_is_cut_also_by_its_last_event() -> None:
    word = event("a word of some length")
    for count, end in ((PROOF - 1, "UpstreamTruncated"), (PROOF, "cut")):
        made, progress = reader(most=1)
        found, ended = read([word * (count - 1) + word[:-2]], made)

        assert (len(found), ended) == (count + (end == "cut"), end)
        assert progress.complete is (end == "cut")


def test_a_cut_within_a_call_is_an_error_also_by_its_last_event() -> None:
    called = {"index": 0, "function": {"arguments": "a word of some length"}}
    choice = {"index": 0, "delta": {"tool_calls": [called]}}
    word = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    made, _ = reader(most=1)
    list(made.take(word * (PROOF - 1) + word[:-2]))

    with pytest.raises(errors.UpstreamInvalidResponse, match="output limit"):
        list(made.finish())


def test_a_json_text_in_place_of_events_is_bounded() -> None:
    made, _ = reader()

    assert list(made.take(b"{")) == []
    assert list(made.take(b" " * (2**16 - 1))) == []
    with pytest.raises(errors.UpstreamInvalidResponse):
        made.take(b" ")


def test_an_answer_beyond_its_limit_is_cut_also_where_all_of_it_comes_at_once() -> None:
    made, progress = reader(most=1)
    sequences = together(made.take(event("a word of some length") * 2000 + DONE))
    chunks = list(chain.from_iterable(sequences))

    assert 66 < len(chunks) < 2000
    assert chunks[-1].chunk.choices[0].finish_reason == "length"
    assert made.is_cut
    assert not made.is_done
    assert progress.complete


def test_a_chunk_that_repeats_others_is_an_error_if_its_event_says_so() -> None:
    made, _ = reader()
    same = event("a") * 3
    named = b"event: message\n" + event("a") + b"event: error\n" + event("a")

    assert read([same + named], made) == (["a"] * 4, "UpstreamError")


def test_a_chunk_that_repeats_others_follows_the_usage_that_was_kept() -> None:
    progress = Progress(wants_usage=True)
    made = ChunkReader(MODEL, progress, record(), max_event_bytes=10_000, keeps_usage=True)
    body = event("a") * 3 + usage(1) + event("a") + event("a", "stop") + DONE

    delivered = [each.chunk.usage.completion_tokens or text_of(each) for each in made.take(body)]
    assert delivered == ["a", "a", "a", 1, "a", "a"]


WORDS = st.text(max_size=30) | st.sampled_from(["", ":", "stop", "a", "é" * 20])
DELTAS = st.sampled_from(
    [
        {},
        {"role": "assistant", "refusal": None},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "x"}}]},
        {"annotations": [{"type": "url_citation"}]},
        {"vendor": "x"},
    ]
)
MEMBERS = st.sampled_from(
    [{}, {"finish_reason": "length"}, {"logprobs": None}, {"index": 1}, {"error": {"code": 1}}]
)


@examples(300)
@given(st.lists(WORDS, min_size=3, max_size=8), DELTAS, MEMBERS, st.booleans())
def test_chunks_that_repeat_others_are_delivered_and_counted_like_any(
    words: list[str], delta: dict[str, Any], members: dict[str, Any], reports: bool
) -> None:
    counts = {"prompt_tokens": 1, "completion_tokens": 3}
    documents = [
        {
            "id": "1",
            "choices": [{"index": 0, "delta": {**delta, "content": word}, **members}],
            **({"usage": counts} if reports else {}),
        }
        for word in words
    ]
    model_of = model(dialect=Dialect(finish_reasons={"length": "stop"}))
    results = []
    for learns in (True, False):
        progress = Progress(wants_usage=False, choices=2, most=5)
        made = ChunkReader(model_of, progress, record(), max_event_bytes=10_000)
        found: list[Any] = []
        try:
            for document in documents:
                # A space gives each document another form, of which nothing can be learned.
                pad = b" " * (0 if learns else len(found))
                data = b"data: " + pad + json.dumps(document).encode() + b"\n\n"
                found += (openai_json.encode_chunk(each.chunk) for each in made.take(data))
        except errors.Failure as failure:
            found.append(type(failure))
        results.append((found, progress))

    assert results[0] == results[1]
