"""Log lines for people on a terminal: one short line per record.

    12:00:00.000 call OK CreateChatCompletion default 812 ms key=acme/ci charge=0.00042 …
    12:00:00.000 ERROR store is away why=…

The line of a call begins with its result. Other members follow as name=value. A value that is no
single word is quoted, so that a line stays a line.
"""

import json
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

LEADING: Final = {
    "call": ("reason", "method", "model"),
    "request": ("status", "method", "route"),
}
"""The members of an event that need no name, in their order."""

_HIDDEN: Final = {"request": {"reason"}}
"""The members of an event that repeat others if the event succeeds."""
_LONGEST: Final = 200
"""Maximum characters of one value."""
_NANO: Final = 10**9
_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_GREEN: Final = "\x1b[32m"
_COLOURS: Final = {logging.ERROR: "\x1b[31m", logging.WARNING: "\x1b[33m"}


class TextFormatter(logging.Formatter):
    """Formats a record as one line of text.

    Args:
        event: Returns the event of a record.
        members: Returns the members of a record.
        colour: Whether the terminal shows colours.
    """

    def __init__(
        self,
        event: Callable[[logging.LogRecord], str],
        members: Callable[[logging.LogRecord], dict[str, Any]],
        *,
        colour: bool,
    ) -> None:
        super().__init__()
        self._event = event
        self._members = members
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line break."""
        event, members = self._event(record), self._members(record)
        failed = record.levelno >= logging.WARNING or members.get("reason", "OK") != "OK"
        head = [] if record.levelno == logging.INFO else [record.levelname]
        head.append(event if event.isprintable() else json.dumps(event))
        head += [_word(members.pop(name)) for name in LEADING.get(event, ()) if name in members]
        if event in _HIDDEN and not failed:
            for name in _HIDDEN[event]:
                members.pop(name, None)
        if "duration_ms" in members:
            head.append(f"{members.pop('duration_ms'):.0f} ms")
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        return self._line(record.levelno, time, " ".join(head), " ".join(_named(members)), failed)

    def _line(self, level: int, time: str, head: str, rest: str, failed: bool) -> str:
        if not self._colour:
            return " ".join(filter(None, (time, head, rest)))
        colour = _COLOURS.get(level, _COLOURS[logging.WARNING] if failed else _GREEN)
        line = f"{_DIM}{time}{_RESET} {colour}{head}{_RESET}"
        return f"{line} {_DIM}{rest}{_RESET}" if rest else line


def _named(members: dict[str, Any]) -> Iterable[str]:
    if "account" in members and "key" in members:
        members = {"key": f"{members.pop('account')}/{members.pop('key')}", **members}
    for name, value in members.items():
        if name == "charge" and isinstance(value, int):
            yield f"charge={(Decimal(value) / _NANO).normalize():f}"
        else:
            yield f"{name}={_word(value)}"


def _word(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_word, value))
    text = str(value) if isinstance(value, (str, int, float)) else type(value).__name__
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    is_word = text.isprintable() and not any(c in ' "=' for c in text) and bool(text)
    return text if is_word else json.dumps(text, ensure_ascii=not text.isprintable())
