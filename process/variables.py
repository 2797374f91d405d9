"""The names of all variables, and which variables of an environment are unknown.

    CHAT_UPSTREAM_URL -> CHAT_UPSTREAM_URL is unknown. Did you mean CHAT_UPSTREAM_BASE_URL? …

A service and a bridge can share an environment, so each knows the names of both. Neither imports
the other's settings; a test compares this list with both tables.
"""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final

PREFIX: Final = "CHAT_"

NAMES: Final = (
    "CHAT_LISTEN",
    "CHAT_WORKERS",
    "CHAT_METRICS_LISTEN",
    "CHAT_UPSTREAM_BASE_URL",
    "CHAT_UPSTREAM_MODEL",
    "CHAT_UPSTREAM_API_KEY",
    "SIMPLISMART_API_KEY",
    "CHAT_MODELS_FILE",
    "CHAT_BOOTSTRAP_API_KEY",
    "CHAT_BOOTSTRAP_CREDIT",
    "CHAT_DATABASE_URL",
    "CHAT_ADMIN_TOKEN",
    "CHAT_ADMIN_LISTEN",
    "CHAT_TLS_CERT_FILE",
    "CHAT_TLS_KEY_FILE",
    "CHAT_TLS_CLIENT_CA_FILE",
    "CHAT_ADMIN_TLS_CERT_FILE",
    "CHAT_ADMIN_TLS_KEY_FILE",
    "CHAT_ADMIN_TLS_CLIENT_CA_FILE",
    "CHAT_JOURNAL_DIRECTORY",
    "CHAT_CREDIT_WORTH",
    "CHAT_BUDGET_TIME_ZONE",
    "CHAT_RECEIPTS",
    "CHAT_IDEMPOTENCY_SECONDS",
    "CHAT_IDEMPOTENCY_MAX_BYTES",
    "CHAT_IDEMPOTENCY_ACCOUNT_BYTES",
    "CHAT_IDEMPOTENCY_LINGER",
    "CHAT_MAX_REQUEST_BYTES",
    "CHAT_MAX_RESPONSE_BYTES",
    "CHAT_MAX_CONCURRENT_CALLS",
    "CHAT_REQUEST_TIMEOUT",
    "CHAT_MAX_CONNECTION_AGE",
    "CHAT_KEEPALIVE_INTERVAL",
    "CHAT_KEEPALIVE_MINIMUM",
    "CHAT_UPSTREAM_CA_FILE",
    "CHAT_UPSTREAM_MAX_CONNECTIONS",
    "CHAT_UPSTREAM_CONNECT_TIMEOUT",
    "CHAT_UPSTREAM_FIRST_BYTE_TIMEOUT",
    "CHAT_UPSTREAM_IDLE_TIMEOUT",
    "CHAT_UPSTREAM_LONGEST_RETRY_AFTER",
    "CHAT_UPSTREAM_MAX_CALLS",
    "CHAT_UPSTREAM_MAX_WAITING",
    "CHAT_UPSTREAM_BREAKER_FAILURES",
    "CHAT_UPSTREAM_BREAKER_PAUSE",
    "CHAT_UPSTREAM_KEY_PAUSE",
    "CHAT_SHOW_UPSTREAM",
    "CHAT_EVENTS_URL",
    "CHAT_EVENTS_SECRETS",
    "CHAT_EVENTS_AUTHORIZATION",
    "CHAT_EVENTS_SOURCE",
    "CHAT_EVENTS_THRESHOLDS",
    "CHAT_EVENTS_TIMEOUT",
    "CHAT_EVENTS_MAX_AGE",
    "CHAT_EVENTS_CA_FILE",
    "CHAT_DRAIN_DELAY",
    "CHAT_DRAIN_GRACE",
    "CHAT_LOAD_REPORTS",
    "CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN",
    "CHAT_SIMULATOR_INTER_TOKEN_DELAY",
    "CHAT_LOG_LEVEL",
    "CHAT_LOG_FORMAT",
    "CHAT_BRIDGE_LISTEN",
    "CHAT_BRIDGE_WORKERS",
    "CHAT_SERVICE_TARGET",
    "CHAT_BRIDGE_METRICS_LISTEN",
    "CHAT_BRIDGE_TLS_CERT_FILE",
    "CHAT_BRIDGE_TLS_KEY_FILE",
    "CHAT_SERVICE_TLS_CA_FILE",
    "CHAT_SERVICE_TLS_CERT_FILE",
    "CHAT_SERVICE_TLS_KEY_FILE",
    "CHAT_SERVICE_TLS_NAME",
    "CHAT_BRIDGE_CORS_ORIGINS",
    "CHAT_BRIDGE_PAGES",
    "CHAT_BRIDGE_MAX_CONCURRENCY",
    "CHAT_BRIDGE_MAX_CONNECTIONS",
    "CHAT_BRIDGE_TIMEOUT",
    "CHAT_BRIDGE_DRAIN_DELAY",
    "CHAT_BRIDGE_DRAIN_GRACE",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_METRICS_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_PROPAGATORS",
)
"""The variables of service and bridge."""

CALLERS: Final = ("CHAT_KEY", "CHAT_BASE_URL", "CHAT_TARGET")
"""The variables of callers: of the terminal client and of examples. Valid, and read by neither."""

_OF_KUBERNETES: Final = re.compile(
    r"CHAT_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT=(tcp|udp|sctp):|PORT_[0-9]+_(TCP|UDP|SCTP)).*"
)
"""The variables that Kubernetes and Docker set for a service whose name begins with `chat`."""


def unknown_variables(environment: Mapping[str, str], others: Collection[str] = ()) -> list[str]:
    """Return a line for each variable that begins with CHAT_ and is unknown.

    Args:
        environment: The environment.
        others: Further names that are valid, such as those of upstreams' keys.
    """
    known = {*NAMES, *CALLERS, *others}
    return [
        _unknown(name)
        for name in sorted(environment)
        if name.startswith(PREFIX)
        and name not in known
        and environment[name]
        and not _OF_KUBERNETES.match(f"{name}={environment[name]}")
    ]


def _unknown(name: str) -> str:
    [nearest] = get_close_matches(name, (*NAMES, *CALLERS), n=1) or [""]
    if nearest:
        return f"{name} is unknown. Did you mean {nearest}? Rename it, or write: unset {name}"
    return f"{name} is unknown; --help lists the variables. Write: unset {name}"
