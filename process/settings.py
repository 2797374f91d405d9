"""Settings as a table: one row is one environment variable.

    class Settings:
        listen: Address = setting("CHAT_LISTEN", "0.0.0.0:50051", address, "Where gRPC listens.")

    read(Settings, os.environ) ──► Settings(...)            or SettingsError, naming each wrong one
    rows(Settings)             ──► the table, for documents and --help

The environment is passed in. An empty variable counts as absent.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit

_ROW: Final = "setting"
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Parser(Protocol[_T_co]):
    """Turns the text of a variable into its value; raises ValueError where it is not allowed."""

    allowed: str
    """What is allowed, as the end of the sentence "NAME must be …"."""

    def __call__(self, text: str) -> _T_co:
        """Parse `text`."""


class SettingsError(Exception):
    """At least one variable is wrong. The text has a line for each, without the value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One environment variable."""

    name: str
    default: str
    """The text that stands for an absent variable; "" where absence is a value of its own."""
    allowed: str
    meaning: str


def setting(name: str, default: str, parse: Callable[[str], _T], meaning: str) -> _T:
    """Declare a field of a settings dataclass.

    Args:
        name: The environment variable.
        default: The text taken where the variable is absent or empty.
        parse: A parser from this module, or one made with `parser`.
        meaning: One sentence for the table of settings.
    """
    allowed = cast("Parser[_T]", parse).allowed
    row = Row(name=name, default=default, allowed=allowed, meaning=meaning)
    shown = parse not in (api_key, header_key, database_url)
    # The dataclass machinery replaces the field by its value: the cast says which.
    return cast("_T", dataclasses.field(metadata={_ROW: (row, parse)}, repr=shown))


def rows(settings: type[Any]) -> tuple[Row, ...]:
    """Return the table of a settings dataclass, in the order of its fields."""
    return tuple(field.metadata[_ROW][0] for field in dataclasses.fields(settings))


def read(settings: type[_T], environment: Mapping[str, str]) -> _T:
    """Read a settings dataclass from an environment.

    Raises:
        SettingsError: one or more variables are not allowed.
    """
    values: dict[str, object] = {}
    wrong: list[str] = []
    for field in dataclasses.fields(cast("Any", settings)):
        row, parse = field.metadata[_ROW]
        try:
            values[field.name] = parse(environment.get(row.name) or row.default)
        except ValueError:
            wrong.append(f"{row.name} must be {row.allowed}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return settings(**values)


def usage(command: str, tables: tuple[type[Any], ...]) -> str:
    """Return the help of a deployable: its settings with defaults and meanings."""
    lines = [f"usage: {command}", "", "Settings are environment variables:", ""]
    for row in (row for table in tables for row in rows(table)):
        lines += [f"  {row.name} (default: {row.default or 'none'})", f"      {row.meaning}"]
    return "\n".join(lines)


def parser(allowed: str) -> Callable[[Callable[[str], _T]], Callable[[str], _T]]:
    """Decorate a function as a parser; `allowed` ends the sentence "NAME must be …"."""

    def mark(parse: Callable[[str], _T]) -> Callable[[str], _T]:
        cast("Parser[_T]", parse).allowed = allowed
        return parse

    return mark


# ------------------------------------------------------------------------------------- parsers


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen on TCP. Port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def dialable(self, port: int) -> "Address":
        """Return where a client on this machine dials, given the port that was bound."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (only looked up)
        return Address(everywhere.get(self.host, self.host), port)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError
    return int(text)


@parser("host:port, such as 127.0.0.1:8080 or [::1]:8080, with a port from 0 to 65535")
def address(text: str) -> Address:
    """Parse `host:port`, an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) != bracketed or any(c.isspace() for c in host):
        raise ValueError
    return Address(host, _port(port))


@parser("host:port, or none to switch it off")
def optional_address(text: str) -> Address | None:
    """Parse `host:port`, or "none"."""
    return None if text == "none" else address(text)


@parser("the path of a file that can be read")
def readable_file(value: str) -> str:
    """Take a path whose file can be opened, or "" where the variable is absent."""
    try:
        if value:
            Path(value).open("rb").close()
    except OSError as error:
        raise ValueError from error
    return value


@parser("a path")
def path(value: str) -> str:
    """Take a path; there need not be anything yet."""
    if not value or "\0" in value:
        raise ValueError
    return value


@parser("sqlite:///file or postgresql://user@host/database")
def database_url(value: str) -> str:
    """Take the address of a database."""
    scheme, separator, rest = value.partition("://")
    is_file = scheme == "sqlite" and rest.startswith("/") and rest.strip("/")
    if not separator or not (is_file or (scheme in {"postgres", "postgresql"} and rest)):
        raise ValueError
    return value


@parser("an amount of credits from 0 to 1000000000, with at most 9 decimals")
def credits_amount(value: str) -> Decimal:
    """Take an amount of credits, exactly."""
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        raise ValueError from error
    if not (amount.is_finite() and 0 <= amount <= 10**9 and amount == round(amount, 9)):
        raise ValueError
    return amount


@parser("a key of 16 to 256 printable ASCII characters without spaces")
def api_key(value: str) -> str:
    """Take an API key, or "" where the variable is absent."""
    if value and not (16 <= len(value) <= 256 and all("!" <= c <= "~" for c in value)):
        raise ValueError
    return value


@parser("a key of up to 16384 printable ASCII characters without a space at either end")
def header_key(value: str) -> str:
    """Take a key for another server, as weak as that server allows, or "" if there is none.

    It travels in an HTTP header, so only characters that arrive as they were sent are allowed:
    control characters would end the header, spaces at its end are cut, and other characters have
    no encoding on which servers agree (RFC 9110, section 5.5). Servers refuse a longer header.
    """
    if not (value.isascii() and value.isprintable()) or value != value.strip(" "):
        raise ValueError
    if len(value) > 16384:
        raise ValueError
    return value


@parser("an http:// or https:// address without credentials, query or fragment")
def base_url(value: str) -> str:
    """Take a base URL without its trailing slash, or "" where the variable is absent."""
    if not value:
        return value
    parts = urlsplit(value)
    if (
        not value.startswith(("http://", "https://"))
        or not parts.hostname
        or parts.port == 0
        or any(c in "?#\\@" or c.isspace() or not c.isprintable() for c in value)
    ):
        raise ValueError
    return value.rstrip("/")


def seconds(least: float, most: float) -> Callable[[str], float]:
    """Make a parser for a duration in seconds within a range, both ends included."""

    @parser(f"a number of seconds from {least:g} to {most:g}")
    def parse(value: str) -> float:
        number = float(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return parse


def integer(least: int, most: int) -> Callable[[str], int]:
    """Make a parser for an integer within a range, both ends included."""

    @parser(f"an integer from {least} to {most}")
    def parse(value: str) -> int:
        number = int(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return parse


def one_of(*names: str) -> Callable[[str], str]:
    """Make a parser for one of a few words."""

    @parser("one of " + ", ".join(names))
    def parse(value: str) -> str:
        if value not in names:
            raise ValueError
        return value

    return parse
