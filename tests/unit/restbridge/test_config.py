import pytest

from process.settings import Address, SettingsError, read, rows
from restbridge.config import Settings

DEFAULTS = read(Settings, {})


def test_the_defaults() -> None:
    assert DEFAULTS.listen == Address("0.0.0.0", 8080)
    assert DEFAULTS.service_target == "dns:///127.0.0.1:50051"
    assert DEFAULTS.metrics_listen == Address("127.0.0.1", 9465)
    assert DEFAULTS.cors_origins == ()
    assert DEFAULTS.max_body_bytes == 32 * 1024 * 1024
    assert (DEFAULTS.max_concurrency, DEFAULTS.timeout) == (1000, 600)
    assert (DEFAULTS.drain_delay, DEFAULTS.drain_grace) == (5, 10)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("CHAT_SERVICE_TARGET", "unix:/run/chat.sock", "service_target", "unix:/run/chat.sock"),
        ("CHAT_SERVICE_TARGET", "dns:///chat:50051", "service_target", "dns:///chat:50051"),
        ("CHAT_SERVICE_TARGET", "[::1]:1", "service_target", "dns:///[::1]:1"),
        (
            "CHAT_SERVICE_TARGET",
            "ipv4:10.0.0.1:1,10.0.0.2:1",
            "service_target",
            "ipv4:10.0.0.1:1,10.0.0.2:1",
        ),
        ("CHAT_BRIDGE_METRICS_LISTEN", "none", "metrics_listen", None),
        ("CHAT_BRIDGE_CORS_ORIGINS", "*", "cors_origins", ("*",)),
        (
            "CHAT_BRIDGE_CORS_ORIGINS",
            "https://a.example, http://localhost:3000,",
            "cors_origins",
            ("https://a.example", "http://localhost:3000"),
        ),
    ],
)
def test_what_is_allowed(name: str, text: str, field: str, value: object) -> None:
    assert getattr(read(Settings, {name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CHAT_BRIDGE_LISTEN", "8080"),
        ("CHAT_SERVICE_TARGET", "chat"),
        ("CHAT_SERVICE_TARGET", "unix:"),
        ("CHAT_SERVICE_TARGET", "unix:/a b"),
        ("CHAT_SERVICE_TARGET", "dns:///chat"),
        ("CHAT_SERVICE_TARGET", "ipv4:chat:50051"),
        ("CHAT_SERVICE_TARGET", "ipv4:10.0.0.1:1,"),
        ("CHAT_SERVICE_TARGET", "http://chat:50051"),
        ("CHAT_BRIDGE_CORS_ORIGINS", "a.example"),
        ("CHAT_BRIDGE_CORS_ORIGINS", "https://a.example/path"),
        ("CHAT_BRIDGE_CORS_ORIGINS", "https://a.example,*"),
        ("CHAT_BRIDGE_CORS_ORIGINS", "null"),
        ("CHAT_MAX_REQUEST_BYTES", "10"),
        ("CHAT_BRIDGE_MAX_CONCURRENCY", "0"),
        ("CHAT_BRIDGE_MAX_CONNECTIONS", "many"),
        ("CHAT_BRIDGE_TIMEOUT", "nan"),
        ("CHAT_BRIDGE_DRAIN_DELAY", "-1"),
        ("CHAT_BRIDGE_DRAIN_GRACE", "1h"),
        ("CHAT_LOG_LEVEL", "loud"),
    ],
)
def test_what_is_not_allowed_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} must be "):
        read(Settings, {name: text})


def test_every_setting_says_what_it_means() -> None:
    for row in rows(Settings):
        assert row.name.startswith(("CHAT_", "OTEL_"))
        assert row.meaning.endswith(".")
