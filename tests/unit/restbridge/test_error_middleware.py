import asyncio
import json
import logging
from collections.abc import Callable

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from starlette.types import ASGIApp, Receive, Scope, Send

from chatcompletion import charges
from chatcompletion.v1.chat_completion_service_pb2 import Charge
from chatcompletion.v1.error_pb2 import ApiError
from restbridge.error_middleware import Failures
from restbridge.error_responses import LEFT, ErrorResponse, RefusedError, of_reason
from restbridge.event_stream import EventStream
from restbridge.http.exchange import exchange_of
from tests.unit.restbridge.exchanges import FakeClock, Wire, exchange, scope, turn


def raising(exception: BaseException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise exception

    return app


def streaming(exception: BaseException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with EventStream(exchange_of(scope), send, clock=FakeClock()) as events:
            await events.open([])
            await events.write(b"1")
            raise exception

    return app


async def run(app: ASGIApp) -> tuple[Wire, Scope]:
    wire = Wire()
    asked = scope(of=exchange(request_id="req_x", connection=wire))
    await Failures(app, ahead=0)(asked, wire.receive, wire.send)
    return wire, asked


RPC_ERROR = AioRpcError(
    grpc.StatusCode.UNKNOWN, Metadata(), Metadata(), "canary", debug_error_string="canary"
)


@pytest.mark.parametrize(
    ("exception", "status", "code"),
    [
        (RefusedError(of_reason("UNKNOWN_URL")), 404, "unknown_url"),
        (RPC_ERROR, 500, "internal_error"),
        (ValueError("canary"), 500, "internal_error"),
        (TimeoutError("canary"), 500, "internal_error"),
    ],
)
async def test_a_failure_is_a_status_before_and_an_event_after(
    exception: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        wire, asked = await run(raising(exception))
        assert wire.status == status
        assert json.loads(wire.body)["error"]["code"] == code
        assert wire.headers[b"content-type"] == b"application/json"
        assert (wire.ended, wire.was_cut) == (True, False)

        wire, asked = await run(streaming(exception))
    assert wire.status == 200
    assert (wire.ended, wire.was_cut) == (False, True)
    first, second, rest = wire.body.split(b"\n\n")
    assert (first, rest) == (b"data: 1", b"")
    assert json.loads(second.removeprefix(b"data: "))["error"]["code"] == code
    assert exchange_of(asked).failure is not None
    assert b"canary" not in wire.body
    assert "canary" not in caplog.text


async def test_the_receipt_of_a_failed_call_is_a_header_or_a_comment_after_the_error() -> None:
    charge = Charge(hold_id="h", amount_nano_credits=3, prompt_nano_credits=1, partial=True)
    charge.completion_nano_credits = 2
    error = AioRpcError(grpc.StatusCode.UNKNOWN, Metadata(), Metadata(*charges.metadata(charge)))

    whole, _ = await run(raising(error))
    streamed, _ = await run(streaming(error))

    text = b'nano-credits=3, prompt=1, completion=2, hold="h", partial'
    assert whole.headers[b"x-charge"] == text
    # go-openai takes a comment before the error for a part of it.
    assert streamed.body.split(b"\n\n")[2] == b": charge " + text


async def test_an_error_event_is_on_its_way_before_the_connection_closes() -> None:
    wire = Wire()
    asked = scope(of=exchange(connection=wire))
    app = streaming(RefusedError(of_reason("UPSTREAM_ERROR")))
    running = asyncio.create_task(Failures(app, ahead=3600)(asked, wire.receive, wire.send))
    await turn()
    assert wire.body.endswith(b"}\n\n")
    assert not wire.was_cut
    running.cancel()
    await asyncio.wait((running,))


async def test_a_defect_is_logged_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        await run(raising(ValueError("canary")))
    [record] = caplog.records
    members = record.__dict__["chat_fields"]
    assert (members["exception"], members["request_id"]) == ("ValueError", "req_x")


async def test_what_the_caller_did_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await run(raising(RefusedError(of_reason("INVALID_REQUEST"))))
    assert caplog.records == []


@pytest.mark.parametrize("make", [raising, streaming])
async def test_one_who_left_is_told_nothing(make: Callable[[BaseException], ASGIApp]) -> None:
    wire, asked = await run(make(RefusedError(LEFT)))
    assert (wire.ended, wire.was_cut) == (False, False)
    assert exchange_of(asked).failure is LEFT


async def test_a_success_is_left_alone() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    wire, asked = await run(app)
    assert (wire.status, exchange_of(asked).failure) == (204, None)


@pytest.mark.parametrize("make", [raising, streaming])
async def test_an_end_is_answered_and_a_cancellation_is_not(
    make: Callable[[BaseException], ASGIApp],
) -> None:
    async def ended(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).end(of_reason("DRAINING"))
        await asyncio.Event().wait()

    wire, _ = await run(ended)
    assert (wire.status, wire.ended) == (503, True)
    with pytest.raises(asyncio.CancelledError):
        await run(make(asyncio.CancelledError()))


async def test_an_error_object_that_is_not_json_is_an_internal_error() -> None:
    error = ApiError(message="m")
    error.extra_json["x"] = "}{"
    failure = ErrorResponse(reason="RATE_LIMITED", status=429, error=error)
    wire, _ = await run(raising(RefusedError(failure)))
    assert wire.status == 429
    assert json.loads(wire.body)["error"]["code"] == "internal_error"
