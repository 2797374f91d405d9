"""Errors, as OpenAI's error object.

HTTP status + {"error": {"message", "type", "param", "code"}}
"""

import json
from dataclasses import dataclass
from typing import Any

INVALID_REQUEST = "invalid_request_error"


@dataclass(kw_only=True, slots=True)
class HttpError(Exception):
    """The response is an error status and an OpenAI error object."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    def body(self) -> bytes:
        """Return the body of the response."""
        return error_body(self.message, param=self.param, code=self.code)


def error_body(
    message: str,
    *,
    kind: str = INVALID_REQUEST,
    param: str | None = None,
    code: str | int | None = None,
) -> bytes:
    """Return OpenAI's error object as JSON. `kind` is its member `type`."""
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()
