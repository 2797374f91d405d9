"""POST /v1/chat/completions: decode, call, encode; as one document or as a stream.

    read body -> decode -> CreateChatCompletion -> one document
                        -> StreamChatCompletion -> await the first message
                                                     failure: a status and an error object
                                                     message: 200, events, [DONE]

There is no `try` here: `error_middleware` catches each exception and sends the best possible
response.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from starlette.types import Receive, Scope, Send

from chatcompletion import charges
from chatcompletion.openai_json import (
    DecodeError,
    TextChunk,
    WireChunks,
    decode_request,
    encode_chunk,
    encode_completion,
)
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
    StreamChatCompletionResponse,
)
from process.in_process import each
from restbridge import headers
from restbridge.channel import Service
from restbridge.clock import Clock
from restbridge.error_responses import RefusedError, of_document
from restbridge.event_stream import SILENCE, EventStream, receipt
from restbridge.forward import forward
from restbridge.http.exchange import Departure, Exchange, exchange_of
from restbridge.http.limits import Bodies, check_json
from restbridge.telemetry import Telemetry

CREATE: Final = "chatcompletion.v1.ChatCompletionService/CreateChatCompletion"
STREAM: Final = "chatcompletion.v1.ChatCompletionService/StreamChatCompletion"

_DECODED_IN_PLACE: Final = 256 * 1024
# A larger body is decoded in a thread, so that it does not delay other streams.


class ChatCompletions:
    """POST /v1/chat/completions, as an ASGI application.

    Args:
        service: The service.
        bodies: Reads the request bodies.
        telemetry: Counts open streams.
        clock: Measures silence.
        silence: Seconds without an event after which a stream sends a keep-alive comment.
    """

    def __init__(
        self,
        service: Service,
        bodies: Bodies,
        telemetry: Telemetry,
        clock: Clock,
        *,
        silence: float = SILENCE,
    ) -> None:
        self._service = service
        self._bodies = bodies
        self._telemetry = telemetry
        self._clock = clock
        self._silence = silence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        check_json(scope)
        with self._bodies.holding() as body:
            params = await decoded(await body.read(scope, receive))
            if params.stream:
                streaming = self._stream(scope, receive, send, params)
                del params  # an open stream does without it
                await streaming
            else:
                await self._create(scope, receive, send, params)

    async def _create(
        self, scope: Scope, receive: Receive, send: Send, params: ChatCompletionParams
    ) -> None:
        await forward(
            scope,
            receive,
            send,
            rpc=CREATE,
            method=self._service.stubs().completions.CreateChatCompletion,
            request=CreateChatCompletionRequest(params=params),
            encode=lambda response: encode_completion(response.completion),
            deadline=self._service.timeout,
            more=headers.idempotency(scope["headers"]),
        )

    async def _stream(
        self, scope: Scope, receive: Receive, send: Send, params: ChatCompletionParams
    ) -> None:
        exchange = exchange_of(scope)
        key = headers.idempotency(scope["headers"])
        call = self._service.stubs().chunks(
            StreamChatCompletionRequest(
                params=params, resume_token=headers.last_event_id(scope["headers"])
            ),
            metadata=headers.metadata(
                scope["headers"], exchange.request_id, exchange.calling(STREAM)
            )
            + key,
            timeout=self._service.timeout,
        )
        del params  # as above
        self._telemetry.streams.inc()
        try:
            with Departure(exchange, receive):
                async with self._events(exchange, send, has_ids=bool(key)) as events:
                    await relay(call, events)
        finally:
            self._telemetry.streams.dec()
            call.cancel()

    def _events(self, exchange: Exchange, send: Send, *, has_ids: bool) -> EventStream:
        return EventStream(
            exchange, send, clock=self._clock, silence=self._silence, has_ids=has_ids
        )


class Responses(Protocol):
    """The methods of a streaming call that `relay` uses."""

    async def read(self) -> object:
        """Return the next message, or `grpc.aio.EOF` at the end. Raise if the call failed."""

    async def initial_metadata(self) -> headers.Metadata:
        """Return the initial metadata of the call."""

    async def trailing_metadata(self) -> headers.Metadata:
        """Return the trailing metadata of the call, which has ended."""


def _id_of(response: StreamChatCompletionResponse | TextChunk) -> str:
    """Return the id of an event; "" if the service gives none, because it ignores the key."""
    return "" if isinstance(response, TextChunk) else response.resume_token


async def relay(call: Responses, events: EventStream) -> None:
    """Send the messages of a call as events.

    Send nothing before the first message, so that an earlier failure has its own HTTP status.
    """
    wire = WireChunks()

    async def send(messages: Sequence[bytes | StreamChatCompletionResponse | TextChunk]) -> None:
        responses = [wire.read(each) if isinstance(each, bytes) else each for each in messages]
        del messages
        if not events.is_open:
            await events.open(headers.answer(await call.initial_metadata()))
        ids = [_id_of(response) for response in responses] if events.has_ids else None
        writing = events.write(*map(encoded, responses), ids=ids)
        del responses  # a client who does not read would keep them in memory
        await writing

    await each(call, send)
    if not events.is_open:
        await events.open(headers.answer(await call.initial_metadata()))
    charge = charges.of(await call.trailing_metadata())
    await events.finish(b"" if charge is None else receipt(charges.text(charge).encode()))


def encoded(response: StreamChatCompletionResponse | TextChunk) -> bytes:
    """Return the chunk of a response as JSON."""
    return response.encode() if isinstance(response, TextChunk) else encode_chunk(response.chunk)


async def decoded(body: bytes) -> ChatCompletionParams:
    """Return the request in a body.

    Raises:
        RefusedError: The body is no request.
    """
    try:
        if len(body) <= _DECODED_IN_PLACE:
            return decode_request(body)
        return await asyncio.to_thread(decode_request, body)
    except DecodeError as error:
        raise RefusedError(of_document(error)) from None
