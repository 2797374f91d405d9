import base64
from decimal import Decimal
from pathlib import Path

import pytest
import trustme

from process.otel_settings import OtelSettings
from process.settings import Address, SettingsError, rows
from service.config import Settings, load
from service.credit_worth import CreditWorth
from service.models import Model
from service.models_source import NO_UPSTREAM, SIMPLISMART_BASE_URL
from tests.support.certificates import written, written_authority

KEY = "key-canary-0123456789"


@pytest.fixture
def a_file(tmp_path: Path) -> str:
    path = tmp_path / "authorities.pem"
    path.write_text("x")
    return str(path)


def settings(**environment: str) -> Settings:
    return load(environment, simulates=True)[0]


MODELS = """
[upstreams.main]
base_url = "https://api.example"
api_key_variable = "OUR_KEY"

[models."vendor/m:1"]
upstream = "main"
upstream_model = "m"
default_output_tokens = 10
maximum_output_tokens = 20
input_price = 0.1
"""

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()

# variable: field, its default, a text, its value, texts that are refused
Case = tuple[str, object, str, object, tuple[str, ...]]
DURATIONS = ("soon", "-1", "nan", "inf", "1e9")
SETTINGS: dict[str, Case] = {
    "CHAT_LISTEN": (
        *("listen", Address("0.0.0.0", 50051), "[::1]:0", Address("::1", 0)),
        ("50051", "localhost", ":80", "a:b", "h:65536", "h:-1", "::1:80", "a b:1", "none"),
    ),
    "CHAT_WORKERS": ("workers", 1, "256", 256, ("0", "257", "1.5", "all")),
    "CHAT_METRICS_LISTEN": (
        *("metrics_listen", Address("127.0.0.1", 9464), "none", None),
        ("off", "h:x", "None"),
    ),
    "CHAT_UPSTREAM_BASE_URL": (
        *("upstream_base_url", "", "https://api.example/v1/", "https://api.example/v1"),
        ("api.example", "ftp://h", "https://", "https://h/?q", "https://h/#f", "https://u@h"),
    ),
    "CHAT_UPSTREAM_MODEL": (
        *("upstream_model", "google/gemma-3-4b-it", "llama3.1:8b", "llama3.1:8b"),
        ("x" * 257, "a\nb"),
    ),
    "CHAT_UPSTREAM_API_KEY": (
        *("upstream_api_key", "", "EMPTY", "EMPTY"),
        ("x" * 16385, f"{KEY}\n", "a\tb", "a\u2028b"),
    ),
    "SIMPLISMART_API_KEY": (
        *("simplismart_api_key", "", "x" * 4000, "x" * 4000),
        (f"{KEY}\r\n", "\x7f"),
    ),
    "CHAT_BOOTSTRAP_API_KEY": ("bootstrap_api_key", "", KEY, KEY, ("short", f"{KEY}\n")),
    "CHAT_BOOTSTRAP_CREDIT": (
        *("bootstrap_credit", Decimal(10), "0.000000001", Decimal("0.000000001")),
        ("-1", "1e-10", "1000000001", "nan", "x", "0.0000000001"),
    ),
    "CHAT_DATABASE_URL": (
        *("database_url", "sqlite:///chatcompletion.sqlite3"),
        *("postgresql+psycopg://chat@db/chat", "postgresql+psycopg://chat@db/chat"),
        ("sqlite://", "mysql://db/chat", "chat.sqlite3", "postgresql://"),
    ),
    "CHAT_ADMIN_TOKEN": ("admin_token", "", KEY, KEY, ("short", f"{KEY} {KEY}")),
    "CHAT_ADMIN_LISTEN": (
        *("admin_listen", Address("127.0.0.1", 50052), "[::1]:0", Address("::1", 0)),
        ("50052", "none", "localhost:65536"),
    ),
    "CHAT_JOURNAL_DIRECTORY": (
        *("journal_directory", "chatcompletion.journal", "/var/lib/chat", "/var/lib/chat"),
        ("a\0b",),
    ),
    "CHAT_CREDIT_WORTH": (
        *("credit_worth", None, "0.01 EUR", CreditWorth(10_000_000, "EUR")),
        ("0.01", "EUR", "0 EUR", "0.01 eur", "1e-2 EUR"),
    ),
    "CHAT_BUDGET_TIME_ZONE": (
        *("budget_time_zone", "UTC", "Europe/Berlin", "Europe/Berlin"),
        ("Europe", "Europe/Wien", "+01:00", "../UTC"),
    ),
    "CHAT_RECEIPTS": ("receipts", True, "off", False, ("On", "0", "true")),
    "CHAT_IDEMPOTENCY_SECONDS": (
        *("idempotency_seconds", 3600, "0", 0),
        ("-1", "604801", "1.5", "1h"),
    ),
    "CHAT_IDEMPOTENCY_MAX_BYTES": (
        *("idempotency_max_bytes", 1048576, "1024", 1024),
        ("1023", "33554433", "1e6", "1MB"),
    ),
    "CHAT_IDEMPOTENCY_ACCOUNT_BYTES": (
        *("idempotency_account_bytes", 67108864, "1024", 1024),
        ("1023", "68719476737", "1e6", "1GB"),
    ),
    "CHAT_IDEMPOTENCY_LINGER": (
        *("idempotency_linger", 30.0, "0", 0.0),
        ("-1", "601", "x", "inf"),
    ),
    "CHAT_MAX_REQUEST_BYTES": (
        *("max_request_bytes", 33554432, "1024", 1024),
        ("1023", "268435457", "1e6", "x", "8MB"),
    ),
    "CHAT_MAX_RESPONSE_BYTES": (
        *("max_response_bytes", 33554432, "268435456", 268435456),
        ("1023", "268435457"),
    ),
    "CHAT_MAX_CONCURRENT_CALLS": ("max_concurrent_calls", 1000, "1", 1, ("0", "100001", "-1")),
    "CHAT_REQUEST_TIMEOUT": ("request_timeout", 600.0, "0.1", 0.1, ("0.09", "3601", *DURATIONS)),
    "CHAT_UPSTREAM_MAX_CONNECTIONS": (
        *("upstream_max_connections", 1000, "100000", 100000),
        ("0", "100001"),
    ),
    "CHAT_UPSTREAM_CONNECT_TIMEOUT": (
        *("connect_timeout", 5.0, "0.05", 0.05),
        ("0.04", "61", *DURATIONS),
    ),
    "CHAT_UPSTREAM_FIRST_BYTE_TIMEOUT": (
        *("first_byte_timeout", 300.0, "3600", 3600.0),
        ("0", "3601", *DURATIONS),
    ),
    "CHAT_UPSTREAM_IDLE_TIMEOUT": (
        *("idle_timeout", 60.0, "2.5", 2.5),
        ("0", "3601", *DURATIONS),
    ),
    "CHAT_UPSTREAM_LONGEST_RETRY_AFTER": (
        *("longest_retry_after", 5.0, "0", 0.0),
        ("121", *DURATIONS),
    ),
    "CHAT_UPSTREAM_MAX_CALLS": ("upstream_max_calls", 0, "100000", 100000, ("-1", "100001")),
    "CHAT_UPSTREAM_MAX_WAITING": ("upstream_max_waiting", 100, "0", 0, ("-1", "100001")),
    "CHAT_UPSTREAM_BREAKER_FAILURES": ("breaker_failures", 5, "0", 0, ("-1", "21", "x")),
    "CHAT_UPSTREAM_BREAKER_PAUSE": (
        *("breaker_pause", 5.0, "0.05", 0.05),
        ("0.04", "3601", *DURATIONS),
    ),
    "CHAT_UPSTREAM_KEY_PAUSE": ("key_pause", 60.0, "0.05", 0.05, ("0.04", "86401", *DURATIONS)),
    "CHAT_SHOW_UPSTREAM": ("shows_upstream", False, "on", True, ("yes", "true", "1")),
    "CHAT_MAX_CONNECTION_AGE": (
        *("max_connection_age", 50.0, "86400", 86_400.0),
        ("0.9", "86401", *DURATIONS),
    ),
    "CHAT_KEEPALIVE_INTERVAL": (
        *("keepalive_interval", 30.0, "1.5", 1.5),
        ("0.9", "7201", *DURATIONS),
    ),
    "CHAT_KEEPALIVE_MINIMUM": ("keepalive_minimum", 10.0, "30", 30.0, ("0.9", "31", *DURATIONS)),
    "CHAT_DRAIN_DELAY": ("drain_delay", 5.0, "0", 0.0, ("601", *DURATIONS)),
    "CHAT_DRAIN_GRACE": ("drain_grace", 10.0, "0", 0.0, ("3601", *DURATIONS)),
    "CHAT_LOAD_REPORTS": ("load_reports", False, "on", True, ("true", "ON", "1")),
    "CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN": (
        *("simulator_time_to_first_token", 0.2, "0", 0.0),
        ("61", *DURATIONS),
    ),
    "CHAT_SIMULATOR_INTER_TOKEN_DELAY": (
        *("simulator_inter_token_delay", 0.02, "0", 0.0),
        ("61", *DURATIONS),
    ),
    "CHAT_EVENTS_URL": (
        *("events_url", "", "https://hooks.example/a?token=b", "https://hooks.example/a?token=b"),
        ("hooks.example", "https://", "https://u:p@h/", "https://h/#f", "https://h/ü", "ftp://h"),
    ),
    "CHAT_EVENTS_SECRETS": (
        *("events_secrets", (), f"{SECRET}, {SECRET}", (b"k" * 24, b"k" * 24)),
        (SECRET.removeprefix("whsec_"), f"{SECRET},", "whsec_", ",".join([SECRET] * 6)),
    ),
    "CHAT_EVENTS_AUTHORIZATION": (
        *("events_authorization", "", "Bearer x", "Bearer x"),
        ("a\nb", "x" * 16385),
    ),
    "CHAT_EVENTS_SOURCE": (
        *("events_source", "/chatcompletion", "urn:example:eu", "urn:example:eu"),
        ("a b", "<a>", "ü", "x" * 257),
    ),
    "CHAT_EVENTS_THRESHOLDS": (
        *("events_thresholds", (50, 80, 100), "90,10", (10, 90)),
        ("0", "101", "50,50", "50,", "a", ",".join(map(str, range(1, 12)))),
    ),
    "CHAT_EVENTS_TIMEOUT": ("events_timeout", 10.0, "0.05", 0.05, ("0.04", "61", *DURATIONS)),
    "CHAT_EVENTS_MAX_AGE": (
        *("events_max_age", 259_200.0, "1", 1.0),
        ("0.9", "2592001", *DURATIONS),
    ),
    "CHAT_LOG_LEVEL": ("log_level", "info", "debug", "debug", ("DEBUG", "trace", "critical")),
    "CHAT_LOG_FORMAT": ("log_format", "auto", "text", "text", ("JSON", "logfmt")),
}
FILES = {
    "CHAT_MODELS_FILE": "models_file",
    "CHAT_UPSTREAM_CA_FILE": "upstream_ca_file",
    "CHAT_EVENTS_CA_FILE": "events_ca_file",
    **{
        f"CHAT_{name.upper()}": name
        for listener in ("tls", "admin_tls")
        for name in (f"{listener}_cert_file", f"{listener}_key_file", f"{listener}_client_ca_file")
    },
}


def test_every_setting_is_in_the_table_above() -> None:
    inherited = {row.name for row in rows(OtelSettings)}
    assert {row.name for row in rows(Settings)} - inherited == SETTINGS.keys() | FILES.keys()
    assert {SETTINGS[name][0] for name in SETTINGS} | set(FILES.values()) == (
        Settings.__dataclass_fields__.keys() - OtelSettings.__dataclass_fields__.keys()
    )


def test_a_setting_of_opentelemetry_is_in_the_list_of_wrong_settings() -> None:
    wrong = {"OTEL_TRACES_EXPORTER": "zipkin", "CHAT_LISTEN": "x", "CHAT_LOG_FORMAT": "xml"}
    with pytest.raises(SettingsError) as refused:
        settings(**wrong)

    names = [line.partition(" ")[0] for line in refused.value.lines]
    assert names == ["CHAT_LISTEN", "CHAT_LOG_FORMAT", "OTEL_TRACES_EXPORTER"]


@pytest.mark.parametrize("variable", SETTINGS)
def test_a_setting_has_its_default_where_it_is_absent_or_empty(variable: str) -> None:
    field, default, *_ = SETTINGS[variable]

    assert getattr(settings(), field) == default
    assert getattr(settings(**{variable: ""}), field) == default


@pytest.mark.parametrize("variable", SETTINGS)
def test_a_setting_is_read(variable: str) -> None:
    field, _, text, value, _ = SETTINGS[variable]

    others = {"CHAT_UPSTREAM_BASE_URL": "simulator"} if "UPSTREAM" in variable else {}
    assert getattr(settings(**{**others, variable: text}), field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [(variable, text) for variable, case in SETTINGS.items() for text in case[4]],
)
def test_a_wrong_value_is_refused_with_the_name_and_what_is_allowed(
    variable: str, text: str
) -> None:
    row = next(row for row in rows(Settings) if row.name == variable)
    with pytest.raises(SettingsError) as refused:
        settings(**{variable: text})

    [line] = refused.value.lines
    assert line.startswith(f"{variable} must be {row.allowed}; found ")
    if row.default:
        assert line.endswith(f". Write for example: {variable}={row.default}")


@pytest.mark.parametrize("variable", ["CHAT_MODELS_FILE", "CHAT_UPSTREAM_CA_FILE"])
def test_a_file_must_be_readable(variable: str, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(SettingsError, match=f"^{variable} must be the path of a file that"):
            settings(**{variable: str(path)})


def test_the_files_of_tls_are_proved(tmp_path: Path, a_file: str) -> None:
    ours = trustme.CA()
    ca, files = written_authority(tmp_path, ours, "ca"), written(tmp_path, ours, "own", "localhost")
    of_listener = {"CERT_FILE": files.certificate, "KEY_FILE": files.key, "CLIENT_CA_FILE": ca}
    found = settings(
        CHAT_UPSTREAM_CA_FILE=ca,
        **{f"CHAT_TLS_{name}": path for name, path in of_listener.items()},
        **{f"CHAT_ADMIN_TLS_{name}": path for name, path in of_listener.items()},
    )

    assert found.upstream_ca_file == ca
    assert found.tls_client_ca_file == found.admin_tls_client_ca_file == ca
    assert settings().tls_cert_file == settings().upstream_ca_file == ""
    with pytest.raises(SettingsError) as refused:
        settings(CHAT_UPSTREAM_CA_FILE=a_file, CHAT_TLS_CERT_FILE=files.certificate)
    assert [line.partition(" ")[0] for line in refused.value.lines] == [
        "CHAT_TLS_KEY_FILE",
        "CHAT_UPSTREAM_CA_FILE",
    ]


def test_every_mistake_has_its_line_and_no_secret_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(MODELS.replace("0.1", "-1"))
    with pytest.raises(SettingsError) as refused:
        settings(
            CHAT_BOOTSTRAP_API_KEY="canary",
            CHAT_LOG_LEVEL="loud",
            CHAT_LISTEN="sk-canary-0123456789",
            CHAT_MODELS_FILE=str(path),
            CHAT_UPSTREAM_URL="canary",
            OUR_KEY=KEY,
        )

    lines = refused.value.lines
    assert [line.partition(" ")[0] for line in lines] == [
        "CHAT_LISTEN",
        "CHAT_BOOTSTRAP_API_KEY",
        "CHAT_LOG_LEVEL",
        "CHAT_MODELS_FILE:",
        "CHAT_UPSTREAM_URL",
    ]
    assert '; found "loud"' in lines[2]
    assert "canary" not in str(refused.value)


def test_a_variable_that_the_models_file_names_is_known(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(MODELS.replace("OUR_KEY", "CHAT_OUR_KEY"))
    environment = {"CHAT_MODELS_FILE": str(path), "CHAT_OUR_KEY": KEY}

    assert load(environment)[0].models_file == str(path)
    with pytest.raises(SettingsError, match=r"^CHAT_OTHER_KEY is unknown"):
        load({**environment, "CHAT_OTHER_KEY": KEY})


def test_a_service_needs_an_upstream_unless_it_simulates() -> None:
    for environment in ({}, {"CHAT_UPSTREAM_API_KEY": KEY}, {"CHAT_UPSTREAM_MODEL": "m"}):
        with pytest.raises(SettingsError) as refused:
            load(environment)
        assert refused.value.lines == (NO_UPSTREAM,)
        if environment:
            with pytest.raises(SettingsError) as refused:
                load(environment, simulates=True)
            assert refused.value.lines == (NO_UPSTREAM,)
    for simulates in (False, True):
        [model] = load({"CHAT_UPSTREAM_BASE_URL": "simulator"}, simulates=simulates)[1]
        assert (model.upstream.base_url, model.is_free) == ("", True)


def test_keys_are_not_shown() -> None:
    read, catalogue = load(
        {
            "CHAT_UPSTREAM_BASE_URL": "https://api.example",
            "CHAT_UPSTREAM_API_KEY": KEY,
            "SIMPLISMART_API_KEY": KEY,
            "CHAT_BOOTSTRAP_API_KEY": KEY,
        }
    )

    assert KEY not in repr(read)
    assert KEY not in repr(catalogue)


# -------------------------------------------------------------------------------------- models


def default(**environment: str) -> Model:
    models = list(load(environment, simulates=True)[1])
    assert [model.name for model in models] == ["default"]
    return models[0]


@pytest.mark.parametrize(
    ("environment", "base_url", "key"),
    [
        ({"SIMPLISMART_API_KEY": KEY}, f"{SIMPLISMART_BASE_URL}/v1", KEY),
        ({"CHAT_UPSTREAM_BASE_URL": "http://h:1"}, "http://h:1/v1", ""),
        (
            {"CHAT_UPSTREAM_BASE_URL": "http://h:1", "CHAT_UPSTREAM_API_KEY": KEY},
            *("http://h:1/v1", KEY),
        ),
        (
            {"CHAT_UPSTREAM_BASE_URL": "http://h:1/x", "SIMPLISMART_API_KEY": KEY},
            *("http://h:1/x", ""),
        ),
    ],
)
def test_without_a_file_there_is_one_model(
    environment: dict[str, str], base_url: str, key: str
) -> None:
    model = default(**environment)

    assert model.upstream_model == "google/gemma-3-4b-it"
    assert (model.input_price, model.output_price) == (50_000_000, 100_000_000)
    assert (model.default_output_tokens, model.maximum_output_tokens) == (1024, 8192)
    assert (model.upstream.base_url, model.upstream.api_key) == (base_url, key)
    assert model.unknown == "harmless"


def test_the_simulator_costs_nothing() -> None:
    model = default()

    assert (model.upstream.base_url, model.is_free) == ("", True)


def test_the_model_at_the_upstream_has_its_variable() -> None:
    for where in ({"CHAT_UPSTREAM_BASE_URL": "http://h:1"}, {"SIMPLISMART_API_KEY": KEY}):
        assert default(**where, CHAT_UPSTREAM_MODEL="llama3.1:8b").upstream_model == "llama3.1:8b"


def test_simplismart_is_where_it_is() -> None:
    assert SIMPLISMART_BASE_URL == "https://api.simplismart.live"


def test_models_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    _, catalogue = load({"CHAT_MODELS_FILE": str(path), "OUR_KEY": KEY, "SIMPLISMART_API_KEY": KEY})
    model = catalogue.get("vendor/m:1")

    assert model is not None
    assert model.upstream.api_key == KEY
    # Exact: no binary fraction on the way.
    assert model.input_price == 100_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[upstreams", "CHAT_MODELS_FILE: is not TOML ("),
        (b"\xff", "CHAT_MODELS_FILE: is not TOML ("),
        (b"x = 1e-99999999999999999999", "CHAT_MODELS_FILE: has a number with too large an"),
        (b"", "CHAT_MODELS_FILE: upstreams: there must be at least one [upstreams.NAME]"),
        (
            MODELS.replace("0.1", "nan").encode(),
            "CHAT_MODELS_FILE: models.vendor/m:1.input_price must be credits",
        ),
        (
            MODELS.replace("= 20", "= 2").encode(),
            "CHAT_MODELS_FILE: models.vendor/m:1.default_output_tokens must not exceed",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_entry(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(text)
    with pytest.raises(SettingsError) as refused:
        load({"CHAT_MODELS_FILE": str(path), "OUR_KEY": KEY})

    assert str(refused.value).startswith(message)
