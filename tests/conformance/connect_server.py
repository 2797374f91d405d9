"""The server that connectconformance tests: its service, behind our options and our interceptor.

    connectconformance -> ServerCompatRequest on stdin  -> the listener starts on a free port
                       <- ServerCompatResponse on stdout
                       -> calls of ConformanceService, until SIGTERM

A definition in the request describes the response. Its headers take the place of those of rate
limits, and its error takes the place of a failure of the service, so that every response passes
through the code that sends those of the service.

Run by connectconformance: `python -m tests.conformance.connect_server PROTOS`, where PROTOS is the
folder with the `.proto` files of the suite.
"""

import asyncio
import signal
import struct
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from service import errors, interceptors
from service.call import CURRENT, Call, Calls
from service.interceptors import CallInterceptor
from service.listeners import listener, options
from service.telemetry import Telemetry
from tests.conformance.suite_protos import messages

SERVICE: Final = "connectrpc.conformance.v1.ConformanceService"

_LONGEST: Final = 60.0
_LARGEST: Final = 4 * 1024 * 1024
_MOST_CALLS: Final = 1000
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_Pairs: TypeAlias = tuple[tuple[str, str | bytes], ...]


class RequestedFailure(errors.Internal):
    """The error that a definition asks for, in place of a failure of the contract."""

    def __init__(self, error: Any, details: Iterable[Message], trailers: _Pairs) -> None:
        super().__init__()
        self.trailers = trailers
        self.status = status_pb2.Status(code=error.code, message=error.message)
        self.status.details.extend(error.details)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            self.status.details.append(packed)


class Conformance:
    """ConformanceService, as far as the contract has such methods: unary and server streaming.

    Args:
        protos: The module with the messages of the suite.
    """

    def __init__(self, protos: Any) -> None:
        self._protos = protos

    async def unary(self, request: Any, context: Any) -> Any:
        """Answer with one message, or fail."""
        definition = request.response_definition
        info = self._info(request, context)
        _use_headers(definition.response_headers)
        trailers = _pairs(definition.response_trailers)
        await asyncio.sleep(definition.response_delay_ms / 1000)
        if definition.HasField("error"):
            # Sent here, because the interceptor would repeat the headers in the trailers.
            await context.send_initial_metadata(_pairs(definition.response_headers))
            CURRENT.get().begun, CURRENT.get().rate_limit = True, ()
            raise RequestedFailure(definition.error, (info,), trailers)
        context.set_trailing_metadata(trailers)
        payload = self._protos.ConformancePayload(data=definition.response_data, request_info=info)
        return self._protos.UnaryResponse(payload=payload)

    async def server_stream(self, request: Any, context: Any) -> AsyncGenerator[list[Any]]:
        """Answer with any number of messages, then end or fail."""
        definition = request.response_definition
        info = self._info(request, context)
        _use_headers(definition.response_headers)
        trailers = _pairs(definition.response_trailers)
        if request.HasField("response_definition"):
            yield []  # sends the headers
        for number, data in enumerate(definition.response_data):
            await asyncio.sleep(definition.response_delay_ms / 1000)
            payload = self._protos.ConformancePayload(
                data=data, request_info=None if number else info
            )
            yield [self._protos.ServerStreamResponse(payload=payload)]
        if definition.HasField("error"):
            details = () if definition.response_data else (info,)
            raise RequestedFailure(definition.error, details, trailers)
        context.set_trailing_metadata(trailers)

    def _info(self, request: Message, context: Any) -> Any:
        info = self._protos.ConformancePayload.RequestInfo()
        values: dict[str, list[str]] = {}
        for name, value in context.invocation_metadata():
            text = b64encode(value).decode().rstrip("=") if isinstance(value, bytes) else value
            values.setdefault(name, []).append(text)
        for name, found in values.items():
            info.request_headers.add(name=name, value=found)
        remaining = context.time_remaining()
        if remaining is not None:
            info.timeout_ms = max(0, int(remaining * 1000))
        info.requests.add().Pack(request)
        return info


def _use_headers(headers: Iterable[Any]) -> None:
    CURRENT.get().rate_limit = _pairs(headers)  # type: ignore[assignment]


def _pairs(headers: Iterable[Any]) -> _Pairs:
    """Return headers as metadata: the suite writes binary values in base64."""
    pairs = ((header.name.lower(), value) for header in headers for value in header.value)
    return tuple(
        (name, b64decode(value + "==") if name.endswith("-bin") else value) for name, value in pairs
    )


def _status(failure: errors.Failure, request_id: str) -> errors.Status:
    """Return the status of a failure, in place of `errors.status`."""
    if not isinstance(failure, RequestedFailure):
        own = _own_status(failure, request_id)
        return errors.Status(own.code, own.details, ())  # the suite expects no details
    wanted = failure.status
    details = (errors.STATUS_DETAILS, wanted.SerializeToString())
    return errors.Status(_CODES[wanted.code], wanted.message, (details, *failure.trailers))


_own_status: Final = errors.status


async def _authenticate(_: Call) -> None:
    """Let every call in: the suite sends no keys."""


def _handlers(protos: Any) -> dict[str, Any]:
    conformance = Conformance(protos)
    return {
        "Unary": grpc.unary_unary_rpc_method_handler(
            conformance.unary,
            request_deserializer=protos.UnaryRequest.FromString,
            response_serializer=protos.UnaryResponse.SerializeToString,
        ),
        "ServerStream": grpc.unary_stream_rpc_method_handler(
            conformance.server_stream,
            request_deserializer=protos.ServerStreamRequest.FromString,
            response_serializer=protos.ServerStreamResponse.SerializeToString,
        ),
    }


async def _serve(protos: Any) -> None:
    (length,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    wanted = protos.ServerCompatRequest.FromString(sys.stdin.buffer.read(length))
    interceptor = CallInterceptor(
        Calls(_MOST_CALLS),
        Telemetry(),
        authenticate=_authenticate,
        longest=_LONGEST,
        clock=time.monotonic,
    )
    server = listener(
        [interceptor],
        options(
            max_request_bytes=wanted.message_receive_limit or _LARGEST,
            max_response_bytes=_LARGEST,
            max_streams=_MOST_CALLS,
            shares_port=False,
        ),
    )
    handlers = _handlers(protos)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    response = protos.ServerCompatResponse(host="127.0.0.1", port=port).SerializeToString()
    sys.stdout.buffer.write(struct.pack(">I", len(response)) + response)
    sys.stdout.buffer.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(None)


if __name__ == "__main__":
    interceptors.CONTRACT = f"/{SERVICE}"  # type: ignore[misc]  # its prefix of wrapped methods
    errors.status = _status
    asyncio.run(_serve(messages(Path(sys.argv[1]))))
