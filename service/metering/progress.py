"""Watches an answer go by: whether it is complete, and what it used.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, ChatCompletionChunk, Usage
from service import tokens
from service.metering.said import said

# Globals of this module are found faster, and this is per chunk.
_BYTES_PER_TOKEN: Final = tokens.BYTES_PER_TOKEN
_LONG_TOKEN: Final = tokens.LONG_TOKEN
_SPARE: Final = 64
"""Pieces that a short answer may have more, such as a character in several."""


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
