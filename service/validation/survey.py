"""What a request has: found once, and read by several rules."""

from typing import Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams

Survey = frozenset[str]
"""The names of the top-level fields that are set, and `UNTYPED` if it applies."""

UNTYPED: Final = "untyped"
"""Stands for a mistyped or unknown member, at any depth. No field has this name."""


def survey_of(params: ChatCompletionParams) -> Survey:
    """Survey a request.

    Args:
        params: The parameters, canonical.
    """
    names = [field.name for field, _ in params.ListFields()]
    if not openai_json.is_typed(params):
        names.append(UNTYPED)
    return frozenset(names)
