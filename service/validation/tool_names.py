"""The names of tools: those of OpenAI's contract, or any that the model's upstream accepts.

    unaccepted(params, model) -> the violations of the names of tools and functions

MCP servers name tools with dots, slashes and colons, and with more than 64 characters.
"""

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from chatcompletion.default_messages import quoted
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.errors import MOST_VIOLATIONS, Violation
from service.models import Model
from service.validation.wording import invalid

PLAIN: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Matches the names of OpenAI's contract."""

LONGEST: Final = 256
"""Maximum characters of a name that an upstream with other names accepts."""


def unaccepted(params: ChatCompletionParams, model: Model) -> list[Violation]:
    """Return the first violations of the names of tools and functions.

    Args:
        params: The parameters, canonical and within the contract.
        model: The model, whose `tool_names` selects the accepted names.
    """
    if not params.tools and not params.functions:
        return []
    is_accepted = PLAIN.fullmatch if model.tool_names == "openai" else _is_short
    wrong = (pair for pair in _names(params) if pair[1] and not is_accepted(pair[1]))
    return [misnamed(path, name, model) for path, name in islice(wrong, MOST_VIOLATIONS)]


def _is_short(name: str) -> bool:
    return len(name) <= LONGEST and name.isprintable()


def _names(params: ChatCompletionParams) -> Iterator[tuple[str, str]]:
    return chain(
        (
            (f"tools[{at}].function.name", tool.function.name)
            for at, tool in enumerate(params.tools)
        ),
        ((f"functions[{at}].name", each.name) for at, each in enumerate(params.functions)),
    )


def misnamed(path: str, name: str, model: Model | None = None) -> Violation:
    """Return the violation of a name.

    Args:
        path: The path of the name.
        name: The name.
        model: The model whose `tool_names` selects the accepted names; None for OpenAI's.
    """
    if model is None or model.tool_names == "openai":
        expected = "1 to 64 characters of a-z, A-Z, 0-9, _ and -"
    else:
        expected = f"1 to {LONGEST} printable characters"
    return invalid(path, f"expected {expected}, but got {quoted(name)}.")
