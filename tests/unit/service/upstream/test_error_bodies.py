import json
import time
from typing import Any

import pytest

from service.upstream.error_bodies import ErrorBody, read


def said(document: Any) -> ErrorBody:
    found = read(json.dumps(document).encode())
    assert found is not None
    return found


INNER = {"message": "No.", "type": "a_type", "code": "a_code"}

# shape: a body, its names and its texts
SHAPES: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "OpenAI": ({"error": INNER}, ("a_code", "a_type"), ("No.",)),
    "Anthropic": (
        {"type": "error", "error": {"type": "a_type", "message": "No."}, "request_id": "r"},
        ("error", "a_type"),
        ("No.",),
    ),
    "a list of one": ([{"error": INNER}], ("a_code", "a_type"), ("No.",)),
    "bare": ({"object": "error", **INNER}, ("a_code", "a_type"), ("No.",)),
    "text": ({"error": "No.", "code": "a code"}, ("a code", "No."), ("No.",)),
    "a word as text": ({"error": "a_code"}, ("a_code",), ("a_code",)),
    "TGI": ({"error": "No.", "error_type": "a_type"}, ("No.", "a_type"), ("No.",)),
    "a detail": ({"detail": "No."}, (), ("No.",)),
    "a detail that is an object": (
        {"detail": {"code": "a_code", "message": "No."}},
        ("a_code",),
        ("No.",),
    ),
    "errors": (
        {"success": False, "errors": [{"code": 7000, "message": "No."}], "messages": []},
        ("7000",),
        ("No.",),
    ),
    "Google": (
        {
            "error": {
                "code": 400,
                "message": "No.",
                "status": "A_STATUS",
                "details": [
                    {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "A_REASON"},
                    {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "message": "Nein"},
                ],
            }
        },
        ("400", "A_STATUS", "A_REASON"),
        ("No.", "Nein"),
    ),
    "Azure": (
        {"error": {"code": "a_code", "message": "No.", "innererror": {"code": "inner"}}},
        ("a_code", "inner"),
        ("No.",),
    ),
    "MiniMax": (
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "No."}},
        ("1008",),
        ("No.",),
    ),
    "an error within an error": (
        {"error": {"error": {"code": 402, "message": "No."}, "code": 402}},
        ("402", "402"),
        ("No.",),
    ),
    "a text": ("No.", (), ("No.",)),
    "half of a pair": (
        {"error": {"code": "a_code", "message": "\ud83d"}},
        ("a_code",),
        ("\ud83d",),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_names_and_texts_are_found_in_every_shape(shape: str) -> None:
    document, names, texts = SHAPES[shape]
    found = said(document)

    assert (found.names, found.texts) == (names, texts)


@pytest.mark.parametrize("shape", ["OpenAI", "Anthropic", "bare", "Google", "Azure"])
def test_the_error_object_is_the_one_that_is_passed_on(shape: str) -> None:
    error = said(SHAPES[shape][0]).error

    assert error is not None
    assert error.message == "No."


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"the model has no vision support\n", "the model has no vision support"),
        (b" two\nlines ", "two\nlines"),
        (b"<html>Bad</html>", None),
        (b"{half of it", None),
        (b"\x00\x01", None),
        (b"x" * 2049, None),
        (b"", None),
    ],
)
def test_a_short_text_is_a_reason_where_it_may_be_one(body: bytes, text: str | None) -> None:
    found = read(body, plain=True)

    assert (found.error.message if found and found.error else None) == text
    assert read(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>invalid_api_key</html>",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"7",
        b"true",
        b'{"choices":[]}',
        b'{"error":null}',
        b'{"error":{}}',
        b'{"base_resp":{"status_code":1.5}}',
        b"[" * 5000,
        b'{"error":' * 5000,
        b"\xff\xfe{",
        b'{"code":' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_says_nothing_is_none(body: bytes) -> None:
    assert read(body) is None


def test_the_problems_of_a_request_are_not_read() -> None:
    """They quote the caller: FastAPI's list has the member at fault in `loc`."""
    problem = {"type": "invalid_api_key", "loc": ["body", "x"], "msg": "API key not valid"}

    assert said({"detail": [problem]}).names == said({"detail": [problem]}).texts == ()


def test_what_the_caller_sent_is_not_read() -> None:
    error = {"message": "No.", "input": "invalid_api_key", "metadata": {"code": "invalid_api_key"}}

    assert said({"error": error}).names == ()


@pytest.mark.parametrize(
    ("param", "blames"), [("messages", True), ("", False), (None, False), (7, False)]
)
def test_the_member_at_fault_is_noted(param: object, blames: bool) -> None:
    assert said({"error": {"message": "No.", "param": param}}).blames_member is blames


def test_what_is_found_is_bounded() -> None:
    many = said({"errors": [{"code": f"code{n}", "message": "x" * 600} for n in range(99)]})

    assert len(many.names) == len(many.texts) == 32
    assert {len(text) for text in many.texts} == {512}
    assert said({"error": {"code": "x" * 65, "message": "m"}}).names == ()
    assert said({"error": {"code": 10**9, "message": "m"}}).names == ()


def test_a_body_that_is_too_large_has_no_names() -> None:
    assert read(json.dumps({"errors": [INNER], "x": "x" * 65536}).encode()) is None


@pytest.mark.alone
@pytest.mark.parametrize(
    "unit", ['{"error":[', '{"errors":[{},', '[{"detail":', '{"code":"x"},', "[[],"]
)
def test_the_cost_is_bounded(unit: str) -> None:
    body = (unit * 65536)[:65536].encode()
    started = time.process_time()
    read(body)

    assert time.process_time() - started < 0.2
