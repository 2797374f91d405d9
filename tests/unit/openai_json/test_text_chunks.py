"""Chunks that differ only in their text are read and written as the functions for any chunk do."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion.openai_json import DecodeError, TextChunks, decode_chunk, encode_chunk
from tests.support.examples import examples
from tests.support.golden_responses import CHUNKS

BEFORE = '{"id":"1","choices":[{"index":0,"delta":{"content":'
AFTER = '},"finish_reason":null}],"usage":null}'


def around(text: str) -> bytes:
    """Return a chunk with a JSON text as its content."""
    return f"{BEFORE}{text}{AFTER}".encode()


def read(documents: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Return chunks as they are read and written, and how many were repetitions."""
    found, repetitions, texts = [], 0, TextChunks()
    for document in documents:
        repetition = texts.repetition(document)
        if repetition is not None:
            repetitions += 1
            assert repetition.chunk == decode_chunk(document)
            found.append(repetition.encode())
            continue
        chunk = decode_chunk(document)
        is_pattern = texts.learn(document, chunk)
        found.append(encode_chunk(chunk))
        if is_pattern:
            texts.repeat(chunk)
    return found, repetitions


def plainly(documents: Iterable[bytes]) -> list[bytes]:
    return [encode_chunk(decode_chunk(document)) for document in documents]


def test_from_the_third_chunk_on_they_are_repetitions() -> None:
    documents = [around(json.dumps(text)) for text in ("a", "b", "c", '"\\', "é\n", "")]

    assert read(documents) == (plainly(documents), 4)


@pytest.mark.parametrize(
    "text",
    [
        '"a","role":"x"',  # more than the text
        '"a"},"other":{"content":"b"',
        '"\\ud83d"',  # half of a pair, which no field can carry
        "null",
        '["a"]',
        "7",
        '{"content":"a"}',
    ],
)
def test_any_other_content_is_no_repetition(text: str) -> None:
    documents = [around('"a"'), around('"b"'), around(text), around('"c"')]

    assert read(documents) == (plainly(documents), 1)


@pytest.mark.parametrize("text", [b'"a', b"a", b'"\xff"', b'"\n"', b"", b'"a" "b"'])
def test_what_is_no_json_is_no_repetition(text: bytes) -> None:
    texts = TextChunks()
    for document in (around('"a"'), around('"b"')):
        assert texts.repetition(document) is None
        if texts.learn(document, chunk := decode_chunk(document)):
            texts.repeat(chunk)
    document = BEFORE.encode() + text + AFTER.encode()

    assert texts.repetition(around('"c"')) is not None
    assert texts.repetition(document) is None
    with pytest.raises(DecodeError):
        decode_chunk(document)


@pytest.mark.parametrize(
    "documents",
    [
        # The last of duplicates is the content.
        [f'{BEFORE}"{text}","content":"x"{AFTER}' for text in "abc"],
        [f'{BEFORE}"{text}","\\u0063ontent":"{text}"{AFTER}' for text in "abc"],
        # The text is somewhere else, or in another place, too.
        [f'{{"note":{{"content":"{text}"}},"choices":[]}}' for text in "abc"],
        [f'{{"id":"{text}",{BEFORE[10:]}"{text}"{AFTER}' for text in "abc"],
        [f'{{"{text}":1,{BEFORE[10:]}"{text}"{AFTER}' for text in "abc"],
        [
            f'{BEFORE}"{first}","\\u0063ontent":"\\u0061"{AFTER}'  # the same text twice
            for first in ("a", "a", "z")
        ],
        # Within a string, or as a name.
        [f'{{"x":"\\"content\\":{BEFORE[1:]}"{text}"{AFTER}"' + "}" for text in "abc"],
        [
            f'{{"choices":[{{"delta":{{"{text}":"content","content":"{text}"}}}}]}}'
            for text in "abc"
        ],
        # Other letters of the same name.
        [f'{{"choices":[{{"delta":{{"\\u0063ontent":"{text}"}}}}]}}' for text in "abc"],
        # Two choices, of which one is always the same.
        [
            f'{{"choices":[{{"index":1,"delta":{{"content":"x"}}}},'
            f'{{"index":0,"delta":{{"content":"{text}"}}}}]}}'
            for text in "abc"
        ],
    ],
)
def test_without_a_pattern_all_are_read_as_any_chunk(documents: list[str]) -> None:
    odd = [document.encode() for document in documents if _is_json(document)]

    assert read(odd) == (plainly(odd), 0)


def _is_json(document: str) -> bool:
    try:
        json.loads(document)
    except ValueError:
        return False
    return True


def test_punctuation_as_a_text_is_not_taken_for_structure() -> None:
    documents = [around(json.dumps(text)) for text in (":", ",", "content", "?", "??", ":", ",")]

    assert read(documents)[0] == plainly(documents)


def test_a_new_pattern_takes_the_place_of_the_old_one() -> None:
    first = [around(json.dumps(text)) for text in "abc"]
    second = [document.replace(b'"id":"1"', b'"id":"?"') for document in first]
    documents = [*first, *second, *first]

    assert read(documents) == (plainly(documents), 3)


def test_a_stream_without_a_pattern_soon_costs_no_more_attempts() -> None:
    documents = [
        around(json.dumps(text)).replace(b'"id":"1"', b'"id":"%d"' % number)
        for number, text in enumerate("abcdefgh")
    ]
    ready = [around('"a"'), around('"b"'), around('"c"')]

    assert read([*documents[:6], *ready]) == (plainly([*documents[:6], *ready]), 1)
    assert read([*documents, *ready]) == (plainly([*documents, *ready]), 0)


def test_a_large_document_neither_is_a_pattern_nor_follows_one() -> None:
    small, large = ([around(json.dumps(letter * size)) for letter in "abc"] for size in (1, 5000))

    assert read(large) == (plainly(large), 0)
    assert read([*small, *large]) == (plainly([*small, *large]), 1)


TEXTS = st.text(max_size=20) | st.sampled_from([":", ",", '"', "\\", "content", "1", "?", "}]"])


@examples(300)
@given(st.sampled_from(CHUNKS), st.lists(TEXTS, min_size=3, max_size=6), st.booleans())
def test_golden_chunks_with_other_texts_are_read_and_written_alike(
    golden: Any, contents: list[str], ascii_only: bool
) -> None:
    document = json.loads(golden.json)
    choices = [each for each in document.get("choices") or () if isinstance(each, dict)]
    if choices and isinstance(choices[0].get("delta"), dict):
        documents = []
        for content in contents:
            choices[0]["delta"]["content"] = content
            documents.append(json.dumps(document, ensure_ascii=ascii_only).encode())
        assert read(documents)[0] == plainly(documents)
