"""A unary call to the service, and its response as one JSON document."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc.aio
from starlette.types import Receive, Scope, Send

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
    method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
    request: _Request,
    encode: Callable[[_Response], bytes],
    deadline: float,
    besides: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Answer a request, whose body is read, with the response of a method of the service.

    Args:
        scope: The ASGI scope.
        receive: The ASGI channel of the request.
        send: The ASGI channel of the answer.
        method: The method.
        request: The message that it is called with.
        encode: Writes its response as a JSON document.
        deadline: The deadline of the call, in seconds.
        besides: Headers of the answer that the service does not send.
    """
    exchange = exchange_of(scope)
    call = method(
        request,
        metadata=headers.metadata(scope["headers"], exchange.request_id),
        timeout=deadline,
    )
    with Departure(exchange, receive):
        response = await call
    told = [*headers.answer(await call.initial_metadata()), *besides]
    await answer(scope, receive, send, status=200, body=encode(response), headers=told)
