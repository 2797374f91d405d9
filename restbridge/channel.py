"""The way to the service: one channel, and the stubs on it.

Every option that matters is set here; none is left to what grpcio defaults to today.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from chatcompletion.v1 import (
    chat_completion_service_pb2_grpc,
    credit_service_pb2_grpc,
    model_service_pb2_grpc,
)
from restbridge.config import Settings

if TYPE_CHECKING:  # the stubs for asyncio exist for the type checker only
    from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceAsyncStub
    from chatcompletion.v1.credit_service_pb2_grpc import CreditServiceAsyncStub
    from chatcompletion.v1.model_service_pb2_grpc import ModelServiceAsyncStub

_MEBIBYTE: Final = 1024 * 1024

LARGEST_ANSWER: Final = 64 * _MEBIBYTE
"""The largest message that is taken from the service, in bytes."""


def options(settings: Settings) -> tuple[tuple[str, str | int], ...]:
    """Return the options of the channel."""
    balancing = "round_robin" if settings.service_target.startswith("dns:") else "pick_first"
    return (
        # A request can be longer as a message than as JSON: twice, where every value is tiny.
        ("grpc.max_send_message_length", 2 * settings.max_body_bytes + _MEBIBYTE),
        ("grpc.max_receive_message_length", LARGEST_ANSWER),
        # With the default of 8 KiB an error's details can be lost, and its status with them.
        ("grpc.max_metadata_size", 65_536),
        ("grpc.absolute_max_metadata_size", 65_536),
        # A dead peer is noticed while calls run. The service permits a ping per 20 s or less.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        # Without a policy, gRPC sends again only what the service never saw: a call that met the
        # end of an old connection. Anything else is retried by one layer, and it is the service.
        ("grpc.enable_retries", 1),
        # A service that starts late is found within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # A reader that does not read holds 64 KiB of the stream here, not megabytes.
        ("grpc.http2.bdp_probe", 0),
        # The settings alone say where the service is.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{balancing: {}}]})),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", "chatcompletion-restbridge"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The service, as the bridge calls it."""

    completions: "ChatCompletionServiceAsyncStub"
    models: "ModelServiceAsyncStub"
    credits: "CreditServiceAsyncStub"
    health: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]
    timeout: float
    """The deadline of each call, in seconds."""


def open_channel(settings: Settings) -> grpc.aio.Channel:
    """Return the channel; it connects when it is used. Needs a running event loop."""
    return grpc.aio.insecure_channel(settings.service_target, options=options(settings))


def service(channel: grpc.aio.Channel, timeout: float) -> Service:
    """Return the stubs on a channel."""
    return Service(
        completions=chat_completion_service_pb2_grpc.ChatCompletionServiceStub(channel),
        models=model_service_pb2_grpc.ModelServiceStub(channel),
        credits=credit_service_pb2_grpc.CreditServiceStub(channel),
        health=channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        ),
        timeout=timeout,
    )
