"""A unary call to the service, and its response as one JSON document."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc.aio
from starlette.types import Receive, Scope, Send

from process.in_process import answer_of
from restbridge import headers
from restbridge.answers import answer
from restbridge.http.exchange import Departure, exchange_of

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


async def forward(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    rpc: str,
    method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
    request: _Request,
    encode: Callable[[_Response], bytes],
    deadline: float,
    besides: Sequence[tuple[bytes, bytes]] = (),
    more: tuple[tuple[str, str], ...] = (),
) -> None:
    """Call a unary method of the service and send its response. The request body has been read.

    Args:
        scope: The ASGI scope.
        receive: The ASGI channel of the request.
        send: The ASGI channel of the response.
        rpc: The full name of the method.
        method: The method.
        request: The request message.
        encode: Encodes the response message as a JSON document.
        deadline: The deadline of the call, in seconds.
        besides: Response headers in addition to those from the service.
        more: Metadata in addition to those of every call.
    """
    exchange = exchange_of(scope)
    call = method(
        request,
        metadata=headers.metadata(scope["headers"], exchange.request_id, exchange.calling(rpc))
        + more,
        timeout=deadline,
    )
    with Departure(exchange, receive):
        response = await answer_of(call)
    exchange.called()
    told = headers.answer(await call.initial_metadata(), await call.trailing_metadata())
    await answer(scope, receive, send, status=200, body=encode(response), headers=[*told, *besides])
