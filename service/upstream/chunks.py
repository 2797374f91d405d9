"""Reads the chunks of a stream from the bytes of its events: decodes, observes, renames. No I/O.

    piece -> take -> chunk, chunk, …     lazily: each is observed when it is taken
                     is_done             [DONE] arrived
                     is_cut              the upstream ignored the output limit
                     a Failure           after the chunks before it

`apart` and `together` group the chunks into the sequences that a caller receives.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, ChatCompletionChunk
from service import errors
from service.metering.progress import Progress
from service.models import Model
from service.telemetry import CallRecord
from service.upstream import error_bodies, refusals
from service.upstream.rewriting import rename
from service.upstream.sse import EventParser, EventTooLargeError

_OVERRAN: Final = "The model provider exceeded the output limit within a tool call."
_DONE: Final = b"[DONE]"

Chunks = Iterator[ChatCompletionChunk]


class ChunkReader:
    """Reads the chunks of one stream.

    Args:
        model: The model, with the name that the caller used.
        progress: Observes every chunk, including those that are withheld from the caller.
        record: Records whether the stream was cut.
    """

    def __init__(self, model: Model, progress: Progress, record: CallRecord) -> None:
        self._model = model
        self._progress = progress
        self._record = record
        self._events = EventParser()
        self.is_done = False
        """Whether `[DONE]` arrived after a complete response."""
        self.is_cut = False
        """Whether the upstream ignored the output limit, so that the rest is not read."""

    def take(self, piece: bytes) -> Chunks:
        """Yield the chunks for the caller that the next bytes complete.

        Raises:
            Failure: The upstream reported a failure, or the stream is malformed or incomplete.
        """
        try:
            events = self._events.feed(piece)
        except EventTooLargeError as error:
            raise errors.UpstreamInvalidResponse(dispatched=True) from error
        progress = self._progress
        for name, data in events:
            if data.startswith(_DONE):
                if not progress.complete:
                    raise errors.UpstreamTruncated(dispatched=True)
                self.is_done = True
                return
            chunk = self._decode(name, data)
            if progress.observe(chunk):
                rename(chunk, self._model)
                yield chunk
            if progress.overruns:
                self.is_cut = self._record.overran = True
                yield from self._cut(chunk)
                return

    def _decode(self, name: bytes, data: bytes) -> ChatCompletionChunk:
        try:
            chunk = openai_json.decode_chunk(data)
        except openai_json.DecodeError as error:
            invalid = errors.UpstreamInvalidResponse(dispatched=True)
            raise self._failure(reported(data, self._model) or invalid) from error
        if has_error(chunk) or name == b"error" or chunk.object == "error":
            failure = reported(data, self._model) or errors.UpstreamError(dispatched=True)
            raise self._failure(failure)
        if not chunk.choices and not chunk.HasField("usage"):
            fault = refusals.bare_account_fault(error_bodies.read(data), self._model)
            if fault is not None:
                raise fault
        return chunk

    def _failure(self, failure: errors.Failure) -> errors.Failure:
        """Return the failure of a stream. After some output, a retry would pay for it twice."""
        if self._progress.delivered:
            failure.dispatched = True
        return failure

    def _cut(self, last: ChatCompletionChunk) -> Chunks:
        if self._progress.is_calling:
            raise errors.UpstreamInvalidResponse(_OVERRAN, dispatched=True)
        for made in self._progress.cut(last):
            rename(made, self._model)
            yield made


def apart(chunks: Chunks) -> Iterator[Sequence[ChatCompletionChunk]]:
    """Yield each chunk in its own sequence. The next is observed after this one is delivered."""
    for chunk in chunks:
        yield (chunk,)


def together(chunks: Chunks) -> Iterator[Sequence[ChatCompletionChunk]]:
    """Yield all chunks in one sequence, including those before a failure."""
    ready: list[ChatCompletionChunk] = []
    try:
        ready.extend(chunks)
    except errors.Failure:
        if ready:
            yield ready
        raise
    if ready:
        yield ready


def has_error(answer: ChatCompletion | ChatCompletionChunk) -> bool:
    """Return whether a response has an error in addition to choices, as OpenRouter sends it."""
    return answer.extra_json.get("error", "null") != "null"


def reported(data: bytes, model: Model) -> errors.Failure | None:
    """Return the failure in a body or an event with the status 200, or None."""
    return refusals.failure_in_success(error_bodies.read(data), model)
