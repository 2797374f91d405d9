"""Watches an answer go by: whether it is complete, and what it used.

    the upstream reported           is charged
    after all was said              the report
    before that                     the report, or what was counted if that is more
    nothing, or no sense            what was counted: a token for each piece of a token's size, and
                                    for a larger one about a token for four bytes

No sense: a count that is missing or negative, or no completion tokens after some text. A report of
no prompt tokens is believed, except that the prompt is estimated.

Several choices: llama.cpp reports the tokens of one choice, and in a stream those of each choice in
a usage chunk of its own, right after its finish_reason. The reports of a stream come to

    usage chunk                     n = 1       n > 1
    first, after all was said       the report  the report: a total
    one choice finished since the   the report  their sum, up to what is held; the report alone if
      last usage chunk                          it is no less than what was counted of all choices
                                                (a total so far) or more than a choice may have
    the same again                  the report  what they came to before
    another, nothing finished       the report  the report: a total. Before the end, the upstream
      since                                     reports as it goes: none is added up after it
    beside choices, in each chunk   the report  the report, never a sum: of that choice alone at
      or with a finish_reason                   vLLM, of all elsewhere

If several choices came, the larger of this and of what was counted is charged if

    - the last report stood beside one of the choices, or something was said after it; or
    - it is less than a token for six letters, and than a token a piece: about the share of one
      choice. More tokens than one choice may have are never the report of one; or
    - the last report is of as many tokens as one choice may have, and several choices ended by
      their length. Each of them counts as that many tokens.

The caller gets each report as the upstream sent it.

What is held pays for no more than the limit. A stream is cut if it has twice as many pieces, and
some more, and more bytes than so many tokens have in any text: an upstream may send a character a
piece, or few large pieces. Reasoning and sound do not count for this: some upstreams do not limit
them. The name of a call counts once: some upstreams (NVIDIA NIM) send it again with each piece of
arguments.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessageDelta,
    Usage,
)
from service.metering import tokens
from service.metering.said import names, said, texts

# Globals of this module are found faster, and this is per chunk.
_BYTES_PER_TOKEN: Final = tokens.BYTES_PER_TOKEN
_LONG_TOKEN: Final = tokens.LONG_TOKEN
_SPARE: Final = 64
"""Pieces and tokens that a short answer may have more, such as a character in several pieces, or a
few of the longest tokens."""


class Used(NamedTuple):
    """The tokens that an answer is charged for."""

    prompt: int
    completion: int
    estimated: bool
    """Whether they were counted, because no report covers them."""


@dataclass(slots=True)
class Progress:
    """What is known of an answer so far."""

    wants_usage: bool
    """The caller asked for the usage chunk."""
    prompt_estimate: int = 0
    """Tokens of the prompt: an estimate, until the upstream reports them."""
    most: int = sys.maxsize
    """Maximum tokens of all choices together, by the limit that the upstream was sent for each."""
    choices: int = 1
    """How many choices the caller asked for."""
    _counted: int = 0
    """About how many tokens went by."""
    _letters: float = 0
    """How long the text is that the model wrote, if several choices were asked for."""
    _pieces: int = 0
    """The pieces that went by of what the limit bounds."""
    _bytes: int = 0
    """The bytes of these."""
    _whole: bool = False
    """It came in one."""
    _reported: Usage | None = None
    """The last report that makes sense."""
    _sum: int = 0
    """The completion tokens that the reports come to."""
    _as_it_goes: bool = False
    """The upstream reports also when no choice has finished."""
    _finished_when_reported: int = 0
    """How many choices had finished when the last usage chunk came."""
    _counted_when_reported: int = -1
    """What was counted when the last report came."""
    _settled: bool = False
    """All had been said by then, and it was not of one of several choices."""
    _begun: set[int] = field(default_factory=set)
    _finished: set[int] = field(default_factory=set)
    _calling: set[int] = field(default_factory=set)
    _named: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)
    """Id and name of each call, by the indexes of its choice and of itself."""
    _full: set[int] = field(default_factory=set)
    """The choices that ended by their length."""

    def observe(self, chunk: ChatCompletionChunk) -> bool:
        """Take note of a chunk and return whether it is the caller's."""
        choices = chunk.choices
        for choice in choices:
            self._begun.add(choice.index)
            if choice.finish_reason:
                self._finished.add(choice.index)
                if choice.finish_reason == "length":
                    self._full.add(choice.index)
            size, bounded, calls = said(choice.delta)
            if calls:
                self._calling.add(choice.index)
                repeated = self._repeated(choice.index, choice.delta)
                size, bounded = size - repeated, bounded - repeated
            if size:
                if self.choices > 1:
                    self._letters += sum(map(tokens.letters, texts(choice.delta)))
                self._counted += 1 if size <= _LONG_TOKEN else -(-size // _BYTES_PER_TOKEN)
                if bounded:
                    self._pieces += 1
                    self._bytes += bounded
        if chunk.HasField("usage"):
            # Beside one of several choices it may be the usage of that choice alone.
            whole = not choices or len(self._begun) == 1
            self._report(chunk.usage, beside=bool(choices), settled=whole and self.complete)
            return bool(choices) or self.wants_usage
        return True

    def take(self, completion: ChatCompletion) -> None:
        """Take note of a whole completion."""
        self._whole = True
        messages = [choice.message for choice in completion.choices]
        self._counted = tokens.about(sum(said(message)[0] for message in messages))
        if self.choices > 1:
            self._letters = sum(tokens.letters(text) for each in messages for text in texts(each))
        for position, choice in enumerate(completion.choices):
            self._begun.add(position)
            if choice.finish_reason == "length":
                self._full.add(position)
        if completion.HasField("usage"):
            self._report(completion.usage, beside=True, settled=True)

    @property
    def overruns(self) -> bool:
        """Whether pieces and bytes both prove that the upstream ignores its limit."""
        return self._pieces > 2 * self.most + _SPARE and self._bytes > _LONG_TOKEN * (
            self.most + _SPARE
        )

    @property
    def is_calling(self) -> bool:
        """Whether a choice with a call of a tool or function has no finish_reason yet.

        Whether its arguments are whole is not known then.
        """
        return not self._calling <= self._finished

    def cut(self, last: ChatCompletionChunk) -> Iterator[ChatCompletionChunk]:
        """Finish an answer as the upstream should have: by its length.

        Args:
            last: The chunk that came last; those that are made are of the same answer.

        Yields:
            The chunks that are left to be given to the caller; the usage only if the upstream
            reported it for all that was said.
        """
        unfinished = self._begun - self._finished
        if unfinished:
            ending = _alike(last)
            for index in sorted(unfinished):
                ending.choices.add(index=index, finish_reason="length").delta.SetInParent()
            yield ending
        covered = self._counted == self._counted_when_reported and not self.used.estimated
        self._finished |= unfinished
        if self.wants_usage and covered and self._reported is not None:
            used = _alike(last)
            used.extra_json["choices"] = "[]"  # empty, and not absent: the SDKs look into it
            used.usage.CopyFrom(self._reported)
            yield used

    @property
    def counted(self) -> int:
        """About how many tokens went by; a text of long words is no reason to count too many."""
        return min(self._counted, self.most)

    @property
    def is_streamed(self) -> bool:
        """Whether the caller gets the answer as it comes, and not as a whole."""
        return not self._whole

    @property
    def delivered(self) -> bool:
        """Whether something that the model wrote was given to the caller."""
        return self._whole or self._counted > 0

    @property
    def used(self) -> Used:
        """What is to be charged, by the tables of this module."""
        reported = self._reported
        if reported is None:
            return Used(self.prompt_estimate, self.counted, estimated=True)
        least = self._least(reported)
        if self._sum < least:
            return Used(self.prompt_estimate, max(self.counted, least), estimated=True)
        return Used(self.prompt_estimate, self._sum, estimated=not reported.prompt_tokens)

    def _least(self, reported: Usage) -> int:
        """Return how many tokens the reports, of which this is the last, come to if they cover all.

        Reports that come to less are not believed.
        """
        if not self._settled or self._counted != self._counted_when_reported:
            return self.counted
        of_one, limit = reported.completion_tokens, self._most_of_one
        if min(self.choices, len(self._begun)) == 1 or of_one > limit:
            return 0
        least = min(self.counted, int(self._letters / tokens.LONG_PROSE))
        if of_one == limit:
            # A choice that ended by its length has used up its limit.
            least = max(least, min(len(self._full) * limit, self.most))
        return least

    @property
    def _most_of_one(self) -> int:
        """How many tokens a choice may have."""
        return self.most // self.choices

    @property
    def complete(self) -> bool:
        """Whether each choice that began has its finish_reason, and there is one."""
        return bool(self._finished) and self._begun == self._finished

    def _repeated(self, choice: int, delta: ChatMessageDelta) -> int:
        """Return the bytes of names in a piece that earlier pieces of their calls had."""
        repeated = 0
        for index, id_, name in names(delta):
            known_id, known = self._named.get((choice, index), ("", ""))
            if name == known and id_ in ("", known_id):
                repeated += len(name.encode())
            else:
                self._named[choice, index] = id_, name
        return repeated

    def _report(self, usage: Usage, *, beside: bool, settled: bool) -> None:
        # What is no count, such as a text or a fraction, is not in the fields.
        if not (usage.HasField("prompt_tokens") and usage.HasField("completion_tokens")):
            return
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        if min(prompt, completion) < 0 or (self._counted and not completion):
            return
        self._sum = self._come_to(completion, beside=beside)
        self._reported = usage
        self._counted_when_reported = self._counted
        self._settled = settled
        self.prompt_estimate = prompt or self.prompt_estimate

    def _come_to(self, completion: int, *, beside: bool) -> int:
        """Return what the reports come to with one more."""
        if self.choices == 1:
            return completion
        finished = len(self._finished) - self._finished_when_reported
        last = self._reported
        if not beside and not finished and last and completion == last.completion_tokens:
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


def _alike(chunk: ChatCompletionChunk) -> ChatCompletionChunk:
    """Return a chunk of the same answer, in which nothing is said."""
    made = ChatCompletionChunk()
    made.CopyFrom(chunk)
    for name in ("choices", "usage", "null_fields", "extra_json"):
        made.ClearField(name)
    return made
