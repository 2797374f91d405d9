"""The one message of a call, read here rather than by grpc: a call is ours from its headers on.

grpc.aio reads the message of a unary request before it calls a handler: until then, a call is not
counted and has no clock, and without a message it never ends. A handler that is registered as one
of a stream of requests runs as soon as the headers are there; on the wire, nothing differs.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from process.in_process import InProcessContext
from service import errors

LONGEST: Final = 30.0
"""Seconds within which a message must arrive, as at the REST door."""

_T = TypeVar("_T")
# Quoted, since it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"


async def receive(context: _Context | InProcessContext) -> Any:
    """Return the message of a call that takes exactly one, once all of it has arrived.

    Args:
        context: The call's, with a deserializer that is `forgiving`.

    Raises:
        InvalidRequest: There is no message, or more than one, or it is not of this method, or it
            takes too long.
    """
    if isinstance(context, InProcessContext):
        return await _receive(cast("_Context", context))  # it is there
    try:
        async with asyncio.timeout(LONGEST):
            return await to_its_end(_receive(context))
    except TimeoutError as error:
        raise too_late() from error


async def _receive(context: _Context) -> Any:
    request = await context.read()
    if request is grpc.aio.EOF:
        # A call that its caller cancelled looks the same, until we are cancelled, too.
        await asyncio.sleep(0)
        raise errors.InvalidRequest("The call has no request message.")
    if request is None:
        raise errors.InvalidRequest("The request is not a message of this method.")
    if await context.read() is not grpc.aio.EOF:
        raise errors.InvalidRequest("The call has more than one request message.")
    return request


async def to_its_end(reading: Coroutine[Any, Any, _T]) -> _T:
    """Await what reads a message; if the call ends meanwhile, it goes on without us.

    grpc.aio never frees a message that arrives for a read that was cancelled. A read ends at the
    latest with the call.
    """
    task = asyncio.create_task(reading)
    task.add_done_callback(_forget)
    return await asyncio.shield(task)


def _forget(task: asyncio.Task[Any]) -> None:
    """Have nobody complain that an exception was not looked at."""
    if not task.cancelled():
        task.exception()


def too_late() -> errors.InvalidRequest:
    """Return the failure of a call whose message does not arrive in time."""
    return errors.InvalidRequest(
        "The request message did not arrive in time.", code="request_timeout"
    )


def forgiving(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a deserializer that returns None for bytes that are not such a message.

    grpc would send the exception's text to the caller, under UNKNOWN.
    """
    if deserialize is None:
        return None

    def forgive(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return None

    return forgive
