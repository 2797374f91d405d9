"""The bridge's settings: one row is one environment variable."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from process.log import FORMATS, LEVELS
from process.otel_settings import OtelSettings
from process.settings import (
    MOST_WORKERS,
    Listen,
    address,
    integer,
    listen_address,
    one_of,
    optional_address,
    optional_path,
    parser,
    seconds,
    setting,
    switch,
)

_ORIGIN: Final = re.compile(
    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?"
)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")
_UNIX: Final = "unix:"
_DNS: Final = "dns:///"
_LIST: Final = "ipv4:"

SEVERAL: Final = (_DNS, _LIST)
"""The prefixes of targets that can name several replicas. A plain name gets the first."""


@parser("host:port, unix:PATH, dns:///host:port or ipv4:IP:port,IP:port")
def target(text: str) -> str:
    """Parse the gRPC target of a service. A name stands for all of its addresses."""
    if text.startswith(_UNIX):
        if not text.removeprefix(_UNIX) or any(c.isspace() for c in text):
            raise ValueError
        return text
    if text.startswith(_LIST):
        for one in text.removeprefix(_LIST).split(","):
            IPv4Address(address(one).host)
        return text
    plain = text.removeprefix(_DNS)
    address(plain)
    return _DNS + plain


@parser("origins such as https://chat.example separated by commas, or *")
def origins(text: str) -> tuple[str, ...]:
    """Parse a list of web origins; empty if the variable is absent."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names != ("*",) and not all(_ORIGIN.fullmatch(name) for name in names):
        raise ValueError
    return names


@parser("a name such as chat.example")
def host_name(text: str) -> str:
    """Parse the name of a host, or "" if the variable is absent."""
    if text and not _HOST.fullmatch(text):
        raise ValueError
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(OtelSettings):
    """The settings of the bridge, read at start."""

    listen: Listen = setting(
        "CHAT_BRIDGE_LISTEN", "0.0.0.0:8080", listen_address, "The address of the HTTP listener."
    )
    workers: int = setting(
        "CHAT_BRIDGE_WORKERS",
        "1",
        integer(1, MOST_WORKERS),
        "How many processes serve, on the same ports; `--workers` takes precedence.",
    )
    service_target: str = setting(
        "CHAT_SERVICE_TARGET", "127.0.0.1:50051", target, "The address of the gRPC service."
    )
    metrics_listen: Listen | None = setting(
        "CHAT_BRIDGE_METRICS_LISTEN",
        "127.0.0.1:9465",
        optional_address,
        "The address at which Prometheus reads the bridge's metrics; `none` switches it off.",
    )
    bridge_tls_cert_file: str = setting(
        "CHAT_BRIDGE_TLS_CERT_FILE",
        "",
        optional_path,
        "The PEM file with the certificate of the HTTP listener and its intermediates; with it, "
        "the listener has TLS.",
    )
    bridge_tls_key_file: str = setting(
        "CHAT_BRIDGE_TLS_KEY_FILE",
        "",
        optional_path,
        "The PEM file with the key of that certificate, without a passphrase.",
    )
    service_tls_ca_file: str = setting(
        "CHAT_SERVICE_TLS_CA_FILE",
        "",
        optional_path,
        "A PEM file of certificate authorities for the service; with it, the bridge uses TLS.",
    )
    service_tls_cert_file: str = setting(
        "CHAT_SERVICE_TLS_CERT_FILE",
        "",
        optional_path,
        "The PEM file with the bridge's own certificate, if the service requires one.",
    )
    service_tls_key_file: str = setting(
        "CHAT_SERVICE_TLS_KEY_FILE",
        "",
        optional_path,
        "The PEM file with the key of that certificate, without a passphrase.",
    )
    service_tls_name: str = setting(
        "CHAT_SERVICE_TLS_NAME",
        "",
        host_name,
        "The name in the certificate of the service, if it is not the host of CHAT_SERVICE_TARGET.",
    )
    cors_origins: tuple[str, ...] = setting(
        "CHAT_BRIDGE_CORS_ORIGINS",
        "",
        origins,
        "The web origins whose pages can call the bridge; without any, CORS is off.",
    )
    pages: bool = setting(
        "CHAT_BRIDGE_PAGES",
        "on",
        switch,
        "Whether the bridge serves `/`, `/docs`, `/playground` and `/openapi.json`.",
    )
    max_body_bytes: int = setting(
        "CHAT_MAX_REQUEST_BYTES",
        str(32 * 1024 * 1024),
        integer(1024, 256 * 1024 * 1024),
        "Maximum size of a request, in bytes, for service and bridge; a larger one gets 413.",
    )
    max_concurrency: int = setting(
        "CHAT_BRIDGE_MAX_CONCURRENCY",
        "1000",
        integer(1, 100_000),
        "Maximum concurrent API requests; further requests get 503.",
    )
    max_connections: int = setting(
        "CHAT_BRIDGE_MAX_CONNECTIONS",
        "10000",
        integer(1, 1_000_000),
        "Maximum open connections; a further one gets 503 and is closed.",
    )
    timeout: float = setting(
        "CHAT_BRIDGE_TIMEOUT",
        "600",
        seconds(0.1, 86_400),
        "The deadline of each call to the service, in seconds.",
    )
    drain_delay: float = setting(
        "CHAT_BRIDGE_DRAIN_DELAY",
        "5",
        seconds(0, 600),
        "How long the bridge accepts requests after SIGTERM, in seconds.",
    )
    drain_grace: float = setting(
        "CHAT_BRIDGE_DRAIN_GRACE",
        "10",
        seconds(0, 3600),
        "How long requests in flight can continue after that, in seconds.",
    )
    log_level: str = setting("CHAT_LOG_LEVEL", "info", one_of(*LEVELS), "Minimum log level.")
    log_format: str = setting(
        "CHAT_LOG_FORMAT",
        "auto",
        one_of(*FORMATS),
        "The form of log lines: `json`, `text`, or `auto`, which is text on a terminal.",
    )


def listens(values: Mapping[str, Any]) -> dict[str, Listen]:
    """Return the addresses that workers share, by variable.

    Args:
        values: The valid values of `Settings`, by field.
    """
    return {"CHAT_BRIDGE_LISTEN": values["listen"]} if "listen" in values else {}
