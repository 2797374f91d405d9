"""Coverage-guided fuzzing of one parser, by atheris: `python -m tests.conformance.fuzz_target`.

events       the parser of event streams: any cut of the bytes gives the same events
documents    `openai_json`: the JSON of a decoded document stays the same when it is decoded again

The remaining arguments are those of libFuzzer. The program ends with a trace if an input breaks a
rule or raises an exception that is not declared.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import atheris

with atheris.instrument_imports(include=["service.upstream", "chatcompletion.openai_json"]):
    from chatcompletion import openai_json
    from service.upstream.sse import EventParser, EventTooLargeError

LARGEST: Final = 4096

_DOCUMENTS: Final[tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes]], ...]] = (
    (openai_json.decode_request, openai_json.encode_request),
    (openai_json.decode_completion, openai_json.encode_completion),
    (openai_json.decode_chunk, openai_json.encode_chunk),
    (openai_json.decode_error, openai_json.encode_error),
)


def events(data: bytes) -> None:
    """Parse an event stream whole, cut at a place that its first byte selects, and in bytes."""
    cut = data[0] if data else 0
    whole = _parsed((data,))
    assert whole == _parsed((data[:cut], data[cut:]))
    assert whole == _parsed(data[at : at + 1] for at in range(len(data)))


def _parsed(pieces: Any) -> list[tuple[bytes, bytes]] | None:
    parser = EventParser(LARGEST)
    found = []
    try:
        for piece in pieces:
            found += parser.feed(piece)
        return found + parser.finish()
    except EventTooLargeError:
        return None  # an event before it may have been returned already


def documents(data: bytes) -> None:
    """Decode a document as each kind, encode it, and do both again."""
    for decode, encode in _DOCUMENTS:
        with suppress(openai_json.DecodeError):
            try:
                again = encode(decode(data))
            except openai_json.EncodeError:
                continue
            # The order of unknown members can differ.
            assert json.loads(encode(decode(again))) == json.loads(again), again


TARGETS: Final = {"events": events, "documents": documents}

if __name__ == "__main__":
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()
