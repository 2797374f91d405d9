"""The settings of events: where they are sent, how they are signed, what they report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from process.otel_settings import OtelSettings
from process.settings import header_key, parser, readable_file, seconds, setting
from service.webhooks import signatures

DEFAULT_THRESHOLDS: Final = "50,80,100"

_MOST_SECRETS: Final = 5
_MOST_THRESHOLDS: Final = 10
_LONGEST_SOURCE: Final = 256


@parser(
    "an http:// or https:// address without credentials and fragment",
    "https://hooks.example/chat",
    is_secret=True,  # the paths and queries of some receivers have a token
)
def receiver_url(value: str) -> str:
    """Parse the URL of a receiver of events, or "" if the variable is absent."""
    if not value:
        return value
    parts = urlsplit(value)
    if (
        not value.startswith(("http://", "https://"))
        or not parts.hostname
        or parts.port == 0
        or any(c in "#\\" or c.isspace() or not "!" <= c <= "~" for c in value)
        or "@" in parts.netloc
    ):
        raise ValueError
    return value


@parser(
    "up to 5 secrets of Standard Webhooks, separated by commas: whsec_ and the base64 of 24 to 64 "
    "bytes",
    "whsec_$(openssl rand -base64 32)",
    is_secret=True,
)
def secrets(value: str) -> tuple[bytes, ...]:
    """Parse secrets, and return their keys."""
    texts = [text.strip() for text in value.split(",")] if value else []
    if len(texts) > _MOST_SECRETS:
        raise ValueError
    return tuple(map(signatures.key, texts))


@parser("up to 10 different percentages from 1 to 100, separated by commas, or none")
def thresholds(value: str) -> tuple[int, ...]:
    """Parse percentages, and return them in their order."""
    if value == "none":
        return ()
    numbers = [int(text) for text in value.split(",")]
    if (
        len(numbers) > _MOST_THRESHOLDS
        or len(set(numbers)) < len(numbers)
        or not all(1 <= number <= 100 for number in numbers)
    ):
        raise ValueError
    return tuple(sorted(numbers))


def thresholds_of(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the thresholds of an environment; None if events are off.

    Raises:
        ValueError: The setting is wrong.
    """
    if not environment.get("CHAT_EVENTS_URL"):
        return None
    return thresholds(environment.get("CHAT_EVENTS_THRESHOLDS") or DEFAULT_THRESHOLDS)


@parser("a URI or a path of up to 256 ASCII characters without spaces")
def source(value: str) -> str:
    """Parse the source of events, which is a URI reference."""
    if len(value) > _LONGEST_SOURCE or not all(
        "!" <= c <= "~" and c not in '"<>\\^`{|}' for c in value
    ):
        raise ValueError
    urlsplit(value)
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class EventSettings(OtelSettings):
    """The settings of events, and those of OpenTelemetry."""

    events_url: str = setting(
        "CHAT_EVENTS_URL",
        "",
        receiver_url,
        "The URL to which events are sent; without it, events are off.",
    )
    events_secrets: tuple[bytes, ...] = setting(
        "CHAT_EVENTS_SECRETS",
        "",
        secrets,
        "The secrets with which events are signed, the newest first, separated by commas.",
    )
    events_authorization: str = setting(
        "CHAT_EVENTS_AUTHORIZATION",
        "",
        header_key,
        "The header `authorization` of events, such as `Bearer` and a token.",
    )
    events_source: str = setting(
        "CHAT_EVENTS_SOURCE",
        "/chatcompletion",
        source,
        "The `source` of events, which names this deployment.",
    )
    events_thresholds: tuple[int, ...] = setting(
        "CHAT_EVENTS_THRESHOLDS",
        DEFAULT_THRESHOLDS,
        thresholds,
        "The percentages of credit and budgets whose use is reported as an event; `none` for none.",
    )
    events_timeout: float = setting(
        "CHAT_EVENTS_TIMEOUT",
        "10",
        seconds(0.05, 60),
        "Maximum duration of an attempt to send an event, in seconds.",
    )
    events_max_age: float = setting(
        "CHAT_EVENTS_MAX_AGE",
        "259200",
        seconds(1, 2_592_000),
        "How long an event is sent again before it is dead, in seconds.",
    )
    events_ca_file: str = setting(
        "CHAT_EVENTS_CA_FILE",
        "",
        readable_file,
        "A PEM file of certificate authorities for CHAT_EVENTS_URL, instead of the default ones.",
    )
