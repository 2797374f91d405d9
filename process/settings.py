"""Settings as a table: one row is one environment variable.

    class Settings:
        listen: Address = setting("CHAT_LISTEN", "0.0.0.0:50051", address, "Where gRPC listens.")

    read(Settings, os.environ) -> Settings(...)    or SettingsError, with a line for each error
    parse(Settings, os.environ) -> the values and the errors, to list them with others
    rows(Settings)             -> the table, for the documentation and --help

Callers pass the environment in. An empty variable counts as absent.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast
from unicodedata import category
from urllib.parse import urlsplit

from process.found_values import found

MOST_WORKERS: Final = 256
"""The largest number of processes on one port."""

UNIX: Final = "unix:"
"""The prefix of the address of a UNIX domain socket."""

_LONGEST_PATH: Final = 107
"""Bytes of the path of a UNIX domain socket (unix(7))."""

_ROW: Final = "setting"
_POSTGRES: Final = frozenset({"postgres", "postgresql", "postgresql+psycopg"})
"""The schemes of PostgreSQL; the last is that of SQLAlchemy."""
_CONTROLS: Final = frozenset({"Cc", "Zl", "Zp"})
"""The Unicode categories of control characters and separators of lines and paragraphs."""
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Parser(Protocol[_T_co]):
    """Parses the text of a variable. Raises ValueError if the text is not allowed."""

    allowed: str
    """The allowed values, as the end of the sentence "NAME must be …"."""
    example: str
    """A valid text, for errors about a variable without a default; "" for none."""
    is_secret: bool
    """Whether its values are never shown."""

    def __call__(self, text: str) -> _T_co:
        """Parse `text`."""


class SettingsError(Exception):
    """At least one setting is wrong. The text has a line for each error, without any secret.

    Args:
        lines: The errors.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One environment variable."""

    name: str
    default: str
    """The text that is parsed if the variable is absent; "" if absence has its own meaning."""
    allowed: str
    meaning: str


def setting(name: str, default: str, parse: Callable[[str], _T], meaning: str) -> _T:
    """Declare a field of a settings dataclass.

    Args:
        name: The environment variable.
        default: The text that is parsed if the variable is absent or empty.
        parse: A parser from this module, or one made with `parser`.
        meaning: One sentence for the table of settings.
    """
    allowed = cast("Parser[_T]", parse).allowed
    row = Row(name=name, default=default, allowed=allowed, meaning=meaning)
    shown = parse is not database_url and not cast("Parser[_T]", parse).is_secret
    # dataclasses replaces the field with its value, which has type _T.
    return cast("_T", dataclasses.field(metadata={_ROW: (row, parse)}, repr=shown))


def rows(settings: type[Any]) -> tuple[Row, ...]:
    """Return the table of a settings dataclass: its own fields in their order, then inherited."""
    return tuple(field.metadata[_ROW][0] for field in _fields(settings))


def _fields(settings: type[Any]) -> "list[dataclasses.Field[Any]]":
    own = settings.__annotations__
    return sorted(dataclasses.fields(settings), key=lambda field: field.name not in own)


def read(settings: type[_T], environment: Mapping[str, str]) -> _T:
    """Read a settings dataclass from an environment.

    Raises:
        SettingsError: One or more variables are not allowed.
    """
    values, wrong = parse(settings, environment)
    if wrong:
        raise SettingsError(*wrong)
    return settings(**values)


def values_of(settings: Any) -> dict[str, Any]:
    """Return the values of a settings dataclass by field."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def parse(settings: type[Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the valid values by field, and a line for each variable that is not allowed."""
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for field in _fields(settings):
        row, parse_text = field.metadata[_ROW]
        text = environment.get(row.name) or row.default
        try:
            values[field.name] = parse_text(text)
        except ValueError:
            wrong.append(_wrong(row, parse_text, text))
    return values, wrong


def _wrong(row: Row, parse_text: Parser[Any], text: str) -> str:
    quoted = found(text, is_secret=parse_text.is_secret)
    example = row.default or parse_text.example
    hint = f". Write for example: {row.name}={example}" if example else ""
    return f"{row.name} must be {row.allowed}; found {quoted}{hint}"


def usage(command: str, tables: tuple[type[Any], ...]) -> str:
    """Return the help of a deployable: its settings with defaults and meanings."""
    introduction = "Settings are environment variables; docs/configuration.md has this table:"
    lines = [f"usage: {command}", "", introduction, ""]
    for row in {row.name: row for table in tables for row in rows(table)}.values():
        lines += [f"  {row.name} (default: {row.default or 'none'})", f"      {row.meaning}"]
    return "\n".join(lines)


def parser(
    allowed: str, example: str = "", *, is_secret: bool = False
) -> Callable[[Callable[[str], _T]], Callable[[str], _T]]:
    """Decorate a function as a parser.

    Args:
        allowed: The end of the sentence "NAME must be …".
        example: A valid text, for a variable without a default.
        is_secret: Whether its values are never shown.
    """

    def mark(parse: Callable[[str], _T]) -> Callable[[str], _T]:
        cast("Parser[_T]", parse).allowed = allowed
        cast("Parser[_T]", parse).example = example
        cast("Parser[_T]", parse).is_secret = is_secret
        return parse

    return mark


# ------------------------------------------------------------------------------------- parsers


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen on. Port 0 takes a free port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def bound(self, port: int) -> "Address":
        """Return the address with the port that was bound."""
        return Address(self.host, port)

    def dialable(self, port: int) -> "Address":
        """Return the address for clients on this machine, with the port that was bound."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (only looked up)
        return Address(everywhere.get(self.host, self.host), port)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A UNIX domain socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"{UNIX}{self.path}"

    def bound(self, _port: int) -> "UnixAddress":
        """Return the address itself, which has no port."""
        return self

    def dialable(self, _port: int) -> "UnixAddress":
        """Return the address itself, which only clients on this machine can dial."""
        return self


Listen: TypeAlias = Address | UnixAddress
"""An address of a listener."""


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


@parser(
    "host:port, such as 127.0.0.1:8080 or [::1]:8080, with a port from 0 to 65535, or unix:PATH "
    "with a path of up to 107 bytes"
)
def listen_address(text: str) -> Listen:
    """Parse `host:port`, or `unix:PATH`."""
    if not text.startswith(UNIX):
        return address(text)
    path = text.removeprefix(UNIX)
    if (
        not 0 < len(path.encode(errors="surrogateescape")) <= _LONGEST_PATH
        or not path.isprintable()
    ):
        raise ValueError
    if path.endswith("/") or any(c.isspace() for c in path):
        raise ValueError
    return UnixAddress(path)


@parser("host:port, unix:PATH, or none to switch it off")
def optional_address(text: str) -> Listen | None:
    """Parse `host:port`, `unix:PATH`, or "none"."""
    return None if text == "none" else listen_address(text)


@parser("the path of a file that can be read")
def readable_file(value: str) -> str:
    """Parse the path of a readable file, or "" if the variable is absent."""
    try:
        if value:
            Path(value).open("rb").close()
    except OSError as error:
        raise ValueError from error
    return value


@parser("a path")
def optional_path(value: str) -> str:
    """Parse the path of a file that is read later, or "" if the variable is absent."""
    if "\0" in value:
        raise ValueError
    return value


@parser("a path")
def path(value: str) -> str:
    """Parse a path. It does not have to exist."""
    if not value or "\0" in value:
        raise ValueError
    return value


@parser("sqlite:///file or postgresql://user@host/database")
def database_url(value: str) -> str:
    """Parse the URL of a database."""
    scheme, separator, rest = value.partition("://")
    is_file = scheme == "sqlite" and rest.startswith("/") and rest.strip("/")
    if not separator or not (is_file or (scheme in _POSTGRES and rest)):
        raise ValueError
    return value


@parser("an amount of credits from 0 to 1000000000, with at most 9 decimals")
def credits_amount(value: str) -> Decimal:
    """Parse an amount of credits exactly."""
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        raise ValueError from error
    if not (amount.is_finite() and 0 <= amount <= 10**9 and amount == round(amount, 9)):
        raise ValueError
    return amount


@parser(
    "a key of 16 to 256 printable ASCII characters without spaces",
    "$(openssl rand -hex 24)",
    is_secret=True,
)
def api_key(value: str) -> str:
    """Parse an API key, or "" if the variable is absent."""
    if value and not (16 <= len(value) <= 256 and all("!" <= c <= "~" for c in value)):
        raise ValueError
    return value


@parser(
    "a key of up to 16384 characters without line breaks and control characters", is_secret=True
)
def header_key(value: str) -> str:
    """Parse the key of an upstream, or "" if the variable is absent.

    The key is sent in an HTTP header, which control characters would end or corrupt (RFC 9110,
    section 5.5). Servers remove spaces at the ends of a header, so they are removed here. Servers
    reject longer headers. Every other key is valid, because the upstream decides.
    """
    if len(value) > 16384 or any(category(c) in _CONTROLS for c in value):
        raise ValueError
    return value.strip(" ")


@parser(
    "an http:// or https:// address without credentials, query or fragment",
    "http://127.0.0.1:11434/v1",
)
def base_url(value: str) -> str:
    """Parse a base URL without its trailing slash, or "" if the variable is absent."""
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
    """Return a parser for a duration in seconds, from `least` to `most`."""

    @parser(f"a number of seconds from {least:g} to {most:g}")
    def parse(value: str) -> float:
        number = float(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return parse


def integer(least: int, most: int) -> Callable[[str], int]:
    """Return a parser for an integer from `least` to `most`."""

    @parser(f"an integer from {least} to {most}")
    def parse(value: str) -> int:
        number = int(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return parse


@parser("on or off")
def switch(text: str) -> bool:
    """Parse whether something is on."""
    if text not in {"on", "off"}:
        raise ValueError
    return text == "on"


def one_of(*names: str) -> Callable[[str], str]:
    """Return a parser that accepts one of these words."""

    @parser("one of " + ", ".join(names))
    def parse(value: str) -> str:
        if value not in names:
            raise ValueError
        return value

    return parse
