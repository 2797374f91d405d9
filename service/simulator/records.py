"""The records of requests.

    arrives -> RequestRecord (open) -> outcome: completed | caller_left | aborted

`completed`: the complete response was passed to the transport. `caller_left`: the connection was
lost before that. `aborted`: the simulator ended the response, as a fault or because it stopped.
"""

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

RequestOutcome = Literal["completed", "caller_left", "aborted"]


@dataclass(kw_only=True, slots=True, eq=False)
class RequestRecord:
    """A request and the outcome of its response."""

    method: str
    path: str
    """The request target as it was sent, with its query."""
    headers: dict[str, str]
    """Names in lower case; values of a repeated header are joined by ", "."""
    body: bytes
    started: float
    """`time.monotonic()` at the end of the request."""
    model: str | None = None
    """The model in the request, if any."""
    scenario: str = ""
    """The source of the response: "completion", "script", "models", "refusal" or a fault's name."""
    status: int | None = None
    """The status that was sent; None if none was."""
    chunks_sent: int = 0
    """The number of events that were passed to the transport, without `[DONE]`."""
    bytes_sent: int = 0
    """The number of bytes that were passed to the transport, including head and framing."""
    finished: float | None = None
    """`time.monotonic()` at the outcome."""
    outcome: RequestOutcome | None = None
    """The outcome; None while the request is open."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the outcome."""

    @property
    def document(self) -> Any:
        """Return the body as JSON.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)


class RecordLog:
    """The last requests, oldest first, limited by their number and the bytes of their bodies."""

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
        """Add a request that has arrived."""
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
        """Remove all records."""
        self._records.clear()
        self._unread.clear()
        self._body_bytes = 0
