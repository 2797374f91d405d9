import itertools
from decimal import Decimal
from typing import Any

import pytest

from chat.ask_error import AskError
from chat.events import DONE, LARGEST, chunks, event_data, finish_of, parsed, text_of


def test_events_are_the_same_however_the_bytes_are_split() -> None:
    body = ": comment\n\ndata: é\r\n\r\nevent: x\ndata:b\ndata: c\u2028\n\nid: 1\n\n".encode()

    for step in range(1, len(body) + 1):
        pieces = (body[start : start + step] for start in range(0, len(body), step))
        assert [*event_data(pieces)] == ["é", "b\nc\u2028"]


@pytest.mark.parametrize("body", [b"data: a", b"data: a\n", b"data: a\n\ndata: b\n"])
def test_an_incomplete_event_is_an_error(body: bytes) -> None:
    with pytest.raises(AskError, match="broke off"):
        list(event_data([body]))


def test_a_line_is_bounded() -> None:
    piece = b"x" * (LARGEST // 4)
    with pytest.raises(AskError, match="too large"):
        list(event_data(itertools.repeat(piece)))


def test_a_stream_ends_with_done() -> None:
    assert [*chunks(iter(['{"a": 1}', DONE, "{"]))] == [{"a": 1}]


@pytest.mark.parametrize(
    ("events", "line"),
    [
        (["{}"], "The answer broke off before its end."),
        (['{"error": {"message": "No.", "param": "n"}}', DONE], "No. (parameter n)"),
        (["{", DONE], "The server sent something other than a JSON object."),
        (["[]", DONE], "The server sent something other than a JSON object."),
    ],
)
def test_a_stream_with_another_end_is_an_error(events: list[str], line: str) -> None:
    with pytest.raises(AskError) as raised:
        list(chunks(events))
    assert raised.value.line() == line


def test_decimals_are_exact() -> None:
    assert parsed(b'{"cost": 0.1}') == {"cost": Decimal("0.1")}


@pytest.mark.parametrize(
    ("chunk", "text", "finish"),
    [
        ({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}, "a", ""),
        ({"choices": [{"delta": {"refusal": "no"}, "finish_reason": "stop"}]}, "no", "stop"),
        ({"choices": [{"delta": {"content": None}}]}, "", ""),
        ({"choices": [{"delta": None}]}, "", ""),
        ({"choices": []}, "", ""),
        ({"choices": "x"}, "", ""),
        ({}, "", ""),
    ],
)
def test_a_chunk_has_a_text_and_an_end(chunk: dict[str, Any], text: str, finish: str) -> None:
    assert (text_of(chunk), finish_of(chunk)) == (text, finish)
