"""The gRPC listeners of the service, and the options that all of them share.

server.py (callers), admin.py (operators) -> listener(interceptors, options(...)) -> server
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server as aio

from process.in_process import InProcessChannel
from process.whole_operations import to_its_end

Options: TypeAlias = Sequence[tuple[str, int]]
"""Channel arguments of gRPC: pairs of name and value."""

_SHARED: Final[Options] = (
    # gRPC keeps a header value that it cannot parse, with its error, in the HPACK table of the
    # connection. Later values of that header then fail with the same error, and behind a proxy
    # they belong to other callers. Without a table, a bad value fails only its own call, and each
    # call sends its headers in full, which costs some 300 bytes and 5 µs of CPU.
    ("grpc.http2.hpack_table_size.decoder", 0),
    # Both limits are the same, because gRPC rejects calls between them at random. Of a crowd of
    # calls with larger headers, no more is held. A bridge sends up to 9 KiB.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # Calls that have arrived and wait for their handlers. Beyond the default of 1,000, gRPC cancels
    # some of them at random: in a burst, or while somebody begins and cancels calls. Our own limit
    # of calls rejects them with a reason. A waiting call takes about 10 KB.
    ("grpc.server.max_pending_requests", 4_000),
    ("grpc.server.max_pending_requests_hard_limit", 4_000),
    # gRPC doubles what it reads from a connection at once for as long as the peer sends faster than
    # it is read: one connection without a key took up to 200 MB.
    ("grpc.experimental.tcp_max_read_buffer_size", 1024 * 1024),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 15 * 60 * 1000),
)


def options(
    *,
    max_request_bytes: int,
    max_response_bytes: int,
    max_streams: int,
    shares_port: bool,
    keepalive_interval: float = 30.0,
) -> Options:
    """Return the options of a listener.

    Args:
        max_request_bytes: Maximum size of a received message, in bytes.
        max_response_bytes: Maximum size of a sent message, in bytes.
        max_streams: Maximum concurrent calls on one connection; further calls wait at the client.
        shares_port: Whether the listener shares its port with other workers.
        keepalive_interval: Seconds of silence after which the listener pings a client. It
            disconnects a client that does not answer within 10 s.
    """
    return (
        *_SHARED,
        ("grpc.keepalive_time_ms", int(keepalive_interval * 1000)),
        # Only workers share a port and its calls. The start of any other second process fails.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", max_response_bytes),
        ("grpc.max_concurrent_streams", max_streams),
    )


def listener(interceptors: Sequence[grpc.aio.ServerInterceptor], options: Options) -> Any:
    """Return a server like `grpc.aio.server`, which serves only registered methods.

    Args:
        interceptors: The interceptors of each registered method, the outermost first.
        options: The channel arguments.
    """
    return _Server(interceptors, options)


class _Server(aio.Server):
    def __init__(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor], options: Options
    ) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Core(self._loop, None, (), interceptors, tuple(options), None)
        self._interceptors = interceptors
        self._handlers: dict[str, Any] = {}

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, Any]
    ) -> None:
        super().add_registered_method_handlers(service_name, method_handlers)
        self._handlers.update(
            {f"/{service_name}/{name}": handler for name, handler in method_handlers.items()}
        )

    def in_process(self) -> InProcessChannel:
        """Return an in-process channel to this server's methods."""
        return InProcessChannel(self._interceptors, self._handlers)


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # it has no types
    """Ends calls of unknown methods with UNIMPLEMENTED, outside grpcio's own loop.

    grpcio's loop decodes the path of each unregistered method. A path that is not UTF-8 ends the
    loop: one call without a key would close the listener. Generated code registers its methods, so
    that only unknown methods reach this code.
    """

    _answers: set[asyncio.Task[None]]

    def _make_request_call_future(self, method: bytes | None) -> Any:
        """Return a future of the next call of a method, or of an unregistered one if None."""
        if method is not None:
            return super()._make_request_call_future(method)
        self._answers = set()
        return asyncio.get_running_loop().create_task(self._answer_unknown())

    async def _answer_unknown(self) -> NoReturn:
        """End calls of unknown methods until the listener closes, which raises."""
        while True:
            call = await self._request_call()
            answer = asyncio.create_task(_unimplemented(call))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)


async def _unimplemented(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    with suppress(grpc.aio.InternalError):  # the connection may be lost
        try:
            code = grpc.StatusCode.UNIMPLEMENTED
            await to_its_end(context.abort(code, "Method not found!", ()))
        except grpc.aio.AbortError as error:
            # The call keeps the error, whose traceback keeps the call: a circle, which would hold
            # the stream open until the next search for garbage.
            error.with_traceback(None)
