"""The configuration of the service: settings from the environment, models from a file.

    environment -> Settings -> CHAT_MODELS_FILE        -> Catalogue of models
                            -> CHAT_UPSTREAM_BASE_URL  -> a document of one model -> Catalogue

`__main__` passes the environment in. This module checks settings and models at start, and reports
all errors together, each with the setting or entry, the value found and the values allowed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from process import log
from process.otel_settings import missing_extra
from process.settings import (
    MOST_WORKERS,
    Listen,
    SettingsError,
    api_key,
    base_url,
    credits_amount,
    database_url,
    header_key,
    integer,
    listen_address,
    one_of,
    optional_address,
    optional_path,
    parse,
    parser,
    path,
    readable_file,
    seconds,
    setting,
    switch,
    values_of,
)
from process.tls import credentials as tls
from process.tls.files import File, ServerFiles
from process.tls.plaintext import Listener
from process.variables import unknown_variables
from process.workers.ports import unshareable
from service import credit_worth
from service.credit_worth import CreditWorth
from service.event_settings import EventSettings
from service.ledger.budgets import is_time_zone
from service.models import Catalogue
from service.models_document import CatalogueError, catalogue, key_variables
from service.models_source import SELECTING, SIMULATOR, document_of


@parser(
    f"an http:// or https:// address without credentials, query or fragment, or {SIMULATOR}",
    "http://127.0.0.1:11434/v1",
)
def upstream_base_url(value: str) -> str:
    """Parse the base URL of an upstream, or the name of the simulator, or "" if absent."""
    return value if value == SIMULATOR else base_url(value)


@parser("the name of a model at the upstream: 1 to 256 printable characters", "llama3.1:8b")
def model_name(value: str) -> str:
    """Parse the name of a model."""
    if not (0 < len(value) <= 256 and value.isprintable()):
        raise ValueError
    return value


@parser(
    "a rate above 0 with at most 9 decimals, a space and a currency code of ISO 4217", "0.01 EUR"
)
def credit_worth_of(value: str) -> CreditWorth | None:
    """Parse the worth of a credit, or None if it is absent."""
    return credit_worth.parse(value) if value else None


@parser("the name of a time zone that this machine knows", "Europe/Berlin")
def time_zone_name(value: str) -> str:
    """Parse the name of a time zone."""
    if not is_time_zone(value):
        raise ValueError("not a time zone")
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(EventSettings):
    """The settings of the service; docs/configuration.md has the same table."""

    listen: Listen = setting(
        "CHAT_LISTEN", "0.0.0.0:50051", listen_address, "The address of the gRPC listener."
    )
    workers: int = setting(
        "CHAT_WORKERS",
        "1",
        integer(1, MOST_WORKERS),
        "How many processes serve, on the same ports; `--workers` takes precedence.",
    )
    metrics_listen: Listen | None = setting(
        "CHAT_METRICS_LISTEN",
        "127.0.0.1:9464",
        optional_address,
        "The address at which Prometheus reads the service's metrics; `none` switches it off.",
    )
    upstream_base_url: str = setting(
        "CHAT_UPSTREAM_BASE_URL",
        "",
        upstream_base_url,
        "The OpenAI-compatible upstream, or `simulator`; if the URL has no path, `/v1` is added.",
    )
    upstream_model: str = setting(
        "CHAT_UPSTREAM_MODEL",
        "google/gemma-3-4b-it",
        model_name,
        "The name at the upstream of the model `default`, as its `GET /v1/models` lists it.",
    )
    upstream_api_key: str = setting(
        "CHAT_UPSTREAM_API_KEY", "", header_key, "The bearer key for CHAT_UPSTREAM_BASE_URL."
    )
    simplismart_api_key: str = setting(
        "SIMPLISMART_API_KEY",
        "",
        header_key,
        "The key for Simplismart, which is the upstream if CHAT_UPSTREAM_BASE_URL is absent.",
    )
    models_file: str = setting(
        "CHAT_MODELS_FILE",
        "",
        readable_file,
        "The TOML file of upstreams and models; without it, the only model is `default`.",
    )
    bootstrap_api_key: str = setting(
        "CHAT_BOOTSTRAP_API_KEY",
        "",
        api_key,
        "An API key that the service creates at start, with an account of its own.",
    )
    bootstrap_credit: Decimal = setting(
        "CHAT_BOOTSTRAP_CREDIT",
        "10",
        credits_amount,
        "The initial credit of the bootstrap key's account, granted once.",
    )
    database_url: str = setting(
        "CHAT_DATABASE_URL",
        "sqlite:///chatcompletion.sqlite3",
        database_url,
        "The store: a SQLite file for one machine, PostgreSQL for many replicas.",
    )
    admin_token: str = setting(
        "CHAT_ADMIN_TOKEN",
        "",
        api_key,
        "The bearer token of AccountService; without it, AccountService is off.",
    )
    admin_listen: Listen = setting(
        "CHAT_ADMIN_LISTEN",
        "127.0.0.1:50052",
        listen_address,
        "The address of the AccountService listener.",
    )
    tls_cert_file: str = setting(
        "CHAT_TLS_CERT_FILE",
        "",
        optional_path,
        "The PEM file with the certificate of the gRPC listener and its intermediates; with it, "
        "the listener has TLS.",
    )
    tls_key_file: str = setting(
        "CHAT_TLS_KEY_FILE",
        "",
        optional_path,
        "The PEM file with the key of that certificate, without a passphrase.",
    )
    tls_client_ca_file: str = setting(
        "CHAT_TLS_CLIENT_CA_FILE",
        "",
        optional_path,
        "A PEM file of certificate authorities; with it, each gRPC client needs a certificate of "
        "theirs.",
    )
    admin_tls_cert_file: str = setting(
        "CHAT_ADMIN_TLS_CERT_FILE",
        "",
        optional_path,
        "As CHAT_TLS_CERT_FILE, for the AccountService listener.",
    )
    admin_tls_key_file: str = setting(
        "CHAT_ADMIN_TLS_KEY_FILE",
        "",
        optional_path,
        "As CHAT_TLS_KEY_FILE, for the AccountService listener.",
    )
    admin_tls_client_ca_file: str = setting(
        "CHAT_ADMIN_TLS_CLIENT_CA_FILE",
        "",
        optional_path,
        "As CHAT_TLS_CLIENT_CA_FILE, for the AccountService listener.",
    )
    journal_directory: str = setting(
        "CHAT_JOURNAL_DIRECTORY",
        "chatcompletion.journal",
        path,
        "The directory in which charges wait while the store is away; use a persistent disk.",
    )
    credit_worth: CreditWorth | None = setting(
        "CHAT_CREDIT_WORTH",
        "",
        credit_worth_of,
        "What a credit is worth, such as `0.01 EUR`; with it, amounts show their worth too.",
    )
    budget_time_zone: str = setting(
        "CHAT_BUDGET_TIME_ZONE",
        "UTC",
        time_zone_name,
        "The time zone in which the days of a new budget begin, unless it names another.",
    )
    receipts: bool = setting(
        "CHAT_RECEIPTS",
        "on",
        switch,
        "Whether each response has the receipt of its charge: `on`, or `off` for OpenAI's bytes "
        "only.",
    )
    idempotency_seconds: int = setting(
        "CHAT_IDEMPOTENCY_SECONDS",
        "3600",
        integer(0, 7 * 24 * 3600),
        "How long an answer to a request with an Idempotency-Key is kept, in seconds; 0 ignores "
        "the header.",
    )
    idempotency_max_bytes: int = setting(
        "CHAT_IDEMPOTENCY_MAX_BYTES",
        "1048576",
        integer(1024, 32 * 1024 * 1024),
        "Maximum size of an answer that is kept, in bytes.",
    )
    idempotency_account_bytes: int = setting(
        "CHAT_IDEMPOTENCY_ACCOUNT_BYTES",
        "67108864",
        integer(1024, 64 * 1024 * 1024 * 1024),
        "Maximum size of all kept answers of an account, in bytes after compression.",
    )
    idempotency_linger: float = setting(
        "CHAT_IDEMPOTENCY_LINGER",
        "30",
        seconds(0, 600),
        "How long a request with an Idempotency-Key continues after its caller left, in seconds.",
    )
    max_request_bytes: int = setting(
        "CHAT_MAX_REQUEST_BYTES",
        str(32 * 1024 * 1024),
        integer(1024, 256 * 1024 * 1024),
        "Maximum size of a request, in bytes, for service and bridge; a larger one gets 413.",
    )
    max_response_bytes: int = setting(
        "CHAT_MAX_RESPONSE_BYTES",
        "33554432",
        integer(1024, 256 * 1024 * 1024),
        "Maximum size of a unary response or of one event of the upstream, in bytes.",
    )
    max_concurrent_calls: int = setting(
        "CHAT_MAX_CONCURRENT_CALLS",
        "1000",
        integer(1, 100_000),
        "Maximum concurrent calls; further calls get 503.",
    )
    request_timeout: float = setting(
        "CHAT_REQUEST_TIMEOUT",
        "600",
        seconds(0.1, 3600),
        "Maximum duration of a call without an earlier deadline, in seconds.",
    )
    upstream_ca_file: str = setting(
        "CHAT_UPSTREAM_CA_FILE",
        "",
        readable_file,
        "A PEM file of certificate authorities for the upstreams, instead of the default ones.",
    )
    upstream_max_connections: int = setting(
        "CHAT_UPSTREAM_MAX_CONNECTIONS",
        "1000",
        integer(1, 100_000),
        "Maximum connections to all upstreams; a further request waits for the connect timeout.",
    )
    connect_timeout: float = setting(
        "CHAT_UPSTREAM_CONNECT_TIMEOUT",
        "5",
        seconds(0.05, 60),
        "Maximum wait for a connection to the upstream, in seconds.",
    )
    first_byte_timeout: float = setting(
        "CHAT_UPSTREAM_FIRST_BYTE_TIMEOUT",
        "300",
        seconds(0.05, 3600),
        "Maximum wait for the first event of a stream of the upstream, in seconds.",
    )
    idle_timeout: float = setting(
        "CHAT_UPSTREAM_IDLE_TIMEOUT",
        "60",
        seconds(0.05, 3600),
        "Maximum silence of the upstream within a response, in seconds.",
    )
    longest_retry_after: float = setting(
        "CHAT_UPSTREAM_LONGEST_RETRY_AFTER",
        "5",
        seconds(0, 120),
        "Maximum Retry-After of the upstream before the one retry, in seconds.",
    )
    upstream_max_calls: int = setting(
        "CHAT_UPSTREAM_MAX_CALLS",
        "0",
        integer(0, 100_000),
        "Maximum calls at each upstream; 0 for all connections if there is one, otherwise half.",
    )
    upstream_max_waiting: int = setting(
        "CHAT_UPSTREAM_MAX_WAITING",
        "100",
        integer(0, 100_000),
        "Maximum calls that wait for each upstream, for the connect timeout; further ones get 503.",
    )
    breaker_failures: int = setting(
        "CHAT_UPSTREAM_BREAKER_FAILURES",
        "5",
        integer(0, 20),
        "How many failures in a row cut an upstream off for a while; 0 never does.",
    )
    breaker_pause: float = setting(
        "CHAT_UPSTREAM_BREAKER_PAUSE",
        "5",
        seconds(0.05, 3600),
        "How long it is cut off before one call tries it again, in seconds.",
    )
    key_pause: float = setting(
        "CHAT_UPSTREAM_KEY_PAUSE",
        "60",
        seconds(0.05, 86_400),
        "How long a key that the upstream refused is set aside for its other keys, in seconds.",
    )
    shows_upstream: bool = setting(
        "CHAT_SHOW_UPSTREAM",
        "off",
        switch,
        "Whether responses name the upstream that answered, in `x-chat-upstream`.",
    )
    max_connection_age: float = setting(
        "CHAT_MAX_CONNECTION_AGE",
        "50",
        seconds(1, 86_400),
        "How long a connection takes new calls, in seconds, so that clients find new replicas.",
    )
    keepalive_interval: float = setting(
        "CHAT_KEEPALIVE_INTERVAL",
        "30",
        seconds(1, 7200),
        "How often the service pings a silent client, in seconds.",
    )
    keepalive_minimum: float = setting(
        "CHAT_KEEPALIVE_MINIMUM",
        "10",
        seconds(1, 30),
        "How often a client can ping at most, in seconds; the service disconnects one that pings "
        "more often.",
    )
    drain_delay: float = setting(
        "CHAT_DRAIN_DELAY",
        "5",
        seconds(0, 600),
        "How long the service accepts calls after SIGTERM, in seconds.",
    )
    drain_grace: float = setting(
        "CHAT_DRAIN_GRACE",
        "10",
        seconds(0, 3600),
        "How long calls in flight can continue after that, in seconds.",
    )
    load_reports: bool = setting(
        "CHAT_LOAD_REPORTS",
        "off",
        switch,
        "Whether the service reports its load to proxies and gRPC clients, by ORCA.",
    )
    simulator_time_to_first_token: float = setting(
        "CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN",
        "0.2",
        seconds(0, 60),
        "How long the built-in simulator waits before the first token, in seconds.",
    )
    simulator_inter_token_delay: float = setting(
        "CHAT_SIMULATOR_INTER_TOKEN_DELAY",
        "0.02",
        seconds(0, 60),
        "How long the built-in simulator waits between tokens, in seconds.",
    )
    log_level: str = setting("CHAT_LOG_LEVEL", "info", one_of(*log.LEVELS), "Minimum log level.")
    log_format: str = setting(
        "CHAT_LOG_FORMAT",
        "auto",
        one_of(*log.FORMATS),
        "The form of log lines: `json`, `text`, or `auto`, which is text on a terminal.",
    )


TLS: Final = {"CHAT_LISTEN": "tls", "CHAT_ADMIN_LISTEN": "admin_tls"}
"""The prefix of the settings of TLS of each listener."""


def listens(values: Mapping[str, Any]) -> dict[str, Listen]:
    """Return the addresses that workers share, by variable.

    Args:
        values: The valid values of `Settings`, by field.
    """
    fields = {"CHAT_LISTEN": "listen"}
    if values.get("admin_token"):
        fields["CHAT_ADMIN_LISTEN"] = "admin_listen"
    return {name: values[field] for name, field in fields.items() if field in values}


def listeners(settings: Settings) -> list[Listener]:
    """Return the listeners for clients, with whether they have TLS."""
    values = values_of(settings)
    return [
        Listener(
            setting=name,
            listen=listen,
            certificate=files.identity.certificate.variable,
            has_tls=files.is_on,
        )
        for name, listen in listens(values).items()
        for files in (ServerFiles.of(values, TLS[name]),)
    ]


def load(environment: Mapping[str, str], *, simulates: bool = False) -> tuple[Settings, Catalogue]:
    """Read settings and models.

    Args:
        environment: The environment.
        simulates: Whether the service is part of --standalone, where the simulator is the upstream
            if none is configured, and the bridge's settings have the number of workers.

    Raises:
        SettingsError: A setting or the models file is wrong. It has a line for each error.
    """
    values, wrong = parse(Settings, environment)
    models: Catalogue | None = None
    keys: frozenset[str] = frozenset()
    try:
        # If a variable that selects the models is wrong, its own error is enough.
        if values.keys() >= SELECTING:
            document = document_of(values, environment, simulates=simulates)
            keys = key_variables(document)
            models = catalogue(document, environment)
    except CatalogueError as error:
        place = "CHAT_MODELS_FILE: " if values["models_file"] else ""
        wrong += [f"{place}{line}" for line in error.lines]
    wrong += missing_extra(values)
    wrong += unknown_variables(environment, keys)
    wrong += tls.wrong(*(ServerFiles.of(values, prefix) for prefix in TLS.values()))
    for variable, field in (
        ("CHAT_UPSTREAM_CA_FILE", "upstream_ca_file"),
        ("CHAT_EVENTS_CA_FILE", "events_ca_file"),
    ):
        wrong += tls.wrong_authorities(File(variable=variable, path=values.get(field, "")))
    if not simulates:
        wrong += unshareable(listens(values), workers=values.get("workers", 1))
    if wrong or models is None:
        raise SettingsError(*wrong)
    return Settings(**values), models
