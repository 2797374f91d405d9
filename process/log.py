"""Logs: one record per line on one stream, as JSON or, for people, as text (`log_text`).

    {"time": "2026-01-31T12:00:00.000Z", "level": "info", "event": "call", "request_id": …, …}

Pass the members of a record with `extra=fields(...)`. For an exception, the line has its type and
the innermost places of its traceback, never its text, which could contain a key or a message. For
the same reason, the event of a library's record is its format string, without the arguments.

The lines of one iteration of the event loop are written together at its end. Errors, and lines from
other threads, are written immediately.
"""

import asyncio
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

import msgspec

from process.log_text import TextFormatter

FORMATS: Final = ("auto", "json", "text")
"""The valid formats of `configure`. `auto` is text on a terminal, and JSON elsewhere."""

LEVELS: Final = ("debug", "info", "warning", "error")
"""The valid levels of `configure`."""

SILENT_GRPC: Final = ("GRPC_VERBOSITY", "NONE")
"""The variable that keeps gRPC's core from writing lines of its own to stderr, and its value. It
must be set before grpc is imported. What the core reports is in our own errors and log lines."""

_FIELDS: Final = "chat_fields"
_NOTHING: Final[dict[str, object]] = {}
_LONGEST_EVENT: Final = 512
_MOST_LINES: Final = 1000
_OURS: Final = ("service", "restbridge")


def _name_of_type(value: object) -> str:
    return type(value).__name__


_encode: Final = msgspec.json.Encoder(enc_hook=_name_of_type).encode


def fields(**members: object) -> dict[str, dict[str, object]]:
    """Return the `extra` argument of a logging call that adds these members to its line."""
    return {_FIELDS: members}


def event(logger: str, name: str, **members: object) -> None:
    """Log one event at level info."""
    logging.getLogger(logger).info(name, extra=fields(**members))


def line(logger: logging.Logger, level: int, event: str, members: dict[str, object]) -> None:
    """Log an event of each request, at half the cost of the methods of a logger.

    Args:
        logger: The logger.
        level: A level of `logging`.
        event: The event.
        members: The members of the line.
    """
    if logger.isEnabledFor(level):
        logger.handle(_Record(logger.name, level, event, members))


_NOWHERE: Final = vars(logging.LogRecord("", 0, "", 0, "", (), None))
"""The attributes of a record that says nothing."""


class _Record(logging.LogRecord):
    """A record without what our lines do not have: its place in the source, thread and process."""

    def __init__(self, name: str, level: int, event: str, members: dict[str, object]) -> None:
        # Without the constructor of the class, which takes a path apart.
        said = _NOWHERE.copy()
        said["name"] = name
        said["msg"] = event
        said["levelno"] = level
        said["levelname"] = logging.getLevelName(level)
        said["created"] = time.time()
        said[_FIELDS] = members
        self.__dict__ = said


def exception_members(
    kind: type[BaseException], trace: TracebackType | None
) -> dict[str, str | list[str]]:
    """Return the members for an exception: its type and the innermost places of its traceback."""
    frames = traceback.extract_tb(trace)[-8:]
    places = [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames]
    return {"exception": kind.__qualname__, "places": places}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    Args:
        members: Of every line, before the record's own.
    """

    def __init__(self, **members: object) -> None:
        super().__init__()
        self._members = members
        self._second = -1
        self._date_and_time = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line break."""
        members: dict[str, Any] | None = getattr(record, _FIELDS, None)
        line: dict[str, object] = {
            "time": self._time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event_of(record),
            **self._members,
            **(members or _NOTHING),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line.update(exception_members(record.exc_info[0], record.exc_info[2]))
        try:
            return _encode(line).decode()
        except UnicodeEncodeError:
            # An unpaired surrogate, for example in a file name, needs an escape.
            return json.dumps(line, default=_name_of_type)

    def _time(self, seconds: float) -> str:
        second = int(seconds)
        if second != self._second:
            self._date_and_time = datetime.fromtimestamp(second, UTC).isoformat()[:19]
            self._second = second
        return f"{self._date_and_time}.{int((seconds - second) * 1000):03d}+00:00"


class LineHandler(logging.Handler):
    """Writes records to a stream, each as one line.

    Args:
        stream: The stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []
        self._turn: asyncio.AbstractEventLoop | None = None
        """The event loop that writes the lines at the end of its current iteration."""

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record until the end of this iteration of the event loop."""
        try:
            self._lines.append(self.format(record))
        except Exception:  # noqa: BLE001  (as every handler of the standard library does)
            self.handleError(record)
        if (
            record.levelno >= logging.ERROR
            or len(self._lines) >= _MOST_LINES
            or not self._is_written_later()
        ):
            self.flush()

    def flush(self) -> None:
        """Write the queued lines."""
        with self.lock or nullcontext():
            self._turn = None
            lines, self._lines = self._lines, []
            if lines:
                self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()

    def _is_written_later(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if loop is not self._turn:
            self._turn = loop
            loop.call_soon(self.flush)
        return True


def _event_of(record: logging.LogRecord) -> str:
    return (record.getMessage() if _is_ours(record) else str(record.msg))[:_LONGEST_EVENT]


def _members_of(worker: dict[str, object]) -> Callable[[logging.LogRecord], dict[str, Any]]:
    """Return a function from a record to its members, after those of every line."""

    def members(record: logging.LogRecord) -> dict[str, Any]:
        found = {**worker, **(getattr(record, _FIELDS, None) or {})}
        if record.exc_info and record.exc_info[0] is not None:
            found.update(exception_members(record.exc_info[0], record.exc_info[2]))
        return found

    return members


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS


def report_exceptions(loop: asyncio.AbstractEventLoop) -> None:
    """Make an event loop log unhandled exceptions as log lines, without their texts."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exception = context.get("exception")
        members = exception_members(type(exception), exception.__traceback__) if exception else {}
        logging.getLogger("asyncio").error("unhandled in event loop", extra=fields(**members))

    loop.set_exception_handler(report)


def configure(
    level: str,
    stream: TextIO = sys.stderr,
    *,
    worker: int | None = None,
    style: str = "json",
) -> None:
    """Send all logging of the process to `stream`, as one line per record.

    Args:
        level: The minimum level, one of `LEVELS`. Libraries log warnings and errors only.
        stream: The stream to write to.
        worker: The number of this process among workers, added to every line, or None.
        style: The format of the lines, one of `FORMATS`. Text has colours on a terminal.
    """
    handler = LineHandler(stream)
    every: dict[str, object] = {} if worker is None else {"worker": worker}
    is_terminal = stream.isatty()
    if style == "text" or (style == "auto" and is_terminal):
        members = _members_of(every)
        handler.setFormatter(TextFormatter(_event_of, members, colour=is_terminal))
    else:
        handler.setFormatter(JsonFormatter(**every))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    # The lines have none of these members, and collecting them costs more than the line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # as the documentation of `logging` recommends
