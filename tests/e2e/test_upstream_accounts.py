"""An upstream that refuses this service's account, on real sockets: the effects on the caller, the
ledger, the upstream and the log; and the keys that the service sends.

The upstream sends vendors' responses byte by byte, over gRPC and REST, unary and streamed.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from process.log import JsonFormatter
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS
from tests.support.priced_models import priced
from tests.support.running_service import UPSTREAM_KEY, models, service, simulator

SECRET: Final = "text-canary"


def answer(status: str, document: Any, kind: str = "application/json", *headers: str) -> bytes:
    """Return an HTTP response that ends with its connection."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = (f"HTTP/1.1 {status}", f"content-type: {kind}", "connection: close", *headers)
    return "\r\n".join((*head, "", "")).encode() + body


QUOTA: Final = {"message": SECRET, "type": "insufficient_quota", "code": "insufficient_quota"}
WRONG_KEY: Final = {
    "code": 400,
    "message": f"API key not valid. Please pass {SECRET}.",
    "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
}
EMPTY: Final = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": f"Your credit balance is too low, {SECRET}; your key is {UPSTREAM_KEY}.",
    },
}
UNVERIFIED: Final = {
    "message": f"Your organization must be verified to stream this model. Please go to: {SECRET}.",
    "type": "invalid_request_error",
    "param": "stream",
    "code": "unsupported_value",
}
ANSWERED: Final = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "their-m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}],
    "error": {"message": f"Insufficient credits, {SECRET}.", "code": 402},
}
ECHO: Final = {"error": {"message": SECRET, "type": "billing_error", "code": UPSTREAM_KEY}}
EVENTS: Final = "text/event-stream"

# name: the bytes, their HTTP status, and the names in the log
REFUSALS: Final[dict[str, tuple[bytes, int, list[str]]]] = {
    "quota": (
        answer("429 Too Many Requests", {"error": QUOTA}, "application/json", "retry-after: 0"),
        *(429, ["insufficient_quota"]),
    ),
    "wrong key": (
        answer("400 Bad Request", [{"error": WRONG_KEY}]),
        *(400, ["400", "INVALID_ARGUMENT", "API_KEY_INVALID"]),
    ),
    "no credit": (answer("400 Bad Request", EMPTY), 400, ["error", "invalid_request_error"]),
    "echo of our key": (answer("422 Unprocessable", ECHO), 422, ["billing_error"]),
    "not verified": (
        answer("400 Bad Request", {"error": UNVERIFIED}),
        *(400, ["unsupported_value", "invalid_request_error"]),
    ),
    "success": (answer("200 OK", {"error": QUOTA}), 200, ["insufficient_quota"]),
    "beside choices": (answer("200 OK", ANSWERED), 200, ["402"]),
    "list in a success": (
        answer("200 OK", [{"error": WRONG_KEY}]),
        *(200, ["400", "INVALID_ARGUMENT", "API_KEY_INVALID"]),
    ),
}
IN_STREAMS: Final[dict[str, tuple[bytes, int, list[str]]]] = {
    "event": (
        answer("200 OK", b"data: " + json.dumps({"error": QUOTA}).encode() + b"\n\n", EVENTS),
        *(200, ["insufficient_quota"]),
    ),
    "named event": (
        answer("200 OK", b"event: error\ndata: " + json.dumps(QUOTA).encode() + b"\n\n", EVENTS),
        *(200, ["insufficient_quota"]),
    ),
    "no event": (
        answer("200 OK", {"error": QUOTA}, EVENTS),
        *(200, ["insufficient_quota"]),
    ),
}
CASES: Final = [
    *((name, *refusal, (False, True)) for name, refusal in REFUSALS.items()),
    *((name, *refusal, (True,)) for name, refusal in IN_STREAMS.items()),
]


@dataclass(kw_only=True, slots=True)
class Vendor:
    """A server that returns the same bytes for every request."""

    answer: bytes
    address: str = ""
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, respond, and close."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().splitlines()
                if line.startswith(b"content-length:")
            )
            self.requests.append(head + await reader.readexactly(length))
            writer.write(self.answer)
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def vendor(answer: bytes) -> AsyncIterator[Vendor]:
    made = Vendor(answer=answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        made.address = f"http://{host}:{port}"
        yield made


@pytest.mark.parametrize(
    ("refusal", "status", "names", "forms"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
async def test_a_refusal_of_our_account_is_the_operators(
    refusal: bytes,
    status: int,
    names: list[str],
    forms: tuple[bool, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="service")
    async with (
        vendor(refusal) as upstream,
        accounts_stack(
            {"m": priced(upstream="vendor", upstream_model="their-m")},
            base_urls={"vendor": upstream.address},
        ) as stack,
    ):
        for door in DOORS:
            for streamed in forms:
                upstream.requests.clear()
                caplog.clear()
                team = stack.books.team()
                told = await stack.ask(door, team.key, "m", streamed=streamed)
                await stack.rests()

                assert (told.status, told.code, told.retryable) == (502, "upstream_account", False)
                assert told.retry_after_ms is None
                assert told.message.startswith(
                    "The model provider rejected this server's credentials. Contact the operator "
                    "and give request id "
                )
                assert SECRET not in str(told)
                assert stack.books.charges(team) == []
                assert len(upstream.requests) == 1
                assert_one_error(caplog, status, names)
        stack.books.nothing_is_open()


def assert_one_error(caplog: pytest.LogCaptureFixture, status: int, names: list[str]) -> None:
    formatter = JsonFormatter()
    texts = [formatter.format(record) for record in caplog.records]
    (line,) = [found for found in map(json.loads, texts) if found["level"] == "error"]
    assert (line["event"], line["reason"]) == ("call", "UPSTREAM_ACCOUNT")
    assert (line["upstream"], line["upstream_status"]) == ("vendor", status)
    assert line["upstream_names"] == names
    for text in texts:
        assert SECRET not in text
        assert UPSTREAM_KEY not in text


async def test_flagged_input_is_the_callers_mistake(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service")
    error = f"Content violates usage guidelines. Team: {SECRET}, API key ID: {SECRET}"
    async with (
        vendor(answer("403 Forbidden", {"code": "No permission", "error": error})) as upstream,
        accounts_stack(
            {"m": priced(upstream="vendor")}, base_urls={"vendor": upstream.address}
        ) as stack,
    ):
        for door in DOORS:
            for streamed in (False, True):
                team = stack.books.team()
                told = await stack.ask(door, team.key, "m", streamed=streamed)
                await stack.rests()

                assert (told.status, told.code, told.retryable) == (403, "content_filter", False)
                assert SECRET not in str(told)
                assert stack.books.charges(team) == []
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.parametrize(
    "refusal",
    [
        answer(
            "429 Too Many Requests",
            [{"error": {"code": 429, "message": SECRET, "status": "RESOURCE_EXHAUSTED"}}],
        ),
        answer("200 OK", {"code": 429, "message": SECRET}, EVENTS),
    ],
    ids=["429", "no event"],
)
async def test_a_rate_limit_stays_one(refusal: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service")
    async with (
        vendor(refusal) as upstream,
        accounts_stack(
            {"m": priced(upstream="vendor")}, base_urls={"vendor": upstream.address}
        ) as stack,
    ):
        for door in DOORS:
            told = await stack.ask(door, stack.books.team().key, "m", streamed=True)
            assert (told.status, told.code) == (429, "upstream_rate_limited")
            assert told.retryable
            assert SECRET not in str(told)
        await stack.rests()
        calls = [record for record in caplog.records if record.msg == "call"]
        assert {record.levelname for record in calls} == {"WARNING"}


# ------------------------------------------------------------------------------------- our key


@pytest.mark.parametrize(
    "key",
    ["x", "EMPTY", "ollama", "lm-studio", "a b", "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~", "j" * 8000],
)
async def test_a_key_arrives_as_it_is_configured(key: str) -> None:
    async with (
        simulator(api_key=key) as upstream,
        service(models(["any"], upstream, key=key)) as running,
    ):
        completion = await running.client.create("any")
        assert completion.choices[0].finish_reason == "stop"
        assert (await running.client.collect("any")).failure is None
