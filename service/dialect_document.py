"""The members of a dialect in the document of models: their entries, and their values.

    table of an upstream or a model -> `members` -> `dialect` -> Dialect

An absent member of an upstream has the default of `Dialect`; that of a model, the upstream's value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from process.settings import header_key
from service.upstream_dialect import CACHED_TOKENS, STREAM_ENDS, STREAM_OPTIONS, Dialect

_LONGEST: Final = 3600
"""Maximum seconds."""
_LONGEST_VALUE: Final = 4096
_MOST_ENTRIES: Final = 32
_TOKEN_CHARACTERS: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_FRAMING: Final = frozenset(
    {
        *("host", "content-length", "content-type", "transfer-encoding", "connection", "te"),
        *("accept", "accept-encoding", "expect", "upgrade", "trailer"),
    }
)
"""Headers that a request needs as the service sends them."""


class DialectError(ValueError):
    """The value of an environment variable cannot be a header. The text names the variable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DialectEntry:
    """One member of a dialect."""

    allowed: str
    accepts: Callable[[Any], bool]
    default: str
    """The default, for people."""
    meaning: str
    """What the member selects, for people."""


def _is_number(value: Any, least: str) -> bool:
    if type(value) not in (int, Decimal) or not Decimal(value).is_finite():
        return False
    return bool(Decimal(least) <= value <= _LONGEST)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_VALUE and value.isprintable()


def _is_texts(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= _MOST_ENTRIES
        and all(_is_text(name) and _is_text(text) for name, text in value.items())
    )


def _is_headers(value: Any) -> bool:
    return _is_texts(value) and all(
        _TOKEN_CHARACTERS.issuperset(name) and name.lower() not in _FRAMING and text.isascii()
        for name, text in value.items()
    )


_SECONDS: Final = "seconds from 0.05 to 3600"
_HEADERS: Final = "a table of names and values of headers, except those that frame a request"

ENTRIES: Final[Mapping[str, DialectEntry]] = {
    "stream_end": DialectEntry(
        allowed='"lenient" or "strict"',
        accepts=lambda value: value in STREAM_ENDS,
        default='"lenient"',
        meaning="What completes a stream",
    ),
    "stream_options": DialectEntry(
        allowed='"auto" or "never"',
        accepts=lambda value: value in STREAM_OPTIONS,
        default='"auto"',
        meaning="Whether the service asks for usage with `stream_options`: until the upstream "
        "refuses it, or never. Without it, usage is counted unless the upstream sends it",
    ),
    "keepalive": DialectEntry(
        allowed="seconds from 0 to 3600",
        accepts=lambda value: _is_number(value, "0"),
        default="1.5",
        meaning="How long an idle connection is kept, in seconds; 0 closes each after its response",
    ),
    "first_byte_timeout": DialectEntry(
        allowed=_SECONDS,
        accepts=lambda value: _is_number(value, "0.05"),
        default="`CHAT_UPSTREAM_FIRST_BYTE_TIMEOUT`",
        meaning="Maximum wait for the first event of a stream, in seconds",
    ),
    "idle_timeout": DialectEntry(
        allowed=_SECONDS,
        accepts=lambda value: _is_number(value, "0.05"),
        default="`CHAT_UPSTREAM_IDLE_TIMEOUT`",
        meaning="Maximum silence within a response, in seconds",
    ),
    "finish_reasons": DialectEntry(
        allowed="a table of finish reasons of the upstream and those that callers get",
        accepts=_is_texts,
        default="none",
        meaning='Finish reasons of the upstream and those that callers get: `{ eos = "stop" }`',
    ),
    "hide_cost": DialectEntry(
        allowed="true or false",
        accepts=lambda value: isinstance(value, bool),
        default="true if the model has a price",
        meaning="Whether the service removes the costs from the upstream's usage, such as `cost`: "
        "they show what the operator pays",
    ),
    "cached_tokens": DialectEntry(
        allowed='"inside" or "outside"',
        accepts=lambda value: value in CACHED_TOKENS,
        default='"inside"',
        meaning="Whether the upstream's `prompt_tokens` contains the tokens that it read from its "
        "prompt cache or wrote to it, as OpenAI's does, or not, as Anthropic's",
    ),
    "headers": DialectEntry(
        allowed=_HEADERS,
        accepts=_is_headers,
        default="none",
        meaning='Headers of each request: `{ "x-portkey-provider" = "openai" }`',
    ),
    "header_variables": DialectEntry(
        allowed="a table of names of headers and of environment variables that are set",
        accepts=_is_headers,
        default="none",
        meaning="Headers whose values are secrets, and the environment variables that hold them: "
        '`{ "api-key" = "AZURE_API_KEY" }`',
    ),
    "query": DialectEntry(
        allowed="a table of names and values of query parameters",
        accepts=_is_texts,
        default="none",
        meaning='Query parameters of each request: `{ "api-version" = "2024-10-21" }`',
    ),
}
"""The members, in the order of the documentation."""


def dialect(members: Mapping[str, Any], base: Dialect, environment: Mapping[str, str]) -> Dialect:
    """Return a dialect with these members, and otherwise those of another dialect.

    Args:
        members: The members that a table sets, accepted by their entries.
        base: The dialect of the upstream, or the default one.
        environment: The environment with the values of `header_variables`.

    Raises:
        DialectError: A variable is not set, or its value cannot be a header.
    """
    changes: dict[str, Any] = {
        name: members[name]
        for name in ("stream_end", "stream_options", "finish_reasons", "cached_tokens")
        if name in members
    }
    for name in ("keepalive", "first_byte_timeout", "idle_timeout"):
        if name in members:
            changes[name] = float(members[name])
    if "hide_cost" in members:
        changes["hides_cost"] = members["hide_cost"]
    if "query" in members:
        changes["query"] = urlencode(members["query"])
    if "headers" in members or "header_variables" in members:
        secrets = _secrets(members.get("header_variables", {}), environment)
        named = {**members.get("headers", {}), **secrets}
        added = {
            name.lower().encode(): text.encode(errors="surrogateescape")
            for name, text in named.items()
        }
        changes["headers"] = tuple({**dict(base.headers), **added}.items())
        changes["secrets"] = (*base.secrets, *secrets.values())
    return replace(base, **changes)


def _secrets(variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for name, variable in variables.items():
        try:
            values[name] = header_key(environment.get(variable, ""))
        except ValueError:
            raise DialectError(f"{variable} cannot be the value of a header") from None
        if not values[name]:
            raise DialectError(f"{variable} is not set. Write: export {variable}=VALUE")
    return values
