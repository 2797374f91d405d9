"""What the simulator remembers of each request.

    arrives -> RequestRecord (open) -> outcome: completed | caller_left | aborted

`completed`: the whole answer was handed to the transport. `caller_left`: the connection was lost
before that. `aborted`: the simulator itself broke the answer off, as a fault or because it stopped.
"""

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

RequestOutcome = Literal["completed", "caller_left", "aborted"]


@dataclass(kw_only=True, slots=True, eq=False)
class RequestRecord:
    """One request, and how its answer went."""

    method: str
    path: str
    """The request target as it was sent, with its query."""
    headers: dict[str, str]
    """Names in lower case; values of a repeated header are joined by ", "."""
    body: bytes
    started: float
    """`time.monotonic()` when the request was complete."""
    model: str | None = None
    """The model that the request names, where it is one."""
    scenario: str = ""
    """What answered: "completion", "script", "models", "refusal", or the name of a fault."""
    status: int | None = None
    """The status that was sent; None before, and where none ever was."""
    chunks_sent: int = 0
    """Events of a stream that were handed to the transport, `[DONE]` not counted."""
    bytes_sent: int = 0
    """Bytes handed to the transport, head and framing included."""
    finished: float | None = None
    """`time.monotonic()` when the outcome was known."""
    outcome: RequestOutcome | None = None
    """None while the request is open."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the outcome is known."""

    @property
    def document(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: the body is not JSON.
        """
        return json.loads(self.body)


class RecordLog:
    """The last requests, oldest first, bounded by their number and by the bytes of their bodies."""

    def __init__(self, *, records: int, body_bytes: int) -> None:
        self._records: deque[RequestRecord] = deque()
        self._unread: deque[RequestRecord] = deque(maxlen=records)
        self._max_records = records
        self._max_body_bytes = body_bytes
        self._body_bytes = 0
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> RequestRecord:
        return self._records[index]

    def add(self, record: RequestRecord) -> None:
        """Remembers a request that has just arrived."""
        if self._max_records == 0:
            return
        self._records.append(record)
        self._unread.append(record)
        self._body_bytes += len(record.body)
        while len(self._records) > self._max_records or self._body_bytes > self._max_body_bytes:
            oldest = self._records.popleft()
            self._body_bytes -= len(oldest.body)
            if self._unread and self._unread[0] is oldest:
                self._unread.popleft()
        self._arrived.set()

    async def next(self) -> RequestRecord:
        """Return the oldest request not yet returned here, waiting for one to arrive."""
        while not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        return self._unread.popleft()

    def clear(self) -> None:
        """Forgets all."""
        self._records.clear()
        self._unread.clear()
        self._body_bytes = 0
