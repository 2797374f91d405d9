"""Names of models, and patterns of them: a pattern is a prefix and `*`.

matched("local/*", "local/llama3.1:8b") -> "llama3.1:8b"
allows({"local/*"}, "local/llama3.1:8b") -> True
"""

from collections.abc import Collection, Iterable
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


def unknown(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return the names and patterns with which no call could name one of the known models.

    Args:
        names: Names and patterns of models, such as a key is limited to.
        known: The names and patterns of the models that exist.
    """
    return [name for name in names if not any(_meets(name, entry) for entry in known)]


def _meets(name: str, entry: str) -> bool:
    """Whether two names or patterns stand for a common name."""
    if not name.endswith(WILDCARD):
        return matched(entry, name) is not None if entry.endswith(WILDCARD) else name == entry
    prefix, other = name.removesuffix(WILDCARD), entry.removesuffix(WILDCARD)
    return other.startswith(prefix) or (entry.endswith(WILDCARD) and prefix.startswith(other))


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
