"""What goes to the upstream and what comes back: the little that is changed on the way.

    caller ── model, stream, stream_options, output limit ──► upstream
    caller ◄── model; the usage chunk, if it was not asked for ── upstream

Everything else passes as it is. `Progress` watches an answer go by: whether it is complete, and
what it used.

    the upstream reported           is charged
    after all was said              the report
    before that                     the report, or what was counted where that is more
    nothing, or no sense            what was counted: a token for each piece of a token's size, and
                                    for a larger one about a token for four bytes

No sense: a count that is missing or negative, or no completion tokens after some text.

What is held pays for no more than the limit: a stream of twice as many pieces, and some more, is
cut. A piece is at least a token, nearly always; its size says less, for it may hold a picture.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
    ChatMessage,
    ChatMessageDelta,
    ContentPartList,
    FunctionCall,
    MessageAudio,
    ToolCall,
    Usage,
)
from service import tokens
from service.errors import InvalidRequest, Violation
from service.models import OUTPUT_LIMITS, Model


def output_limit(params: ChatCompletionParams, model: Model) -> int:
    """Return how many tokens each choice may have.

    Raises:
        InvalidRequest: the request asks for more than the model's maximum.
    """
    if params.HasField("max_completion_tokens"):
        name, asked = "max_completion_tokens", params.max_completion_tokens
    elif params.HasField("max_tokens"):
        name, asked = "max_tokens", params.max_tokens
    else:
        return model.default_output_tokens
    if asked > model.maximum_output_tokens:
        raise InvalidRequest.of(
            [
                Violation(
                    param=name,
                    message=f"Must be at most {model.maximum_output_tokens} for this model.",
                    code="number_out_of_range",
                )
            ]
        )
    return asked


def outgoing(params: ChatCompletionParams, model: Model, *, streamed: bool) -> bytes:
    """Return the body for the upstream. Changes `params`, which the caller no longer needs.

    Raises:
        InvalidRequest: the request asks for more than the model's maximum.
    """
    limit = output_limit(params, model)
    # An upstream may ignore the other member: a limit there would be none.
    for member in OUTPUT_LIMITS:
        params.ClearField(member)
        params.extra_json.pop(member, None)
    setattr(params, model.output_limit, limit)
    params.model = model.upstream_model
    for name in ("stream", "stream_options"):
        params.extra_json.pop(name, None)
    if streamed:
        params.stream = True
        params.stream_options.include_usage = True
        params.stream_options.extra_json.pop("include_usage", None)
    else:
        params.ClearField("stream")
    return openai_json.encode_request(params)


def rename(answer: ChatCompletion | ChatCompletionChunk, model: Model) -> None:
    """Give an answer the name of the model that the caller asked for."""
    answer.model = model.name
    if answer.extra_json:
        answer.extra_json.pop("model", None)


@dataclass(slots=True)
class Progress:
    """What is known of an answer so far."""

    wants_usage: bool
    """The caller asked for the usage chunk."""
    prompt_estimate: int = 0
    """About how many tokens the prompt has; as many as the upstream says, once it does."""
    most: int = sys.maxsize
    """How many tokens the answer may have, by the limit that the upstream is told."""
    _counted: int = 0
    """About how many tokens went by."""
    _pieces: int = 0
    """In how many pieces they went by."""
    _whole: bool = False
    """It came in one."""
    _reported: Usage | None = None
    """The last report that makes sense."""
    _counted_when_settled: int = -1
    """What was counted when a report came after all had been said; -1 where none did."""
    _begun: set[int] = field(default_factory=set)
    _finished: set[int] = field(default_factory=set)

    def observe(self, chunk: ChatCompletionChunk) -> bool:
        """Take note of a chunk and return whether it is the caller's."""
        choices = chunk.choices
        for choice in choices:
            self._begun.add(choice.index)
            if choice.finish_reason:
                self._finished.add(choice.index)
            size = said(choice.delta)
            if size:
                self._pieces += 1
                self._counted += 1 if size <= _LONG_TOKEN else -(-size // _BYTES_PER_TOKEN)
        if chunk.HasField("usage"):
            # Beside one of several choices it may be the usage of that choice alone.
            whole = not choices or len(self._begun) == 1
            self._report(chunk.usage, settled=whole and self.complete)
            return bool(choices) or self.wants_usage
        return True

    def take(self, completion: ChatCompletion) -> None:
        """Take note of a whole completion."""
        self._whole = True
        self._counted = tokens.about(sum(said(choice.message) for choice in completion.choices))
        if completion.HasField("usage"):
            self._report(completion.usage, settled=True)

    @property
    def overruns(self) -> bool:
        """Whether the upstream disregards the limit that it was told."""
        return self._pieces > 2 * self.most + _SPARE

    def cut(self, last: ChatCompletionChunk) -> Iterator[ChatCompletionChunk]:
        """Finish an answer as the upstream should have: by its length.

        Args:
            last: The chunk that came last; those that are made are of the same answer.

        Yields:
            The chunks that are left to be given to the caller.
        """
        unfinished = self._begun - self._finished
        if unfinished:
            ending = _alike(last)
            for index in sorted(unfinished):
                ending.choices.add(index=index, finish_reason="length").delta.SetInParent()
            self._finished |= unfinished
            yield ending
        if self.wants_usage:
            used = _alike(last)
            used.extra_json["choices"] = "[]"  # empty, and not absent: the SDKs look into it
            used.usage.CopyFrom(
                self.usage
                or Usage(
                    prompt_tokens=self.prompt_estimate,
                    completion_tokens=self.counted,
                    total_tokens=self.prompt_estimate + self.counted,
                )
            )
            yield used

    @property
    def counted(self) -> int:
        """About how many tokens went by; a text of long words is no reason to count too many."""
        return min(self._counted, self.most)

    @property
    def delivered(self) -> bool:
        """Whether something that the model wrote was given to the caller."""
        return self._whole or self._counted > 0

    @property
    def usage(self) -> Usage | None:
        """The report that is to be charged; None where it is what was counted."""
        reported = self._reported
        if reported is None or self._counted == self._counted_when_settled:
            return reported
        return reported if reported.completion_tokens >= self.counted else None

    @property
    def complete(self) -> bool:
        """Whether each choice that began has its finish_reason, and there is one."""
        return bool(self._finished) and self._begun == self._finished

    def _report(self, usage: Usage, *, settled: bool) -> None:
        # What is no count, such as a text or a fraction, is not in the fields.
        if not (usage.HasField("prompt_tokens") and usage.HasField("completion_tokens")):
            return
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        if min(prompt, completion) < 0 or (self._counted and not completion):
            return
        self._reported = usage
        self._counted_when_settled = self._counted if settled else -1
        self.prompt_estimate = prompt or self.prompt_estimate


def _alike(chunk: ChatCompletionChunk) -> ChatCompletionChunk:
    """Return a chunk of the same answer, in which nothing is said."""
    made = ChatCompletionChunk()
    made.CopyFrom(chunk)
    for name in ("choices", "usage", "extra_json"):
        made.ClearField(name)
    return made


# Globals of this module are found faster, and this is per chunk.
_BYTES_PER_TOKEN: Final = tokens.BYTES_PER_TOKEN
_LONG_TOKEN: Final = tokens.LONG_TOKEN
_SPARE: Final = 64
"""Pieces that a short answer may have more, such as a character in several."""


def said(message: ChatMessageDelta | ChatMessage) -> int:
    """Return about how many bytes of text the model wrote in a message, or in a piece of one.

    0 is nothing at all: what says something without a text of its own counts as a byte. Sound
    counts as text of as many tokens. The role is not the model's.
    """
    text = message.content_text
    size = len(text) if text.isascii() else len(text.encode())
    # Most pieces are a content and nothing else: on the wire, 2 or 3 bytes around a short one.
    if message.ByteSize() - size <= (3 if size else 2):
        return size
    size = 0
    for member, value in message.ListFields():
        measure = _WRITTEN.get(member.name)
        if measure is not None:
            size += measure(value)
    if size:
        # Vendors say in members of their own once more what stands in the others.
        return size
    annotated = sum(annotation.ByteSize() for annotation in message.annotations)
    return annotated + _unknown(message.extra_json)


def _text(text: str) -> int:
    return len(text.encode())


def _parts(parts: ContentPartList) -> int:
    return sum(_text(part.text) + _text(part.refusal) or part.ByteSize() for part in parts.items)


def _function(call: FunctionCall) -> int:
    return _text(call.name) + _text(call.arguments) or min(call.ByteSize(), 1)


def _calls(calls: Iterable[ToolCall]) -> int:
    size = 0
    for call in calls:
        if call.HasField("function"):
            size += _function(call.function) or 1
        else:
            custom = _text(call.custom.name) + _text(call.custom.input)
            size += custom or _unknown(call.extra_json) or 1
    return size


def _sound(audio: MessageAudio) -> int:
    heard = tokens.BYTES_PER_TOKEN * tokens.of_sound(len(audio.data))
    return heard + _text(audio.transcript) or 1


_WRITTEN: Final[Mapping[str, Callable[[Any], int]]] = {
    "content_text": _text,
    "content_parts": _parts,
    "tool_calls": _calls,
    "refusal": _text,
    "audio": _sound,
    "function_call": _function,
    "reasoning_content": _text,
    "reasoning": _text,
}
"""What in a message the model wrote, and its bytes."""


def _unknown(extra: Mapping[str, str]) -> int:
    """Return the bytes of members that the contract does not know, or that have another type.

    A content of another type is a piece of a character that the upstream cut in two.
    """
    return sum(_text(extra[name]) for name in extra if extra[name] not in _NOTHING)


_NOTHING: Final = frozenset({"null", '""', "[]", "{}"})
