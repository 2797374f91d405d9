r"""A parser for event streams, on bytes: no I/O, bounded memory.

    bytes, cut anywhere -> feed -> [(event name, data), …]

It follows the WHATWG HTML standard, section 9.2.6. Lines end with CRLF, LF or CR, and with no other
character, because JSON can contain U+2028, U+0085 and the like. A line that begins with a colon is
a comment. The `data` lines of an event are joined by LF. An empty line ends an event. An event
without `data` is dropped. The standard also drops an incomplete last event. `finish` returns it,
because some upstreams omit the last empty line.

`id` and `retry` are skipped, because the request is never repeated.
"""

from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_FIELD: Final = b"data: "
_END: Final = b"\n\n"
_CR: Final = 0x0D
_LF: Final = 0x0A
"""Numbers, because CPython 3.11 raises and catches an exception to find bytes in bytes."""


class EventTooLargeError(ValueError):
    """A line or an event exceeds the maximum."""


class EventParser:
    """The state of one stream.

    Args:
        max_event_bytes: Maximum size of a line and of the data of an event, in bytes.
    """

    __slots__ = ("_after_cr", "_data", "_data_bytes", "_first", "_limit", "_name", "_tail")

    def __init__(self, max_event_bytes: int) -> None:
        self._limit = max_event_bytes
        self._tail = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._first = True
        self._after_cr = False

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Parse the next bytes and return the events that they complete.

        Returns:
            Pairs of the event's name, empty if it has none, and its data.

        Raises:
            EventTooLargeError: A line or an event exceeds the maximum.
        """
        if self._after_cr or _CR in data:
            data = self._normalize(data)
        if self._is_one_event(data):
            return [(b"", data[len(_FIELD) : -len(_END)])]
        if _LF not in data:
            self._tail += data
            self._check(len(self._tail))
            return []
        if self._tail:
            data = bytes(self._tail) + data
            self._tail.clear()
        lines = data.split(b"\n")
        tail = lines.pop()
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(_BOM)
        if tail:
            self._tail += tail
            self._check(len(tail))
        return self._take(lines)

    def _is_one_event(self, data: bytes) -> bool:
        """Return whether the next bytes are one usual event, as most pieces of a stream are."""
        return (
            data.startswith(_FIELD)
            and data.endswith(_END)
            and data.find(_END[:1]) == len(data) - len(_END)
            and len(data) <= self._limit
            and not (self._first or self._tail or self._data or self._name)
        )

    def finish(self) -> list[tuple[bytes, bytes]]:
        """Return the event that lacks its last line end or its empty line, if there is one.

        Nothing is fed afterwards.

        Raises:
            EventTooLargeError: the event exceeds the bound.
        """
        line = bytes(self._tail)
        if self._first:
            line = line.removeprefix(_BOM)
        return self._take([line, b""])

    def _take(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        events: list[tuple[bytes, bytes]] = []
        for line in lines:
            if not line:
                if self._data:
                    data = self._data
                    events.append((self._name, data[0] if len(data) == 1 else b"\n".join(data)))
                    self._data = []
                    self._data_bytes = 0
                self._name = b""
                continue
            if len(line) > self._limit:
                raise EventTooLargeError
            if line.startswith(b"data: "):
                self._add(line[6:])
            elif not line.startswith(b":"):
                self._field(*line.split(b":", 1))
        return events

    def _field(self, name: bytes, value: bytes = b"") -> None:
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add(value)
        elif name == b"event":
            self._name = value

    def _add(self, value: bytes) -> None:
        self._data_bytes += len(value) + 1
        self._check(self._data_bytes)
        self._data.append(value)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise EventTooLargeError

    def _normalize(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
