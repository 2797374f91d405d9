"""Observes a response as it arrives: whether it is complete, and its usage.

    usage reported                  charge
    after the output ended          the reported usage
    before the output ended         the larger of reported and counted usage
    never, or implausible           the counted usage: one token for each piece of up to 16 bytes,
                                    and one token per four bytes of a larger one

The output ended when each choice has its finish_reason. If the upstream sends `[DONE]` but no
finish_reason at all, the output ended with the last piece.

A report is implausible if a count is missing or negative, or if it has no completion tokens
although there was output. If only the prompt tokens are zero, the prompt is estimated. If the
completion tokens are missing (Gemini), they are the total tokens less the prompt tokens.

Several choices: llama.cpp reports the tokens of one choice. In a stream, it reports those of each
choice in a separate usage chunk, right after the finish_reason of the choice. The sum of the
reports in a stream is

    usage chunk                     n = 1       n > 1
    first, after the output ended   the report  the report, which is a total
    one choice finished since the   the report  the sum so far plus the report, up to the hold. The
      last usage chunk                          report alone, if it is at least the counted usage of
                                                all choices (a running total) or above the limit of
                                                one choice
    repeated                        the report  the sum so far
    another, and no choice          the report  the report, which is a total. If it came before the
      finished since                            end, the upstream sends running totals, and no later
                                                report is added up
    in a chunk with choices         the report  the report, never a sum. vLLM reports that choice
                                                alone, other upstreams all choices

If there are several choices, the larger of this sum and the counted usage is charged if

    - the last report was in a chunk with choices, or output followed it; or
    - the sum is less than one token per six letters and less than one token per piece, so that it
      is probably the usage of one choice. Tokens above the limit of one choice are never that; or
    - the last report equals the limit of one choice, and several choices ended by their length.
      Each of them counts as that limit.

The caller receives each report in a usage chunk unchanged. A usage chunk is also one with choices
that say nothing, after each choice has its finish_reason (LiteLLM). Usage beside other choices is
withheld, unless the caller requested running totals. If the caller requested usage and there was no
usage chunk at the end, one is made: with the last report, or with the counted usage, marked with
the member `estimated`.

The hold covers only the limit. A stream is cut if it has more than twice as many pieces as the
limit has tokens, and more bytes than that many tokens have in any text. Pieces alone prove nothing,
because an upstream can send one character per piece. Reasoning and sound do not count here, because
some upstreams do not limit them. The name of a call counts once, because some upstreams (such as
NVIDIA NIM) repeat it in each piece of arguments.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessageDelta,
    ChunkChoice,
    Usage,
)
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionResponse
from service.metering import tokens
from service.metering.output_size import names, said, texts
from service.metering.usage_parts import NO_PARTS, Parts, parts_of, prompt_of

# Globals of this module, because looking them up for each chunk is faster.
_BYTES_PER_TOKEN: Final = tokens.BYTES_PER_TOKEN
_LONG_TOKEN: Final = tokens.LONG_TOKEN
_OWN: Final = frozenset({"choices", "usage", "null_fields", "extra_json"})
"""Fields of a chunk that other chunks of its stream do not share."""
_MOST_NAMES: Final = 64
"""Maximum number of member names that are remembered."""
_SPARE: Final = 64
"""Pieces and tokens to spare for a short response: a character in several pieces, or a few of the
longest tokens."""


class Used(NamedTuple):
    """The tokens that are charged for a response."""

    prompt: int
    completion: int
    estimated: bool
    """Whether tokens were counted, because no report covers them."""


@dataclass(slots=True)
class Progress:
    """The state of a response so far."""

    wants_usage: bool
    """Whether the caller requested the usage chunk."""
    wants_totals: bool = False
    """Whether the caller requested running totals, beside the choices of each chunk."""
    prompt_estimate: int = 0
    """The tokens of the prompt: an estimate until the upstream reports them."""
    most: int = sys.maxsize
    """Maximum tokens of all choices together, by the limit that was sent to the upstream."""
    choices: int = 1
    """The number of choices that the caller requested."""
    cached_outside: bool = False
    """Whether the upstream's `prompt_tokens` lacks the tokens of its cache."""
    kept: StreamChatCompletionResponse | None = None
    """The response with the usage chunk at the end of a stream, which is sent with the receipt."""
    _counted: int = 0
    """The counted completion tokens so far."""
    _letters: float = 0
    """The letters of the output so far, if several choices were requested."""
    _pieces: int = 0
    """The number of pieces so far that count against the output limit."""
    _bytes: int = 0
    """The bytes of these pieces."""
    _whole: bool = False
    """Whether the response is a unary one."""
    _reported: Usage | None = None
    """The last plausible report, as the upstream sent it."""
    _last: int = 0
    """The completion tokens of the last report."""
    _sum: int = 0
    """The sum of the reported completion tokens, by the table of this module."""
    _as_it_goes: bool = False
    """Whether the upstream sends running totals."""
    _finished_when_reported: int = 0
    """The number of finished choices at the last usage chunk."""
    _counted_when_reported: int = -1
    """The counted tokens at the last report."""
    _covers_all: bool = False
    """Whether the last report was not of one of several choices."""
    _settled: bool = False
    """Whether the output had ended at the last report, which was not of one of several choices."""
    _begun: set[int] = field(default_factory=set)
    # Most responses need few of these. Empty sets would take memory in every open stream.
    _finished: frozenset[int] = frozenset()
    _calling: frozenset[int] = frozenset()
    _named: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)
    """The id and name of each call, by the indexes of its choice and of the call."""
    _told: set[str] = field(default_factory=lambda: {"choices"})
    """Members beyond the contract in the delivered chunks; an empty `choices` is one of them."""
    _delivered_usage: bool = False
    """Whether a usage chunk was delivered, or withheld because the caller did not request it."""
    _full: frozenset[int] = frozenset()
    """The choices that ended with finish_reason "length"."""

    def observe(self, chunk: ChatCompletionChunk) -> bool:
        """Count a chunk, and return whether to send it to the caller."""
        reports = chunk.HasField("usage")
        if reports and self.complete and not any(map(_says_something, chunk.choices)):
            openai_json.clear_member(chunk, "choices")
            chunk.extra_json["choices"] = "[]"
        # A copy, because the iteration over a field of a message ends with an exception.
        choices = chunk.choices[:]
        for choice in choices:
            self._begun.add(choice.index)
            if choice.finish_reason:
                self._finished |= {choice.index}
                if choice.finish_reason == "length":
                    self._full |= {choice.index}
            size, bounded, calls = said(choice.delta)
            if calls:
                self._calling |= {choice.index}
                repeated = self._repeated(choice.index, choice.delta)
                size, bounded = size - repeated, bounded - repeated
            if size:
                if self.choices > 1:
                    self._letters += sum(map(tokens.letters, texts(choice.delta)))
                self._count(size, bounded)
        if reports:
            self._take_usage(chunk)
        if self.wants_usage:
            return True
        others = chunk.extra_json
        if reports and not choices:
            return not self._told.issuperset(others)
        if others and len(self._told) < _MOST_NAMES:
            self._told.update(others)
        return True

    def observe_text(self, text: str) -> None:
        """Count a chunk that differs from an observed one only in its text.

        Args:
            text: The content of its only choice. The chunk has no usage and no finish_reason, and
                its delta has nothing else that counts: see `is_text_alone`.
        """
        size = len(text) if text.isascii() else len(text.encode())
        if size:
            if self.choices > 1:
                self._letters += tokens.letters(text)
            self._count(size, size)

    def _count(self, size: int, bounded: int) -> None:
        self._counted += 1 if size <= _LONG_TOKEN else -(-size // _BYTES_PER_TOKEN)
        if bounded:
            self._pieces += 1
            self._bytes += bounded

    def _take_usage(self, chunk: ChatCompletionChunk) -> None:
        """Read the usage of a chunk, and withhold it unless the caller requested it there."""
        choices = chunk.choices
        # In a chunk with one of several choices, it can be the usage of that choice alone.
        whole = self.choices == 1 or not choices or len(self._begun) == 1
        usage = chunk.usage
        self._delivered_usage = self._delivered_usage or not choices
        if not (self.wants_totals if choices else self.wants_usage):
            usage = Usage()
            usage.CopyFrom(chunk.usage)
            chunk.ClearField("usage")
        self._report(usage, beside=bool(choices), whole=whole)

    def end(self) -> None:
        """Take note that the upstream sent `[DONE]`: no choice that began goes on.

        If the upstream sent no finish_reason at all, the report after the last piece covers the
        answer. If it sent some, the report can be of the choices that finished.
        """
        if not self._finished:
            self._settled = self._covers_all
        self._finished |= self._begun

    def take(self, completion: ChatCompletion) -> None:
        """Count a unary completion."""
        self._whole = True
        choices = completion.choices[:]
        messages = [choice.message for choice in choices]
        self._counted = tokens.about(sum(said(message)[0] for message in messages))
        if self.choices > 1:
            self._letters = sum(tokens.letters(text) for each in messages for text in texts(each))
        for position, choice in enumerate(choices):
            self._begun.add(position)
            if choice.finish_reason == "length":
                self._full |= {position}
        if completion.HasField("usage"):
            self._report(completion.usage, beside=True, whole=True)

    @property
    def overruns(self) -> bool:
        """Whether pieces and bytes both prove that the upstream ignores the output limit."""
        return self._pieces > 2 * self.most + _SPARE and self._bytes > _LONG_TOKEN * (
            self.most + _SPARE
        )

    @property
    def is_calling(self) -> bool:
        """Whether a choice with a tool or function call has no finish_reason yet.

        The arguments of its call can be incomplete.
        """
        return not self._calling <= self._finished

    def cut(self, last: ChatCompletionChunk) -> Iterator[ChatCompletionChunk]:
        """Finish a stream that is cut, with finish_reason "length".

        Args:
            last: The last chunk, whose id and other attributes the new chunks get.

        Yields:
            The remaining chunks for the caller.
        """
        unfinished = self._begun - self._finished
        if unfinished:
            ending = alike(last)
            for index in sorted(unfinished):
                ending.choices.add(index=index, finish_reason="length").delta.SetInParent()
            yield ending
        self._finished |= unfinished
        yield from self.missing_usage(last)

    def missing_usage(self, last: ChatCompletionChunk) -> Iterator[ChatCompletionChunk]:
        """Yield a usage chunk, if the caller requested it and the upstream sent none.

        Args:
            last: The last chunk, whose id and other attributes the new chunk gets.
        """
        if not self.wants_usage or self._delivered_usage:
            return
        self._delivered_usage = True
        made = alike(last)
        made.extra_json["choices"] = "[]"  # empty instead of absent, as the SDKs expect
        prompt, completion, estimated = self.used
        if self._reported is not None and not estimated and completion == self._last:
            made.usage.CopyFrom(self._reported)
        else:
            made.usage.prompt_tokens, made.usage.completion_tokens = prompt, completion
            made.usage.total_tokens = prompt + completion
            made.usage.extra_json["estimated"] = "true"
        yield made

    @property
    def counted(self) -> int:
        """The counted completion tokens, at most the output limit."""
        return min(self._counted, self.most)

    @property
    def is_streamed(self) -> bool:
        """Whether the response is a stream."""
        return not self._whole

    @property
    def delivered(self) -> bool:
        """Whether the caller received any output."""
        return self._whole or self._counted > 0

    @property
    def used(self) -> Used:
        """The usage to charge, by the tables of this module."""
        reported = self._reported
        if reported is None:
            return Used(self.prompt_estimate, self.counted, estimated=True)
        least = self._least()
        if self._sum < least:
            return Used(self.prompt_estimate, max(self.counted, least), estimated=True)
        return Used(self.prompt_estimate, self._sum, estimated=not reported.prompt_tokens)

    @property
    def parts(self) -> Parts:
        """Those of the used tokens that can have prices of their own."""
        reported = self._reported
        if reported is None or self._sum < self._least():
            return NO_PARTS
        return parts_of(reported)

    def _least(self) -> int:
        """Return the minimum of the reported tokens. A smaller sum does not cover all choices.

        Args:
            reported: The last report.
        """
        if not self._settled or self._counted != self._counted_when_reported:
            return self.counted
        of_one, limit = self._last, self._most_of_one
        if min(self.choices, len(self._begun)) == 1 or of_one > limit:
            return 0
        least = min(self.counted, int(self._letters / tokens.LONG_PROSE))
        if of_one == limit:
            # A choice that ended by its length used its whole limit.
            least = max(least, min(len(self._full) * limit, self.most))
        return least

    @property
    def _most_of_one(self) -> int:
        """Maximum tokens of one choice."""
        return self.most // self.choices

    @property
    def complete(self) -> bool:
        """Whether at least one choice began, and each has its finish_reason.

        If one choice was requested, one finish_reason is enough, whatever its index: some upstreams
        number the pieces (TGI 1.4) or the parts (Bedrock) of the response as choices.
        """
        if self.choices == 1:
            return bool(self._finished)
        return bool(self._finished) and self._begun == self._finished

    def _repeated(self, choice: int, delta: ChatMessageDelta) -> int:
        """Return the bytes of the names in a piece that repeat earlier pieces of their calls."""
        repeated = 0
        for index, id_, name in names(delta):
            known_id, known = self._named.get((choice, index), ("", ""))
            if name == known and id_ in ("", known_id):
                repeated += len(name.encode())
            else:
                self._named[choice, index] = id_, name
        return repeated

    def _report(self, usage: Usage, *, beside: bool, whole: bool) -> None:
        # A value that is not an integer, such as a text or a fraction, is in extra_json.
        if not usage.HasField("prompt_tokens"):
            return
        prompt = prompt_of(usage, cached_outside=self.cached_outside)
        if usage.HasField("completion_tokens"):
            completion = usage.completion_tokens
        elif usage.HasField("total_tokens") and "completion_tokens" not in usage.extra_json:
            completion = usage.total_tokens - prompt
        else:
            return
        if min(prompt, completion) < 0 or (self._counted and not completion):
            return
        self._sum = self._come_to(completion, beside=beside)
        self._reported, self._last = usage, completion
        self._counted_when_reported = self._counted
        self._covers_all = whole
        self._settled = whole and (self._whole or self.complete)
        self.prompt_estimate = prompt or self.prompt_estimate

    def _come_to(self, completion: int, *, beside: bool) -> int:
        """Return the sum of the reports, including a new one."""
        if self.choices == 1:
            return completion
        finished = len(self._finished) - self._finished_when_reported
        again = self._reported is not None and completion == self._last
        if not beside and not finished and again:
            return self._sum
        if not finished and completion and not self.complete:
            self._as_it_goes = True
        if beside:
            return completion
        self._finished_when_reported = len(self._finished)
        of_one = completion < self._counted and completion <= self._most_of_one
        if finished == 1 and of_one and not self._as_it_goes:
            return min(self._sum + completion, self.most)
        return completion


def _says_something(choice: ChunkChoice) -> bool:
    """Return whether a choice of a chunk has output or an end."""
    return bool(choice.finish_reason) or said(choice.delta)[0] > 0 or choice.HasField("logprobs")


def alike(chunk: ChatCompletionChunk) -> ChatCompletionChunk:
    """Return a chunk with the attributes of another, but without choices."""
    return ChatCompletionChunk(
        **{field.name: value for field, value in chunk.ListFields() if field.name not in _OWN}
    )
