"""Responses that are one document, usually of JSON.

    request body was read         respond; the connection serves the next request
    request body was not read     respond, discard the rest of the body, close the connection

Closing a connection while the client still sends would reset it, and the client could lose the
response. The bridge therefore reads and discards for a moment before it closes.
"""

import asyncio

from starlette.types import Receive, Scope, Send

from restbridge.error_responses import ErrorResponse
from restbridge.http.exchange import exchange_of
from restbridge.http.limits import LINGER

Headers = list[tuple[bytes, bytes]]


async def answer(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    status: int,
    body: bytes,
    headers: Headers,
    content_type: bytes = b"application/json",
) -> None:
    """Send a document and end the exchange."""
    exchange = exchange_of(scope)
    sent = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode("ascii")),
        *headers,
    ]
    closes = exchange.body_is_pending
    if closes and (b"connection", b"close") not in headers:
        sent.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    if closes:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await _read_away(receive)
        body = b""
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(
    scope: Scope, receive: Receive, send: Send, failure: ErrorResponse, body: bytes
) -> None:
    """Send the error response of a failure and end the exchange."""
    await answer(scope, receive, send, status=failure.status, body=body, headers=failure.headers())


async def _read_away(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        return
