"""The options of the listeners, as literals, because most have an effect only after minutes."""

from process import settings as process_settings
from service import admin, server
from service.config import Settings
from service.listeners import options

SHARED = {
    "grpc.so_reuseport": 1,
    "grpc.http2.hpack_table_size.decoder": 0,
    "grpc.max_metadata_size": 16_384,
    "grpc.absolute_max_metadata_size": 16_384,
    "grpc.experimental.tcp_max_read_buffer_size": 1024 * 1024,
    "grpc.server.max_pending_requests": 4_000,
    "grpc.server.max_pending_requests_hard_limit": 4_000,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.max_connection_idle_ms": 900_000,
}


def test_every_listener_has_these_options() -> None:
    made = options(max_request_bytes=1, max_response_bytes=2, max_streams=3, shares_port=True)

    assert dict(made) == {
        **SHARED,
        "grpc.max_receive_message_length": 1,
        "grpc.max_send_message_length": 2,
        "grpc.max_concurrent_streams": 3,
    }
    assert len(made) == len(dict(made))


def test_the_listener_of_callers_has_these_by_the_settings() -> None:
    settings = process_settings.read(
        Settings,
        {
            "CHAT_MAX_REQUEST_BYTES": "2000",
            "CHAT_MAX_RESPONSE_BYTES": "3000",
            "CHAT_MAX_CONCURRENT_CALLS": "50",
            "CHAT_REQUEST_TIMEOUT": "70",
            "CHAT_MAX_CONNECTION_AGE": "20.5",
            "CHAT_KEEPALIVE_INTERVAL": "40",
            "CHAT_KEEPALIVE_MINIMUM": "5",
        },
    )

    assert dict(server._options(settings, shares_port=True)) == {
        **SHARED,
        "grpc.keepalive_time_ms": 40_000,
        "grpc.max_receive_message_length": 4000,
        "grpc.max_send_message_length": 6000,
        "grpc.max_concurrent_streams": 200,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": 5_000,
        "grpc.http2.max_ping_strikes": 3,
        "grpc.max_connection_age_ms": 20_500,
        "grpc.max_connection_age_grace_ms": 70_000,
    }


def test_the_listener_of_operators_has_these() -> None:
    assert dict(admin._options(shares_port=True)) == {
        **SHARED,
        "grpc.max_receive_message_length": 262_144,
        "grpc.max_send_message_length": 8_388_608,
        "grpc.max_concurrent_streams": 100,
    }


def test_only_workers_share_a_port() -> None:
    settings = process_settings.read(Settings, {})

    for made in (server._options(settings, shares_port=False), admin._options(shares_port=False)):
        assert dict(made)["grpc.so_reuseport"] == 0
