"""How an error about a setting shows the value that it found: shortened, and never a secret.

found("nowhere") -> "nowhere"    found("sk-…") -> a value of 51 characters, which is not shown
"""

import json
import re
from typing import Final

_LONGEST: Final = 80

_SECRET: Final = re.compile(
    r"""
    (?i: \b(sk|pk|rk|gsk|hf|xai|ghp|glpat|api|key|token|bearer|basic|eyj) [-_\ ] [\w-]{6} )
    | [@?]                                            # credentials or a query in a URL
    | (?=[\w+=-]*[0-9]) (?=[\w+=-]*[A-Za-z]) [\w+=-]{24}  # a long run of letters and digits
    """,
    re.VERBOSE,
)
"""Matches a text that can hold a secret, also one pasted into a variable for something else."""


def found(value: object, *, is_secret: bool = False) -> str:
    """Return a value as errors show it.

    Args:
        value: A text, or a value of TOML.
        is_secret: Whether the place is one for secrets.
    """
    text = value if isinstance(value, str) else str(value)
    if is_secret or _SECRET.search(text):
        return f"a value of {len(text)} characters, which is not shown"
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return (
        json.dumps(shown, ensure_ascii=not shown.isprintable()) if isinstance(value, str) else shown
    )
