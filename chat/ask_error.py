"""Why there is no answer, as one line for a person. Pure.

{"error": {"message": "Invalid 'n': …", "param": "n"}}  ->  Invalid 'n': … (parameter n)
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

FAILED: Final = 1
"""The exit status if the server refused the request or the answer broke off."""
UNREACHABLE: Final = 3
"""The exit status if there was no connection to the server."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST: Final = 1000


class AskError(Exception):
    """There is no answer, or only a part of it.

    Args:
        message: The reason, as the server gave it.
        param: The path of the parameter at fault, or "".
        retry_after: Seconds until the same request can succeed, or None.
        status: The exit status.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str = "",
        retry_after: float | None = None,
        status: int = FAILED,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.status = status

    def line(self) -> str:
        """Return the error on one line of some 2,000 characters at most.

        What the message itself says is not repeated.
        """
        notes = []
        if self.param and f"'{self.param}'" not in self.message:
            notes.append(f"parameter {_on_one_line(self.param)}")
        if self.retry_after is not None and "again in" not in self.message:
            notes.append(f"try again in {self.retry_after:g} s")
        return _on_one_line(self.message) + (f" ({', '.join(notes)})" if notes else "")


def of_object(error: Any, *, retry_after: float | None = None, otherwise: str) -> AskError:
    """Return the error for the member `error` of a document.

    Args:
        error: OpenAI's error object. Other servers send a text, or nothing.
        retry_after: Seconds, or None.
        otherwise: The message if the object has none.
    """
    if not isinstance(error, Mapping):
        error = {"message": error}
    message, param = error.get("message"), error.get("param")
    return AskError(
        message if isinstance(message, str) and message else otherwise,
        param=param if isinstance(param, str) else "",
        retry_after=retry_after,
    )


def of_response(status: int, headers: Mapping[str, str], body: bytes, url: str) -> AskError:
    """Return the error for an HTTP response without an answer.

    Args:
        status: The HTTP status.
        headers: The headers, by names in lower case.
        body: The beginning of the body, or all of it.
        url: The URL that was called.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    error = document.get("error") if isinstance(document, Mapping) else None
    return of_object(
        error, retry_after=_retry_after(headers), otherwise=f"HTTP status {status} from {url}"
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of the headers. The date form of Retry-After is ignored."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value := headers.get(name, "")):
            return float(value) / unit
    return None


def printable(text: str) -> str:
    """Return a text without the control characters by which it could command a terminal."""
    return _CONTROL.sub("�", text.replace("\r\n", "\n"))


def _on_one_line(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
