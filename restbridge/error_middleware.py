"""Turns every exception into the best response that is still possible.

already sent            response to the client
nothing                 the status, and {"error": …}
a stream of events      one event data: {"error": …}, no [DONE]; the connection is closed. The
                        receipt of the call, if there is one, follows it as a comment, because
                        go-openai takes a comment before an error for a part of it
a part of a document    none; the connection is closed
anything, client gone   none

The bridge closes the connection without the last chunk of the body (RFC 9112, section 8), because
some clients ignore an error event and treat a clean end of the body as success.
"""

import asyncio
import logging
from typing import Final

from grpc.aio import AioRpcError
from starlette.types import ASGIApp, Receive, Scope, Send

from chatcompletion.openai_json import EncodeError
from process import log
from restbridge import headers
from restbridge.answers import refuse
from restbridge.error_responses import LEFT, ErrorResponse, RefusedError, internal, of_call
from restbridge.event_stream import event, receipt
from restbridge.http.exchange import Exchange, exchange_of

AHEAD: Final = 0.05
"""Seconds between an error event and the close of the connection.

A proxy that speaks HTTP/2 to the client turns the close into RST_STREAM. If it reads the event and
the close together, it can drop the event: Envoy dropped 7 of 40 without the delay, and none of 40
with 0.01 s.
"""

_log = logging.getLogger(__name__)


class Failures:
    """Responds for an application that raises.

    Args:
        app: The application.
        ahead: Seconds between an error event and the close of the connection.
    """

    def __init__(self, app: ASGIApp, *, ahead: float = AHEAD) -> None:
        self._app = app
        self._ahead = ahead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application and, if it raises, send the error."""
        exchange = exchange_of(scope)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not exchange.was_ended():
                raise
        except Exception as exception:  # noqa: BLE001 - every exception gets a response
            exchange.failure = _failure_of(exception, exchange)
        exchange.settle()
        failure = exchange.failure
        if failure is None or failure is LEFT:
            return
        body = _document(failure, exchange)
        if exchange.streams_events:
            charge = dict(failure.metadata).get(headers.CHARGE)
            sent = event(body) + (b"" if charge is None else receipt(charge))
            await send({"type": "http.response.body", "body": sent, "more_body": True})
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
            "unexpected failure",
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
        # The service's error object cannot be encoded as JSON.
        return internal(exchange.request_id).body()
