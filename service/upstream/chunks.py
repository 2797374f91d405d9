"""Reads the chunks of a stream from the bytes of its body: decodes, observes, renames. No I/O.

    piece -> take -> response, response, …   lazily: each is observed when it is taken
    clean end of the body -> finish -> …     the last ones
                     is_done                 the response is complete
                     is_cut                  the upstream ignored the output limit
                     a Failure               after the chunks before it

The first byte of the body decides what the body is. Its content type does not.

    { or [                  a JSON text instead of events: the error that it reports
    a letter or a colon     events
    any other byte          an invalid response

`stream_end` of the upstream decides what completes a response:

    lenient     [DONE] after a choice began, or a clean end after the finish_reason of each choice
    strict      [DONE] after the finish_reason of each choice

`apart` and `together` group the responses into the lists that a caller receives. The receiver of a
list owns it: no other reference to a large chunk is kept, so that a receiver who waits can drop it.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final, TypeAlias, TypeVar

from chatcompletion import openai_json
from chatcompletion.openai_json import TextChunk, TextChunks
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, ChatCompletionChunk
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionResponse
from service import errors
from service.call_trace import CallTrace
from service.metering.output_size import is_text_alone
from service.metering.progress import Progress, alike
from service.models import Model
from service.telemetry import CallRecord
from service.upstream import error_bodies, refusals
from service.upstream.mending import mended
from service.upstream.rewriting import rename, restyle
from service.upstream.sse import EventParser, EventTooLargeError

_OVERRAN: Final = "The model provider exceeded the output limit within a tool call."
_DONE: Final = b"[DONE]"
_FAILURE: Final = b"error"
"""The name of events that report an error."""
_ERROR: Final = b'"error"'
"""Every chunk that reports an error contains this word; upstreams do not escape its letters."""
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
"""The bytes of a byte-order mark and of empty lines, which can precede the first event."""
_LARGE: Final = 4096
"""Bytes of an event above which its chunk is not kept after it was delivered."""
_LARGEST_DOCUMENT: Final = 64 * 1024
"""Maximum bytes of a JSON text instead of events."""
_NO_ERROR: Final = frozenset({"null", "false", "0", '""', "{}", "[]"})
"""Values of a member `error` that report no error."""

_Answer = TypeVar("_Answer")

Response: TypeAlias = StreamChatCompletionResponse | TextChunk
"""What a caller receives of a stream; a `TextChunk` if only its text differs from another's."""

_Responses: TypeAlias = Iterator[Response]


class ChunkReader:
    """Reads the chunks of one stream.

    Args:
        model: The model, with the name that the caller used.
        progress: Observes every chunk, including those that are withheld from the caller.
        record: Records whether the stream was cut, and how many events were mended.
        max_event_bytes: The maximum size of an event.
        trace: Notes what the upstream's chunks say; None if no spans are exported.
        keeps_usage: Whether the usage chunk at the end stays in `progress.kept`, because it gets
            the receipt.
    """

    def __init__(
        self,
        model: Model,
        progress: Progress,
        record: CallRecord,
        *,
        max_event_bytes: int,
        trace: CallTrace | None = None,
        keeps_usage: bool = False,
    ) -> None:
        self._texts = TextChunks()
        self._trace = trace
        self._model = model
        self._strict = model.dialect.stream_end == "strict"
        self._finishes = bool(model.dialect.finish_reasons)
        self._progress = progress
        self._record = record
        self._events = EventParser(max_event_bytes)
        self._keeps_usage = keeps_usage
        self._begun = False
        """Whether the body has a byte that is not blank."""
        self._document: bytearray | None = None
        """The JSON text that the body has instead of events."""
        self._heard = False
        """Whether the body has an event, or begins with a comment."""
        self._unreadable: type[errors.Failure] = errors.UpstreamInvalidResponse
        """The failure that an unreadable event raises."""
        self._last: ChatCompletionChunk | None = None
        """The last chunk; of a large one, only the attributes that all chunks share."""
        self.is_done = False
        """Whether the response is complete."""
        self.is_cut = False
        """Whether the upstream ignored the output limit, so that the rest is not read."""

    def take(self, piece: bytes) -> _Responses:
        """Yield the responses for the caller that the next bytes complete.

        Raises:
            Failure: The upstream reported a failure, or the stream is malformed or incomplete.
        """
        if not self._begun:
            self._begin(piece.lstrip(_BLANK))
        if self._document is not None:
            self._document += piece
            if len(self._document) > _LARGEST_DOCUMENT:
                raise self._refused(self._document)
            return iter(())
        try:
            events = self._events.feed(piece)
        except EventTooLargeError as error:
            raise _too_large() from error
        self._heard = self._heard or bool(events)
        return self._read(events)

    def finish(self) -> _Responses:
        """Yield the responses for the caller that the clean end of the body completes.

        Raises:
            Failure: As for `take`.
        """
        if self._document is not None:
            raise self._refused(self._document)
        try:
            events = self._events.finish()
        except EventTooLargeError as error:
            raise _too_large() from error
        if self._begun and not self._heard and not events:
            raise errors.UpstreamInvalidResponse(dispatched=True)
        self._unreadable = errors.UpstreamTruncated  # the rest of the event is missing
        yield from self._read(events)
        if self.is_done or self.is_cut:
            return
        if self._strict or not self._progress.complete:
            raise errors.UpstreamTruncated(dispatched=True)
        self.is_done = True
        yield from self._usage()

    def _usage(self) -> _Responses:
        """Yield the usage chunk that the caller requested, if the upstream sent none."""
        if self._last is None:
            return
        yield from self._made(self._progress.missing_usage(self._last))

    def _begin(self, body: bytes) -> None:
        """Decide by the first byte that is not blank what the body is."""
        first = body[:1]
        if first in (b"{", b"["):
            self._document = bytearray()
        elif not (first.isalpha() or first in (b":", b"")):
            raise errors.UpstreamInvalidResponse(dispatched=True)
        self._begun = first != b""
        self._heard = first == b":"

    def _refused(self, document: bytearray) -> errors.Failure:
        """Return the failure of a body that is JSON instead of events."""
        found = reported(bytes(document.lstrip(_BLANK)), self._model)
        return found or errors.UpstreamInvalidResponse(dispatched=True)

    def _read(self, events: list[tuple[bytes, bytes]]) -> _Responses:
        """Yield the responses of events. Keep neither the event nor, if it is large, the chunk.

        Otherwise, a caller who does not read would keep all of them in memory.
        """
        progress, texts = self._progress, self._texts
        events.reverse()
        while events:
            name, data = events.pop()
            can_repeat = name != _FAILURE and progress.kept is None
            repetition = texts.repetition(data) if can_repeat else None
            if repetition is not None:
                del data
                self._last = repetition.template.chunk
                progress.observe_text(repetition.text)
                yield repetition
            elif data.startswith(_DONE):
                yield from self._end()
                return
            else:
                ready = self._observed(name, data)
                del data
                while ready:
                    yield ready.pop(0)
            if progress.overruns:
                yield from self._overrun()
                return

    def _observed(self, name: bytes, data: bytes) -> list[Response]:
        """Decode and observe the chunk of an event. Return what to deliver now."""
        progress = self._progress
        if name != _FAILURE and not data.strip():
            return []  # some gateways keep a stream alive so
        response = self._decode(name, data)
        chunk = response.chunk
        is_pattern = self._texts.learn(data, chunk)
        if self._trace is not None:
            self._trace.hear(chunk)
        reports = chunk.HasField("usage")
        if self._finishes or reports:
            restyle(chunk, self._model, gives_receipt=self._keeps_usage)
        self._last = alike(chunk) if len(data) > _LARGE else chunk
        if not progress.observe(chunk):
            return []
        rename(chunk, self._model)
        if reports or progress.kept is not None:
            return self._keep(response)
        if is_pattern and _text_alone_counts(chunk):
            self._texts.repeat(chunk)
        return [response]

    def _end(self) -> _Responses:
        """End the stream with `[DONE]`."""
        if not self._strict:
            self._progress.end()
        if not self._progress.complete:
            raise errors.UpstreamTruncated(dispatched=True)
        self.is_done = True
        yield from self._usage()

    def _decode(self, name: bytes, data: bytes) -> StreamChatCompletionResponse:
        try:
            response = decoded(_decode_response, data, self._record)
        except openai_json.DecodeError as error:
            unreadable = self._unreadable(dispatched=True)
            raise self._failure(reported(data, self._model) or unreadable) from error
        chunk = response.chunk
        # Per chunk, a search for the word costs less than reading the members. `in` would raise and
        # catch an exception first.
        if name == _FAILURE or (data.find(_ERROR) >= 0 and has_error(chunk)):
            unclear = errors.UpstreamError(dispatched=True).because("reported")
            raise self._failure(reported(data, self._model) or unclear)
        if not chunk.choices and not chunk.HasField("usage"):
            fault = refusals.bare_account_fault(error_bodies.read(data), self._model)
            if fault is not None:
                raise fault
        return response

    def _failure(self, failure: errors.Failure) -> errors.Failure:
        """Return the failure of a stream. After some output, a retry would pay for it twice."""
        if self._progress.delivered:
            failure.dispatched = True
        return failure

    def _overrun(self) -> _Responses:
        """End a stream whose upstream ignores the output limit."""
        self.is_cut = self._record.overran = True
        if self._progress.is_calling:
            raise errors.UpstreamInvalidResponse(_OVERRAN, dispatched=True).because("overrun")
        if self._last is not None:
            yield from self._made(self._progress.cut(self._last))

    def _made(self, chunks: Iterator[ChatCompletionChunk]) -> _Responses:
        """Yield the responses for chunks that the upstream did not send."""
        for chunk in chunks:
            rename(chunk, self._model)
            yield from self._keep(StreamChatCompletionResponse(chunk=chunk))

    def _keep(self, response: StreamChatCompletionResponse) -> list[Response]:
        """Keep a usage chunk, which can be the last. Return what to deliver now."""
        progress, chunk = self._progress, response.chunk
        ready: list[Response] = []
        if progress.kept is not None:
            ready.append(progress.kept)
            progress.kept = None
        if self._keeps_usage and not chunk.choices and chunk.HasField("usage"):
            progress.kept = response
        else:
            ready.append(response)
        return ready


def _too_large() -> errors.Failure:
    return errors.UpstreamInvalidResponse(dispatched=True).because("too_large")


def _decode_response(data: bytes) -> StreamChatCompletionResponse:
    """Decode a chunk in the place that it has in its response: copying it there costs a quarter."""
    response = StreamChatCompletionResponse()
    chunk = response.chunk
    chunk.SetInParent()
    openai_json.decode_chunk(data, into=chunk)
    return response


def _text_alone_counts(chunk: ChatCompletionChunk) -> bool:
    """Return whether all that counts in a chunk with one choice is its text."""
    (choice,) = chunk.choices
    return not chunk.HasField("usage") and not choice.finish_reason and is_text_alone(choice.delta)


def apart(responses: _Responses) -> Iterator[list[Response]]:
    """Yield each response in its own list. The next is observed after this one is delivered."""
    while one := list(islice(responses, 1)):
        yield one


MOST_TOGETHER: Final = 16
"""Maximum responses in a list. Between two of a burst, other calls have their turn, and a
caller receives its first chunks before the rest is decoded."""


def together(responses: _Responses) -> Iterator[list[Response]]:
    """Yield the responses in lists of up to `MOST_TOGETHER`, including those before a failure."""
    ready: list[Response] = []
    try:
        while True:
            ready.extend(islice(responses, MOST_TOGETHER))
            if len(ready) < MOST_TOGETHER:
                break
            yield ready
            ready = []
    except errors.Failure:
        if ready:
            yield ready
        raise
    if ready:
        yield ready


def decoded(decode: Callable[[bytes], _Answer], data: bytes, record: CallRecord) -> _Answer:
    """Decode a document of an upstream. If it is malformed, mend and decode it again.

    Args:
        decode: The decoder.
        data: The document.
        record: Counts the mended documents.

    Raises:
        DecodeError: The document is malformed, and mending does not help.
    """
    try:
        return decode(data)
    except openai_json.DecodeError:
        better = mended(data)
        if better is None:
            raise
        answer = decode(better)
        record.mended += 1
        return answer


def has_error(answer: ChatCompletion | ChatCompletionChunk) -> bool:
    """Return whether a response reports an error: beside or within choices, or as finish_reason.

    OpenRouter does all of these. Older releases of vLLM use the member `object`.
    """
    if answer.object == "error":
        return True
    if _is_error(answer.extra_json):
        return True
    return any(
        choice.finish_reason == "error" or _is_error(choice.extra_json)
        for choice in answer.choices[:]
    )


def _is_error(extra: Mapping[str, str]) -> bool:
    error = extra.get("error", "null")
    return error != "null" and "".join(error.split()) not in _NO_ERROR


def reported(data: bytes, model: Model) -> errors.Failure | None:
    """Return the failure in a body or an event with the status of a success, or None."""
    return refusals.failure_in_success(error_bodies.read(mended(data) or data), model)
