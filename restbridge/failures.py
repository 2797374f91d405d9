"""Every exception becomes the one answer that is still possible.

what is out already     what the client gets
nothing                 the status, and {"error": …}
a stream of events      one event data: {"error": …}; the connection is closed: no [DONE]
a part of a document    the connection is closed
the caller is gone      nothing

The bridge closes the connection without the last chunk of the body (RFC 9112, section 8): some
clients ignore an error event and take a clean end of the body for success.
"""

import asyncio
import logging
from typing import Final

from grpc.aio import AioRpcError
from starlette.types import ASGIApp, Receive, Scope, Send

from chatcompletion.openai_json import EncodeError
from process import log
from restbridge.answers import refuse
from restbridge.error_responses import LEFT, ErrorResponse, RefusedError, internal, of_call
from restbridge.event_stream import event
from restbridge.http.exchange import Exchange, exchange_of

AHEAD: Final = 0.05
"""Seconds by which an error event goes out before the connection is closed.

A proxy that speaks HTTP/2 to the client turns the close into RST_STREAM. If it reads both at once,
it may drop the event: Envoy dropped 7 of 40 without this time, and none of 40 with 0.01.
"""

_log = logging.getLogger(__name__)


class Failures:
    """Answers for an application that raises.

    Args:
        app: The application.
        ahead: Seconds between an error event and the close of the connection.
    """

    def __init__(self, app: ASGIApp, *, ahead: float = AHEAD) -> None:
        self._app = app
        self._ahead = ahead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and answer if it raises."""
        exchange = exchange_of(scope)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not exchange.was_ended():
                raise
        except Exception as exception:  # noqa: BLE001 - the last resort: each has an answer
            exchange.failure = _failure_of(exception, exchange)
        exchange.settle()
        failure = exchange.failure
        if failure is None or failure is LEFT:
            return
        body = _document(failure, exchange)
        if exchange.streams_events:
            await send({"type": "http.response.body", "body": event(body), "more_body": True})
            await asyncio.sleep(self._ahead)
        elif not exchange.status:
            await refuse(scope, receive, send, failure, body)
            return
        exchange.connection.cut()


def _failure_of(exception: Exception, exchange: Exchange) -> ErrorResponse:
    if isinstance(exception, RefusedError):
        return exception.failure
    if isinstance(exception, AioRpcError):
        failure = of_call(
            exception.code(),
            exception.details(),
            exchange_id=exchange.request_id,
            metadata=exception.initial_metadata(),
            trailers=exception.trailing_metadata(),
        )
    else:
        failure = internal(exchange.request_id)
    if failure.reason == "INTERNAL":
        _log.error(
            "unforeseen failure",
            extra=log.fields(
                request_id=exchange.request_id,
                grpc_code=exception.code().name if isinstance(exception, AioRpcError) else None,
                **log.exception_members(type(exception), exception.__traceback__),
            ),
        )
    return failure


def _document(failure: ErrorResponse, exchange: Exchange) -> bytes:
    try:
        return failure.body()
    except EncodeError:
        # The error object of the service is not JSON: its reason still stands.
        return internal(exchange.request_id).body()
