"""Runs operations of grpc.aio to their ends, also those that fail or that nobody awaits any more.

grpc.aio frees what an operation holds after it has awaited its success: what gRPC's core needed for
it, and messages. If the operation fails, or if the task that awaits it is cancelled, it frees
nothing (https://github.com/grpc/grpc/issues/43360). Each stream whose caller left while a write
waited for it leaked 0.3 KB, in pieces that kept whole pages.

The core ends every operation of a call with the call, so that none continues for ever.
"""

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")


def to_its_end(
    operation: Coroutine[Any, Any, _T] | Generator[Any, Any, _T], *, is_read: bool = False
) -> "asyncio.Future[_T]":
    """Begin an operation. Return a future of its result; if it is cancelled, nothing else is.

    It adds 1.8 µs to an operation; a task and a future would add 3.6. The operation must not need a
    task, as `asyncio.timeout` does.

    Args:
        operation: The operation.
        is_read: Whether a failure is no exception but the end of messages: the call has a status.
    """
    result: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    _continue(operation, result, is_read)
    return result


def _continue(
    operation: Coroutine[Any, Any, _T] | Generator[Any, Any, _T],
    result: "asyncio.Future[_T]",
    is_read: bool,
    awaited: "asyncio.Future[Any] | None" = None,
) -> None:
    """Run an operation until it awaits a future, and again when that is done."""
    failure = None if awaited is None or awaited.cancelled() else awaited.exception()
    try:
        # By PEP 380, StopIteration from what the operation awaits is its success.
        waits_for = operation.throw(StopIteration()) if failure else operation.send(None)
    except StopIteration as end:
        _tell(result, end.value, None if is_read else failure)
    except asyncio.CancelledError:
        result.cancel()
    except Exception as error:  # noqa: BLE001  (the caller gets it)
        _tell(result, None, error if is_read else failure or error)
    else:
        again = partial(_continue, operation, result, is_read)
        if waits_for is None:  # `asyncio.sleep(0)`
            result.get_loop().call_soon(again)
        else:
            waits_for._asyncio_future_blocking = False  # what a task does with a future it gets
            waits_for.add_done_callback(again)


def _tell(result: "asyncio.Future[Any]", value: Any, failure: BaseException | None) -> None:
    if result.done():
        return
    if failure is None:
        result.set_result(value)
    else:
        # Without the frame of `_continue`, which has the future: the two would be a cycle.
        place = failure.__traceback__
        result.set_exception(failure.with_traceback(place and place.tb_next))
