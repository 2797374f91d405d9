"""The chunks of a stream, from bytes, without an upstream. `test_client` tests the client."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service import errors
from service.metering.progress import Progress
from service.upstream.chunks import ChunkReader, apart, together
from tests.support.samples import MODEL, record


def event(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    document = {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
BROKEN = b"data: {\n\n"


def reader(**members: Any) -> tuple[ChunkReader, Progress]:
    progress = Progress(wants_usage=False, **members)
    return ChunkReader(MODEL, progress, record()), progress


def texts(batches: Iterator[Any]) -> list[list[str]]:
    return [[each.choices[0].delta.content_text for each in chunks] for chunks in batches]


def test_chunks_apart_are_observed_one_after_the_other() -> None:
    made, progress = reader()
    chunks = apart(made.take(event("a") + event("b")))

    assert texts(iter([next(chunks)])) == [["a"]]
    assert progress.counted == 1
    assert texts(chunks) == [["b"]]
    assert progress.counted == 2


def test_chunks_together_are_those_of_a_piece() -> None:
    made, _ = reader()

    assert texts(together(made.take(event("a") + event("b") + event("c")[:20]))) == [["a", "b"]]
    assert texts(together(made.take(event("c")[20:]))) == [["c"]]
    assert texts(together(made.take(b": nothing\n\n"))) == []


@pytest.mark.parametrize("deliver", [apart, together])
def test_what_came_before_a_failure_is_delivered(deliver: Any) -> None:
    made, _ = reader()
    delivered: list[str] = []

    def take() -> None:
        for chunks in deliver(made.take(event("a") + event("b") + BROKEN)):
            delivered.extend(each.choices[0].delta.content_text for each in chunks)

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


def test_an_end_without_a_finish_reason_is_a_truncation() -> None:
    made, _ = reader()

    with pytest.raises(errors.UpstreamTruncated):
        list(apart(made.take(event("a") + DONE)))
    assert not made.is_done


def test_an_answer_beyond_its_limit_is_cut_also_where_all_of_it_comes_at_once() -> None:
    made, progress = reader(most=1)
    (chunks,) = together(made.take(event("a word of some length") * 2000 + DONE))

    assert 66 < len(chunks) < 2000
    assert chunks[-1].choices[0].finish_reason == "length"
    assert made.is_cut
    assert not made.is_done
    assert progress.complete
