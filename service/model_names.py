"""Names of models, and patterns of them: a pattern is a prefix and `*`.

matched("local/*", "local/llama3.1:8b") -> "llama3.1:8b"
allows({"local/*"}, "local/llama3.1:8b") -> True
"""

from collections.abc import Collection
from typing import Final

WILDCARD: Final = "*"
_LONGEST: Final = 256


def is_name(value: str) -> bool:
    """Return whether a text can be the name of a model: 1 to 256 printable characters."""
    return 0 < len(value) <= _LONGEST and value.isprintable()


def matched(pattern: str, name: str) -> str | None:
    """Return the part of a name that `*` stands for, or None if the pattern does not match.

    Args:
        pattern: A prefix and `*`.
        name: A name as callers send it. One with `*` or a space at its end matches nothing.
    """
    prefix = pattern.removesuffix(WILDCARD)
    if not name.startswith(prefix) or len(name) == len(prefix):
        return None
    if not is_name(name) or WILDCARD in name or name != name.strip():
        return None
    return name[len(prefix) :]


def allows(allowed: Collection[str] | None, name: str) -> bool:
    """Return whether a key that is limited to some models can use one of them.

    Args:
        allowed: Names and patterns; None allows every model.
        name: The name of a model, or a pattern, which needs the same pattern or a wider one.
    """
    if allowed is None or name in allowed:
        return True
    return any(
        entry.endswith(WILDCARD) and name.startswith(entry.removesuffix(WILDCARD))
        for entry in allowed
    )
