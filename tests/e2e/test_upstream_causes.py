"""Why a call failed at the upstream: the log line of the call and the labels of the counter, for
responses as bytes on a socket, through every door, whole and streamed.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import pytest

from process.log import JsonFormatter
from service.upstream_report import Cause, status_label
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS, document
from tests.support.odd_answers import (
    PIECES,
    STOP,
    WHOLE,
    Framing,
    call,
    chunk,
    event,
    http,
    json_answer,
    raw_server,
)
from tests.support.priced_models import priced

LIMIT: Final = 10
"""Tokens of output that each call asks for."""
FRAMINGS: Final[tuple[Framing, ...]] = ("chunked", "length")


def with_headers(*headers: bytes) -> bytes:
    head, _, body = json_answer(WHOLE).partition(b"\r\n\r\n")
    return b"\r\n".join([head, *headers, b"", body])


def refusal(status: int, text: str = "No.") -> bytes:
    return json_answer(json.dumps({"error": {"message": text}}).encode(), status=status)


ARGUMENTS: Final = {"tool_calls": [{"index": 0, "function": {"arguments": "four" * 9}}]}
CALLING: Final = event({**chunk(None), "choices": [{"index": 0, "delta": ARGUMENTS}]})

EITHER: Final[Mapping[str, tuple[bytes, Cause, int]]] = {
    "nothing": (b"", "closed", 0),
    "half a head": (b"HTTP/1.1 200 Fine\r\ncontent-", "closed", 0),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol", 0),
    "a chunk without a size": (
        b"HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n",
        "protocol",
        200,
    ),
    "a large header": (with_headers(b"x-large: " + b"a" * 2**16), "too_large", 0),
    "many headers": (with_headers(*[b"x-a: b"] * 1001), "too_large", 0),
    "a compressed body": (json_answer(WHOLE, coding="gzip"), "encoding", 200),
    "a page": (json_answer(b"<html>", kind="text/html"), "not_json", 200),
    "400": (refusal(400), "request", 400),
    "403": (refusal(403), "account", 403),
    "404 of the model": (refusal(404, "The model `x` does not exist"), "model", 404),
    "429": (refusal(429), "rate_limit", 429),
    "500": (refusal(500), "status", 500),
    "503": (refusal(503), "busy", 503),
    "599": (refusal(599), "status", 599),
}
"""Responses to whole and to streamed requests, their cause, and the status that is logged."""
WHOLES: Final[Mapping[str, tuple[bytes, Cause, int]]] = {
    "cut": (json_answer(WHOLE, cut=True), "truncated", 200),
    "cut chunks": (json_answer(WHOLE, framing="chunked", cut=True), "truncated", 200),
    "no choices": (json_answer(b'{"choices": []}'), "no_choices", 200),
    "an error": (json_answer(b'{"error": {"message": "Broke."}}'), "reported", 200),
}
STREAMS: Final[Mapping[str, tuple[bytes, Cause, int]]] = {
    **{
        f"cut, {framing}": (http(*PIECES, STOP, framing=framing, cut=True), "truncated", 200)
        for framing in FRAMINGS
    },
    "no end": (http(*PIECES), "truncated", 200),
    "an error": (http(*PIECES, event(b'{"error": {"message": "Broke."}}')), "reported", 200),
    "an endless call": (http(*[CALLING] * 99), "overrun", 200),
    "no JSON": (http(*PIECES, event(b"<html>")), "not_json", 200),
}


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_operator_learns_why_an_upstream_failed(
    streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service")
    rows = {**EITHER, **(STREAMS if streamed else WHOLES)}
    async with raw_server([(answer,) for answer, _, _ in rows.values()]) as upstream:
        names = [f"m-{number}" for number in range(len(rows))]
        entries = {
            name: priced(upstream_model=f"{number}", upstream=name)
            for number, name in enumerate(names)
        }
        async with accounts_stack(entries, base_urls=dict.fromkeys(names, upstream.url)) as stack:
            for door in DOORS:
                team = stack.books.team()
                failures = await asyncio.gather(
                    *(
                        call(
                            stack,
                            door,
                            team.key,
                            {**document(name), "max_tokens": LIMIT},
                            streamed=streamed,
                        )
                        for name in names
                    )
                )
                assert all(failure is not None for failure, _ in failures)
            await stack.rests()
            logged = calls(caplog)
            for name, (row, (_, cause, status)) in zip(names, rows.items(), strict=True):
                lines = [line for line in logged if line["model"] == name]
                assert len(lines) == len(DOORS), row
                for line in lines:
                    found = (line["upstream"], line["cause"], line["upstream_status"])
                    assert found == (name, cause, status), row
                    assert line["level"] == level(cause), row
                label = status_label(status)
                labels = {"upstream": name, "cause": cause, "upstream_status": label}
                count = stack.service.metric("chat_upstream_failures_total", **labels)
                assert count == (0 if cause == "request" else len(DOORS)), row
            stack.books.nothing_is_open()


def calls(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the log lines of calls."""
    formatter = JsonFormatter()
    lines = [json.loads(formatter.format(record)) for record in caplog.records]
    return [line for line in lines if line["event"] == "call"]


def level(cause: Cause) -> str:
    """Return the level of the line of a failed call, as the documentation has it."""
    if cause == "request":
        return "info"
    return "error" if cause in ("account", "model") else "warning"
