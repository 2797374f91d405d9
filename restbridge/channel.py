"""The way to the service: its channels, and the stubs on them.

    one address        pick_first    every call
    several replicas   round_robin   a replica that is SERVING, if any is
                       round_robin   otherwise any replica: a second channel, without health checks
    this process       none          every call: the service's own handlers are called

A replica that drains is NOT_SERVING but still answers, and so does one whose store is away: if no
replica is SERVING, the service's own answer is better than none. gRPC checks the health of replicas
only under round_robin, and then fails every call if none is SERVING.

Every option that matters is set here; none is left to what grpcio defaults to today.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import grpc.aio
from grpc import ChannelConnectivity
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from chatcompletion.v1 import (
    chat_completion_service_pb2_grpc,
    credit_service_pb2_grpc,
    model_service_pb2_grpc,
)
from process.in_process import InProcessChannel
from restbridge.config import SEVERAL, Settings

if TYPE_CHECKING:  # the stubs for asyncio exist for the type checker only
    from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceAsyncStub
    from chatcompletion.v1.credit_service_pb2_grpc import CreditServiceAsyncStub
    from chatcompletion.v1.model_service_pb2_grpc import ModelServiceAsyncStub

_MEBIBYTE: Final = 1024 * 1024

LARGEST_ANSWER: Final = 64 * _MEBIBYTE
"""The largest message that is taken from the service, in bytes."""


_ServiceConfig = Mapping[str, object]

_ONE_ADDRESS: Final[_ServiceConfig] = {"loadBalancingConfig": [{"pick_first": {}}]}
_ANY_REPLICA: Final[_ServiceConfig] = {"loadBalancingConfig": [{"round_robin": {}}]}
_SERVING_REPLICA: Final[_ServiceConfig] = {**_ANY_REPLICA, "healthCheckConfig": {"serviceName": ""}}


def options(
    settings: Settings, service_config: _ServiceConfig
) -> tuple[tuple[str, str | int], ...]:
    """Return the options of a channel."""
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
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", "chatcompletion-restbridge"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stubs:
    """The services of the contract, and the health, on one channel."""

    channel: "Channel"
    completions: "ChatCompletionServiceAsyncStub"
    models: "ModelServiceAsyncStub"
    credits: "CreditServiceAsyncStub"
    health: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]


Channel: TypeAlias = "grpc.aio.Channel | InProcessChannel"
"""What stubs call through."""


class Service:
    """The service, as the bridge calls it. It connects at the first call.

    Needs a running event loop.

    Args:
        settings: The settings.
        channel: The way to a service in this process; None is the address in the settings.
    """

    def __init__(self, settings: Settings, channel: InProcessChannel | None = None) -> None:
        several = channel is None and settings.service_target.startswith(SEVERAL)
        self._first = _stubs(
            channel or _dial(settings, _SERVING_REPLICA if several else _ONE_ADDRESS)
        )
        self._otherwise = _stubs(_dial(settings, _ANY_REPLICA)) if several else None
        self.timeout = settings.timeout
        """The deadline of each call, in seconds."""

    def stubs(self) -> Stubs:
        """Return the stubs for the next call."""
        if self._otherwise is not None:
            # Neither a connection that is being made nor a check that is under way is a failure.
            state = cast("grpc.aio.Channel", self._first.channel).get_state()
            if state is ChannelConnectivity.TRANSIENT_FAILURE:
                return self._otherwise
        return self._first

    async def close(self) -> None:
        """Close the channels; calls that still run are cancelled."""
        await self._first.channel.close()
        if self._otherwise is not None:
            await self._otherwise.channel.close()


def _dial(settings: Settings, service_config: _ServiceConfig) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        settings.service_target, options=options(settings, service_config)
    )


def _stubs(channel: "Channel") -> Stubs:
    through = cast("grpc.aio.Channel", channel)  # all that stubs want of one
    return Stubs(
        channel=channel,
        completions=chat_completion_service_pb2_grpc.ChatCompletionServiceStub(through),
        models=model_service_pb2_grpc.ModelServiceStub(through),
        credits=credit_service_pb2_grpc.CreditServiceStub(through),
        health=through.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        ),
    )
