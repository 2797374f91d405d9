"""The schema of POST /v1/chat/completions/quote, which `restbridge.quote_route` writes.

The document has the members of QuoteChatCompletionResponse under its own names. This module lists
the names and takes the descriptions from the comments.
"""

from collections.abc import Mapping
from typing import Final

from tools.openapi.credits import Schema, amount, closed, worth

_INTEGER: Final[Schema] = {"type": "integer", "format": "int64"}
_STRING: Final[Schema] = {"type": "string"}
_QUOTE: Final = "QuoteChatCompletionResponse"


def schemas(comments: Mapping[str, str]) -> dict[str, Schema]:
    """Return the schema of the document and of its parts, by name.

    Args:
        comments: The comments of the messages and fields, by full name.
    """

    def about(field: str) -> str:
        return comments[f"chatcompletion.v1.{field}"]

    def optional(field: str, kind: Schema) -> Schema:
        return {"description": about(field), **kind, "type": [kind["type"], "null"]}

    return {
        "Quote": closed(
            "What a completion would hold now, and whether it would be admitted.",
            {
                "object": {
                    "description": 'Always "chat.completion.quote".',
                    "const": "chat.completion.quote",
                },
                "model": {"description": about(f"{_QUOTE}.model"), **_STRING},
                **amount("hold", about(f"{_QUOTE}.hold_nano_credits")),
                **worth("hold_worth", about(f"{_QUOTE}.hold_worth"), about),
                "prompt_tokens": {"description": about(f"{_QUOTE}.prompt_tokens"), **_INTEGER},
                "completion_tokens": {
                    "description": about(f"{_QUOTE}.completion_tokens"),
                    **_INTEGER,
                },
                **amount("available", about(f"{_QUOTE}.available_nano_credits")),
                "largest_max_tokens": optional(f"{_QUOTE}.largest_max_tokens", _INTEGER),
                "rejection": {
                    "description": about(f"{_QUOTE}.rejection"),
                    "oneOf": [{"$ref": "#/components/schemas/QuotedRejection"}, {"type": "null"}],
                },
            },
        ),
        "QuotedRejection": closed(
            about("QuotedRejection"),
            {
                "code": {"description": "The `code` of the error.", **_STRING},
                "message": {"description": about("QuotedRejection.message"), **_STRING},
                "scope": {
                    "description": about("QuotedRejection.scope"),
                    "enum": ["account", "api_key"],
                },
                "limit": {"description": about("QuotedRejection.limit"), **_STRING},
                "retry_at": optional("QuotedRejection.retry_time", _INTEGER),
            },
        ),
    }
