"""The store used on the event loop."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from service.ledger.batches import Batches

_T = TypeVar("_T")


class InPlace(Batches):
    """Uses the store on the event loop, so that the steps of a call are always the same."""

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        await asyncio.sleep(0)
        result = function(*arguments)
        await asyncio.sleep(0)
        return result

    read = call
