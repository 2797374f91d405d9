"""The gRPC channels to the service, and their stubs.

    unix:PATH          pick_first    one channel
    several replicas   round_robin   a channel with health checks: replicas that are SERVING
                       round_robin   a second channel without: any replica, if none is SERVING
    this process       none          calls the service's handlers directly

A replica that drains, or whose store is away, is NOT_SERVING but still responds. If no replica is
SERVING, such a response is clearer than a failed call. gRPC checks health only with round_robin,
and then fails every call if no replica is SERVING.

This module sets every option that matters, so that a new default of grpcio changes nothing.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import grpc
import grpc.aio
from grpc import ChannelConnectivity
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from chatcompletion.v1 import (
    chat_completion_service_pb2_grpc,
    credit_service_pb2_grpc,
    model_service_pb2_grpc,
)
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionRequest
from process.in_process import InProcessChannel
from process.settings import UNIX
from process.tls.credentials import Credentials
from restbridge.config import SEVERAL, Settings

if TYPE_CHECKING:  # the types of asyncio stubs exist only in the .pyi files
    from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceAsyncStub
    from chatcompletion.v1.credit_service_pb2_grpc import CreditServiceAsyncStub
    from chatcompletion.v1.model_service_pb2_grpc import ModelServiceAsyncStub

_STREAM: Final = "/chatcompletion.v1.ChatCompletionService/StreamChatCompletion"
_MEBIBYTE: Final = 1024 * 1024

LARGEST_ANSWER: Final = 64 * _MEBIBYTE
"""Maximum size of a message from the service, in bytes."""


_ServiceConfig = Mapping[str, object]

_ONE_ADDRESS: Final[_ServiceConfig] = {"loadBalancingConfig": [{"pick_first": {}}]}
_ANY_REPLICA: Final[_ServiceConfig] = {"loadBalancingConfig": [{"round_robin": {}}]}
_SERVING_REPLICA: Final[_ServiceConfig] = {**_ANY_REPLICA, "healthCheckConfig": {"serviceName": ""}}


def options(
    settings: Settings, service_config: _ServiceConfig
) -> tuple[tuple[str, str | int], ...]:
    """Return the options of a channel."""
    # gRPC has no name of its own for a UNIX domain socket.
    is_here = settings.service_target.startswith(UNIX)
    name = settings.service_tls_name or ("localhost" if is_here else "")
    return (
        # A request of tiny values is up to twice as long as a message as in JSON.
        ("grpc.max_send_message_length", 2 * settings.max_body_bytes + _MEBIBYTE),
        ("grpc.max_receive_message_length", LARGEST_ANSWER),
        # Error details above the default of 8 KiB would be lost together with the status.
        ("grpc.max_metadata_size", 65_536),
        ("grpc.absolute_max_metadata_size", 65_536),
        # Detects a dead peer while calls run. The service allows a ping every 20 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        # Without a retry policy, gRPC retries only calls that never reached the service, such as
        # those on a closing connection. All other retries are the service's.
        ("grpc.enable_retries", 1),
        # Finds a service that starts later within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # Limits the buffer of a stream whose client does not read to 8 KiB and one message, instead
        # of megabytes. With frames of the default of 16 KiB, it takes 1.5 times that. gRPC extends
        # the window to the message that the bridge waits for, of any size.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 8 * 1024),
        ("grpc.http2.max_frame_size", 64 * 1024),
        # gRPC reads a connection into blocks of 64 KiB, and keeps a block for as long as it has a
        # byte of a message that is not read. Up to 12 KiB at a time, its blocks have 8 KiB.
        ("grpc.experimental.tcp_max_read_buffer_size", 8 * 1024),
        # Only the settings determine the address of the service, not a proxy variable.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", "chatcompletion-restbridge"),
        *((("grpc.ssl_target_name_override", name),) if name else ()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stubs:
    """The stubs of the contract's services and of the health service, on one channel."""

    channel: "Channel"
    completions: "ChatCompletionServiceAsyncStub"
    models: "ModelServiceAsyncStub"
    credits: "CreditServiceAsyncStub"
    chunks: "_Chunks"
    """StreamChatCompletion without parsing. A service in this process sends no bytes."""
    health: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]


_Chunks: TypeAlias = Callable[..., Any]  # as a grpc.aio.UnaryStreamMultiCallable

Channel: TypeAlias = "grpc.aio.Channel | InProcessChannel"
"""A channel that stubs can use."""


class Service:
    """The service, as the bridge calls it. Connects at the first call. Needs a running event loop.

    Args:
        settings: The settings.
        channel: A channel to a service in this process, or None to dial the configured address.
        tls: The authorities of the service and the bridge's own certificate; None for plaintext.
    """

    def __init__(
        self,
        settings: Settings,
        channel: InProcessChannel | None = None,
        *,
        tls: Credentials | None = None,
    ) -> None:
        self._settings = settings
        self._closing: set[asyncio.Task[None]] = set()
        self._first: Stubs
        self._otherwise: Stubs | None = None
        self.timeout = settings.timeout
        """The deadline of each call, in seconds."""
        if channel is not None:
            self._first = _stubs(channel)
        else:
            self._connect(tls)

    def _connect(self, tls: Credentials | None) -> None:
        several = self._settings.service_target.startswith(SEVERAL)
        first = _SERVING_REPLICA if several else _ONE_ADDRESS
        self._first = _stubs(_dial(self._settings, first, tls))
        self._otherwise = _stubs(_dial(self._settings, _ANY_REPLICA, tls)) if several else None

    def renew(self, tls: Credentials) -> None:
        """Use other certificates for later calls. Calls in flight end on their connections."""
        for stubs in (self._first, self._otherwise):
            if stubs is not None:
                task = asyncio.ensure_future(stubs.channel.close(self.timeout))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._connect(tls)

    def stubs(self) -> Stubs:
        """Return the stubs for the next call."""
        if self._otherwise is not None:
            # While the channel connects or checks health, calls wait on it.
            state = cast("grpc.aio.Channel", self._first.channel).get_state()
            if state is ChannelConnectivity.TRANSIENT_FAILURE:
                return self._otherwise
        return self._first

    async def close(self) -> None:
        """Close the channels and cancel the calls in flight."""
        for task in tuple(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._first.channel.close()
        if self._otherwise is not None:
            await self._otherwise.channel.close()


def _dial(
    settings: Settings, service_config: _ServiceConfig, tls: Credentials | None
) -> grpc.aio.Channel:
    given = options(settings, service_config)
    if tls is None:
        return grpc.aio.insecure_channel(settings.service_target, options=given)
    credentials = grpc.ssl_channel_credentials(
        tls.authorities, tls.key or None, tls.certificate or None
    )
    return grpc.aio.secure_channel(settings.service_target, credentials, options=given)


class _Unsent:
    """A request message, until gRPC serializes it. grpc.aio would keep the message in its call."""

    __slots__ = ("_request",)

    def __init__(self, request: StreamChatCompletionRequest) -> None:
        self._request = request

    def serialized(self) -> bytes:
        """Return the bytes of the message, once."""
        data = self._request.SerializeToString()
        del self._request
        return data


def _chunks(channel: "Channel") -> "_Chunks":
    if isinstance(channel, InProcessChannel):
        return channel.unary_stream(_STREAM)
    method: _Chunks = channel.unary_stream(_STREAM, request_serializer=_Unsent.serialized)
    return lambda request, **options: method(_Unsent(request), **options)


def _stubs(channel: "Channel") -> Stubs:
    through = cast(
        "grpc.aio.Channel", channel
    )  # an InProcessChannel has all methods that stubs use
    return Stubs(
        channel=channel,
        completions=chat_completion_service_pb2_grpc.ChatCompletionServiceStub(through),
        models=model_service_pb2_grpc.ModelServiceStub(through),
        credits=credit_service_pb2_grpc.CreditServiceStub(through),
        chunks=_chunks(channel),
        health=through.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        ),
    )
