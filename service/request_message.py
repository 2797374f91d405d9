"""Reads the one request message of a call, in place of grpc.aio.

grpc.aio reads the message of a unary method before it calls the handler. Until then, the call is
not counted and has no deadline, and without a message it never ends. A handler that is registered
for a stream of requests runs as soon as the headers arrive. The two are the same on the wire.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from process.in_process import InProcessContext
from process.whole_operations import to_its_end
from service import errors

LONGEST: Final = 30.0
"""Maximum seconds until the message arrives, the same as for a body at the bridge."""

_T = TypeVar("_T")
# Quoted, because it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"


async def receive(context: _Context | InProcessContext) -> Any:
    """Return the only request message of a call.

    Args:
        context: The call's context, with a `forgiving` deserializer.

    Raises:
        InvalidRequest: There is no message or more than one, the message has another type, or it
            takes too long.
    """
    reading = _receive(cast("_Context", context))
    if isinstance(context, InProcessContext):
        return await reading  # it is there
    arrived = to_its_end(reading, is_read=True)
    timer = arrived.get_loop().call_later(LONGEST, _end_late, arrived)
    try:
        return await arrived
    finally:
        timer.cancel()
        del arrived  # an exception has this frame, and the future the exception: a cycle


def _end_late(arrived: asyncio.Future[Any]) -> None:
    if not arrived.done():
        arrived.set_exception(too_late())


async def _receive(context: _Context) -> Any:
    request = await context.read()
    if request is grpc.aio.EOF:
        # A cancelled call looks the same until this task is cancelled too.
        await asyncio.sleep(0)
        raise errors.InvalidRequest("The call has no request message.")
    if request is None:
        raise errors.InvalidRequest("The request is not a message of this method.")
    if await context.read() is not grpc.aio.EOF:
        raise errors.InvalidRequest("The call has more than one request message.")
    return request


def too_late() -> errors.InvalidRequest:
    """Return the failure for a message that does not arrive in time."""
    return errors.InvalidRequest(
        "The request message did not arrive in time.", code="request_timeout"
    )


def forgiving(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a deserializer that returns None for malformed messages instead of raising.

    gRPC would send the exception's text to the caller, with the status UNKNOWN.
    """
    if deserialize is None:
        return None

    def forgive(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return None

    return forgive
