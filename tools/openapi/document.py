"""The whole OpenAPI document."""

import json
import tomllib
from typing import Any, Final

from tools.openapi import credits as credits_schemas
from tools.openapi import failures, quotes, routes, schemas
from tools.openapi.comments import comments
from tools.openapi.root import ROOT

PLACE: Final = ROOT / "restbridge" / "pages" / "openapi.json"
"""The file of the document, which the bridge serves."""

_DESCRIPTION: Final = """\
OpenAI's Chat Completions. OpenAI's SDKs work without modification: set their base URL to the
address of this server with the path `/v1`.

A GET route also answers HEAD. Every other path returns 404 with the code `unknown_url`, and every
other method 405 with the code `method_not_allowed`.

The server returns the response of an upstream as it is. If an upstream departs from OpenAI's
contract, so does the response. Members that this document does not describe can occur in every
object.
"""

_TAGS: Final = {
    "Chat": "Completions, whole or streamed.",
    "Models": "The models that a caller can use.",
    "Credits": "The caller's own account.",
    "Health": "The state of the server.",
}


def text() -> str:
    """Return the document as the text of its file."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def document() -> dict[str, Any]:
    """Return the document."""
    about = comments()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": project["name"],
            "version": project["version"],
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": routes.paths(about),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The API key.",
                }
            },
            "parameters": {
                "x-request-id": _header(
                    "x-request-id",
                    "The id of the request. If it is absent or invalid, the server creates one.",
                    r"^[A-Za-z0-9._-]{1,128}$",
                ),
                "idempotency-key": _header(
                    "idempotency-key",
                    "A new value for each request. A repeated request with the same value and body "
                    "gets the same answer and costs nothing.",
                    r"^[ -~]{1,255}$",
                ),
                "last-event-id": _header(
                    "last-event-id",
                    "The id of the last event that was received from a stream with the same "
                    "idempotency key. The stream begins after it.",
                    r"^[0-9A-Za-z_]{1,64}-[0-9]{1,9}$",
                ),
                "traceparent": _header(
                    "traceparent",
                    "W3C Trace Context, which is forwarded to the upstream.",
                    r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
                ),
                "tracestate": _header("tracestate", "The vendors' part of W3C Trace Context."),
                "baggage": _header("baggage", "W3C Baggage, which is forwarded to the upstream."),
            },
            "headers": failures.headers(),
            "schemas": {
                **schemas.schemas(about),
                **credits_schemas.schemas(about),
                **quotes.schemas(about),
                "ErrorResponse": {
                    "type": "object",
                    "description": "The body of each failed request.",
                    "required": ["error"],
                    "properties": {"error": schemas.reference("chatcompletion.v1.ApiError")},
                },
                "Health": _status("ok"),
                "Readiness": _status("ready"),
            },
        },
    }


def _header(name: str, description: str, pattern: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string", **({"pattern": pattern} if pattern else {})},
    }


def _status(value: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "The state of the server.",
        "required": ["status"],
        "properties": {"status": {"const": value}},
    }
