"""The options of the channels, as literals, because most have an effect only after minutes."""

import json
from typing import Any

import pytest

from process import settings as process_settings
from restbridge import channel
from restbridge.config import Settings

ROUND_ROBIN: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}


def configurations(target: str) -> list[Any]:
    """Return the service configurations of the channels to a target, in order."""
    settings = process_settings.read(Settings, {"CHAT_SERVICE_TARGET": target})
    made: list[Any] = []

    def note(_: Settings, config: Any, _tls: object) -> Any:
        made.append(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "_dial", note)
        patch.setattr(channel, "_stubs", lambda _: None)
        channel.Service(settings)
    return made


def test_every_channel_has_these_options() -> None:
    settings = process_settings.read(Settings, {"CHAT_MAX_REQUEST_BYTES": "2000"})
    made = channel.options(settings, ROUND_ROBIN)

    assert dict(made) == {
        "grpc.max_send_message_length": 4000 + 1_048_576,
        "grpc.max_receive_message_length": 67_108_864,
        "grpc.max_metadata_size": 65_536,
        "grpc.absolute_max_metadata_size": 65_536,
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 0,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.enable_retries": 1,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 2_000,
        "grpc.max_reconnect_backoff_ms": 1_000,
        "grpc.dns_min_time_between_resolutions_ms": 1_000,
        "grpc.http2.bdp_probe": 0,
        "grpc.http2.lookahead_bytes": 8_192,
        "grpc.http2.max_frame_size": 65_536,
        "grpc.experimental.tcp_max_read_buffer_size": 8_192,
        "grpc.enable_http_proxy": 0,
        "grpc.service_config_disable_resolution": 1,
        "grpc.service_config": json.dumps(ROUND_ROBIN),
        "grpc.use_local_subchannel_pool": 1,
        "grpc.primary_user_agent": "chatcompletion-restbridge",
    }
    assert len(made) == len(dict(made))


def test_several_replicas_are_balanced_and_one_address_is_not() -> None:
    checked = {**ROUND_ROBIN, "healthCheckConfig": {"serviceName": ""}}

    assert configurations("unix:/run/chat") == [{"loadBalancingConfig": [{"pick_first": {}}]}]
    assert configurations("services:50051") == [checked, ROUND_ROBIN]
    assert configurations("dns:///services:50051") == [checked, ROUND_ROBIN]
    assert configurations("ipv4:127.0.0.1:1,127.0.0.1:2") == [checked, ROUND_ROBIN]
