"""What a request has: found once, and read by several rules."""

from typing import Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams

Survey = frozenset[str]
"""The names of the top-level fields that are set, and `UNTYPED` if it applies."""

UNTYPED: Final = "untyped"
"""Stands for a mistyped or unknown member, at any depth. No field has this name."""


def survey_of(params: ChatCompletionParams, data: bytes | None = None) -> Survey:
    """Survey a request.

    Args:
        params: The parameters, canonical.
        data: The parameters, serialized, if they are.
    """
    names = [field.name for field, _ in params.ListFields()]
    if not openai_json.is_typed(params, params.SerializeToString() if data is None else data):
        names.append(UNTYPED)
    return frozenset(names)
