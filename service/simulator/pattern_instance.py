"""Generates a string that matches a regular expression. The expression is parsed, never run.

pattern -> the standard library's parse tree -> first branch, fewest repetitions, first character
"""

import re
import string
from collections.abc import Callable
from itertools import chain
from re import _constants as ops  # type: ignore[attr-defined]  # the parse tree is not public
from re import _parser  # type: ignore[attr-defined]
from typing import Any

_ASCII = string.ascii_letters + string.digits + string.punctuation + " "
_CATEGORIES = {
    _parser.parse(escape)[0][1][0][1]: re.compile(escape).match
    for escape in (r"\d", r"\D", r"\s", r"\S", r"\w", r"\W")
}


class UnsatisfiableError(Exception):
    """The simulator finds no value that satisfies the schema or pattern."""


def matching(pattern: str, *, charge: Callable[[int], None]) -> str:
    """Return a short string that contains a match of the pattern.

    Args:
        pattern: The regular expression.
        charge: Called with the cost of each step before it. Its exception ends the work.

    Raises:
        UnsatisfiableError: The pattern is invalid, or has a look-around, back reference, word
            boundary, flag, inner anchor or empty class.
    """
    charge(len(pattern))
    try:
        tree = _parser.parse(pattern)
    except (re.error, OverflowError) as exc:
        raise UnsatisfiableError(f"'{pattern}' is not a valid pattern: {exc}") from None
    if tree.state.flags & ~ops.SRE_FLAG_UNICODE:
        raise UnsatisfiableError("a pattern cannot have flags")
    text: list[str] = []
    _write(tree, text, charge)
    return "".join(text)


def _write(tree: Any, text: list[str], charge: Callable[[int], None]) -> None:
    """Append a character for each atom, and an empty string if the text must end there."""
    for op, argument in tree:
        charge(1)
        if op in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN) and text[-1:] != [""]:
            text.append(_character(argument if op is ops.IN else [(op, argument)], charge))
        elif op is ops.BRANCH:
            _write(argument[1][0], text, charge)
        elif op is ops.SUBPATTERN and not argument[1] and not argument[2]:
            _write(argument[3], text, charge)
        elif op in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            for _ in range(argument[0]):
                charge(1)
                _write(argument[2], text, charge)
        elif op is ops.AT and argument in (ops.AT_END, ops.AT_END_STRING):
            text.append("")
        elif op is not ops.AT or argument is not ops.AT_BEGINNING or text:
            raise UnsatisfiableError(f"{op} in a pattern is not supported at its place")


def _character(parts: list[tuple[Any, Any]], charge: Callable[[int], None]) -> str:
    """Return a character of a class, or one outside it if the class is negated."""
    negated = parts[0][0] in (ops.NEGATE, ops.NOT_LITERAL)
    charge(len(parts) * (len(_ASCII) if negated else 1))
    codes = [code[0] if kind is ops.RANGE else code for kind, code in parts]
    starts = (chr(code) for code in codes if type(code) is int and not negated)
    for mark in chain(starts, _ASCII):
        if any(_is(mark, *part) for part in parts) is not negated:
            return mark
    raise UnsatisfiableError("no character was found for a class of a pattern")


def _is(mark: str, kind: Any, argument: Any) -> bool:
    if kind is ops.CATEGORY:
        return _CATEGORIES[argument](mark) is not None
    if kind is ops.RANGE:
        return bool(argument[0] <= ord(mark) <= argument[1])
    return kind is ops.ANY or argument == ord(mark)
