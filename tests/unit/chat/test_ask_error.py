import json

import pytest

from chat.ask_error import AskError, of_object, of_response, printable

URL = "http://a.example/v1/models"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (AskError("No."), "No."),
        (AskError("No.", param="n"), "No. (parameter n)"),
        (AskError("No.", retry_after=27.5), "No. (try again in 27.5 s)"),
        (AskError("No.", param="n", retry_after=2), "No. (parameter n, try again in 2 s)"),
        (AskError("Invalid 'n'.", param="n"), "Invalid 'n'."),
        (AskError("Try again in 2s.", retry_after=2), "Try again in 2s."),
        (AskError("a\n\tb\r\nc\x1b[31m"), "a b c�[31m"),
    ],
)
def test_an_error_is_one_line(error: AskError, line: str) -> None:
    assert error.line() == line


def test_a_line_is_bounded() -> None:
    assert len(AskError("x" * 5000, param="y" * 5000).line()) < 2100


@pytest.mark.parametrize(
    ("error", "message", "param"),
    [
        ({"message": "No.", "param": "n"}, "No.", "n"),
        ({"message": "No.", "param": None}, "No.", ""),
        ({"message": 7, "param": 7}, "other", ""),
        ("No.", "No.", ""),
        (None, "other", ""),
    ],
)
def test_error_objects_of_any_server_are_read(error: object, message: str, param: str) -> None:
    found = of_object(error, otherwise="other")

    assert (found.message, found.param) == (message, param)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Fri, 27 Nov 2026 13:00:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_the_retry_time_is_in_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    body = json.dumps({"error": {"message": "No."}}).encode()

    assert of_response(429, headers, body, URL).retry_after == seconds


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"[" * 100_000, b'{"error": null}'])
def test_a_body_without_a_message_is_named_by_its_status(body: bytes) -> None:
    assert of_response(502, {}, body, URL).line() == f"HTTP status 502 from {URL}"


def test_a_terminal_gets_no_commands() -> None:
    assert printable("a\r\n\tb\x1b]0;x\x07\x9b1mé") == "a\n\tb�]0;x��1mé"
