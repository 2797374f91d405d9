"""A string that matches a simple regular expression.

    pattern  -> branch ("|" branch)*
    branch   -> "^"? (atom quantifier?)* "$"?
    atom     -> literal | "." | [class] | escape | group
    group    -> "(" pattern ")" | "(?:" pattern ")" | "(?<name>" pattern ")"

The expression is only read, never run: no pattern makes this slow. Look-arounds, back references,
word boundaries and Unicode classes have no place in the grammar and are refused.
"""

from dataclasses import dataclass, field

MAX_LENGTH = 100_000
"""Characters of the longest string that is made."""
MAX_DEPTH = 50
"""Groups in groups."""

_DIGITS = "0123456789"
_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_SPACE = " \t\n\r\f\v"
_PRINTABLE = _WORD + " -.,:;!?'\"/\\|@#$%&*+=~^`()[]{}<>"
_SETS = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_HEX_DIGITS = {"x": 2, "u": 4}
_ATTEMPTS = 256


class UnreadablePatternError(ValueError):
    """The expression is not one of the simple ones, or no string of the length matches it."""


@dataclass(frozen=True, slots=True)
class _Characters:
    allowed: str


@dataclass(frozen=True, slots=True)
class _Repeated:
    item: "_Characters | _Group"
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class _Branch:
    items: tuple[_Repeated, ...]
    anchored_at_end: bool


@dataclass(frozen=True, slots=True)
class _Group:
    branches: tuple[_Branch, ...]


def matching(
    pattern: str, *, shortest: int = 0, longest: int | None = None, variant: int = 0
) -> str:
    """Return a string of `shortest` to `longest` characters in which the pattern is found.

    `variant` chooses among several: different numbers mostly give different strings.

    Raises:
        UnreadablePatternError: there is none, or the pattern is not a simple one.
    """
    group = _Reader(pattern).whole()
    most = MAX_LENGTH if longest is None else longest
    for branch in group.branches:
        for more in range(min(shortest, _ATTEMPTS) + 1):
            found = _write_branch(branch, more, variant)
            if len(found) < shortest and not branch.anchored_at_end:
                found += "x" * (shortest - len(found))
            if shortest <= len(found) <= most:
                return found
    raise UnreadablePatternError("no string of the allowed length was found for the pattern")


def _write(item: "_Characters | _Group", more: int, variant: int) -> str:
    if isinstance(item, _Characters):
        return item.allowed[variant % len(item.allowed)]
    return _write_branch(item.branches[variant % len(item.branches)], more, variant)


def _write_branch(branch: _Branch, more: int, variant: int) -> str:
    pieces: list[str] = []
    length = 0
    rest = variant
    for repeated in branch.items:
        count = repeated.least + more
        if repeated.most is not None:
            count = min(count, repeated.most)
        if not count:
            continue
        piece = _write(repeated.item, more, rest)
        if isinstance(repeated.item, _Characters):
            rest //= len(repeated.item.allowed)
        length += len(piece) * count
        if length > MAX_LENGTH:
            raise UnreadablePatternError("the pattern asks for too long a string")
        pieces.append(piece * count)
    return "".join(pieces)


@dataclass(slots=True)
class _Reader:
    pattern: str
    place: int = 0
    depth: int = field(default=0)

    def whole(self) -> _Group:
        group = self.group()
        if self.place < len(self.pattern):
            raise self.unreadable("an unmatched )")
        return group

    def unreadable(self, what: str) -> UnreadablePatternError:
        return UnreadablePatternError(f"the simulator does not read {what} in a pattern")

    def peek(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def take(self) -> str:
        mark = self.peek()
        if not mark:
            raise self.unreadable("an unfinished expression")
        self.place += 1
        return mark

    def skip(self, text: str) -> bool:
        if self.pattern.startswith(text, self.place):
            self.place += len(text)
            return True
        return False

    def group(self) -> _Group:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.unreadable(f"more than {MAX_DEPTH} groups in groups")
        branches = [self.branch()]
        while self.skip("|"):
            branches.append(self.branch())
        self.depth -= 1
        return _Group(tuple(branches))

    def branch(self) -> _Branch:
        items: list[_Repeated] = []
        if self.skip("^") and self.depth > 1:
            raise self.unreadable("an anchor in a group")
        while self.peek() not in ("", "|", ")"):
            if self.skip("$"):
                if self.depth > 1 or self.peek() not in ("", "|"):
                    raise self.unreadable("an anchor inside")
                return _Branch(tuple(items), anchored_at_end=True)
            items.append(self.quantified(self.atom()))
        return _Branch(tuple(items), anchored_at_end=False)

    def atom(self) -> "_Characters | _Group":
        mark = self.take()
        if mark == "(":
            return self.parenthesised()
        if mark == "[":
            return self.character_class()
        if mark == "\\":
            return _Characters(self.escaped())
        if mark == ".":
            return _Characters(_WORD)
        if mark in "*+?^{":
            raise self.unreadable(f"a {mark} here")
        return _Characters(mark)

    def parenthesised(self) -> _Group:
        if self.skip("?:"):
            pass
        elif self.skip("?<") or self.skip("?P<"):
            if self.peek() in ("=", "!"):
                raise self.unreadable("a look-behind")
            while self.take() != ">":
                pass
        elif self.peek() == "?":
            raise self.unreadable("a look-around or a flag")
        group = self.group()
        if not self.skip(")"):
            raise self.unreadable("an open group")
        return group

    def escaped(self) -> str:
        mark = self.take()
        if mark in _SETS:
            return _SETS[mark]
        if mark.lower() in _SETS:
            return _without(_SETS[mark.lower()])
        if mark in _HEX_DIGITS:
            digits = "".join(self.take() for _ in range(_HEX_DIGITS[mark]))
            try:
                return chr(int(digits, 16))
            except ValueError:
                raise self.unreadable("this escape") from None
        if mark in _CONTROLS:
            return _CONTROLS[mark]
        if mark.isalnum():
            raise self.unreadable(f"\\{mark}")
        return mark

    def character_class(self) -> _Characters:
        negated = self.skip("^")
        allowed: list[str] = []
        while self.peek() != "]":
            mark = self.take()
            first = self.escaped() if mark == "\\" else mark
            if len(first) > 1 or not self.range_follows():
                allowed.append(first)
                continue
            self.place += 1
            last = self.take()
            last = self.escaped() if last == "\\" else last
            if len(last) > 1 or last < first:
                raise self.unreadable("this range of characters")
            # The first characters of a range are as good as all of them, unless it is negated.
            end = ord(last) if negated else min(ord(last), ord(first) + 127)
            allowed.append("".join(map(chr, range(ord(first), end + 1))))
        self.place += 1
        characters = "".join(allowed)
        if negated:
            characters = _without(characters)
        if not characters:
            raise self.unreadable("a class without characters")
        return _Characters(characters)

    def range_follows(self) -> bool:
        following = self.pattern[self.place : self.place + 2]
        return len(following) == 2 and following[0] == "-" and following[1] != "]"

    def quantified(self, item: "_Characters | _Group") -> _Repeated:
        least, most = 1, 1  # type: int, int | None
        mark = self.peek()
        if mark and mark in "*+?":
            self.place += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[mark]
        elif mark == "{":
            self.place += 1
            least, most = self.bounds()
        self.skip("?")
        return _Repeated(item, least, most)

    def bounds(self) -> tuple[int, int | None]:
        inside = ""
        while (mark := self.take()) != "}":
            inside += mark
        low, comma, high = inside.partition(",")
        try:
            least = int(low)
            most = int(high) if high else None if comma else least
        except ValueError:
            raise self.unreadable("these bounds") from None
        if least < 0 or least > MAX_LENGTH or (most is not None and most < least):
            raise self.unreadable("these bounds")
        return least, most


def _without(excluded: str) -> str:
    return "".join(mark for mark in _PRINTABLE if mark not in excluded)
