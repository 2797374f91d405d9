"""The completion of a request, before it is formatted.

    CompletionRequest + Scenario -> Completion: the tokens of each choice, and its finish_reason

The tokens are a free text, JSON that satisfies a schema, or the arguments of a tool call. They
derive from a hash of the seeds, the model and the messages, so that the same request always has the
same completion, streamed or not.
"""

import json
from collections.abc import Callable

import msgspec

from service.simulator import text
from service.simulator.completion_request import CompletionRequest, ForcedCall, texts
from service.simulator.error_objects import HttpError
from service.simulator.pattern_instance import UnsatisfiableError
from service.simulator.schema_instance import instance

FINGERPRINT = "simulator"
EPOCH = 1_700_000_000
"""`created` without a clock: this and up to a year of seconds."""

_FINISH_OF_CALL = {
    "function": "tool_calls",
    "custom": "tool_calls",
    "function_call": "function_call",
}
_CUSTOM_INPUT = "simulated input"


class CalledTool(msgspec.Struct, kw_only=True, frozen=True):
    """A tool call, whose arguments or input are the choice's tokens."""

    kind: str
    id: str
    name: str


class Choice(msgspec.Struct, kw_only=True, frozen=True):
    """One of the `n` choices."""

    index: int
    key: bytes
    """The source of all pseudo-random values of this choice."""
    tokens: list[str]
    finish_reason: str
    call: CalledTool | None = None


class Completion(msgspec.Struct, kw_only=True, frozen=True):
    """The completion."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    logprobs: int | None
    """The number of alternatives per token; None if logprobs were not requested."""

    @property
    def completion_tokens(self) -> int:
        """The number of tokens of all choices."""
        return sum(len(choice.tokens) for choice in self.choices)


def complete(
    request: CompletionRequest,
    *,
    seed: int,
    length: int,
    clock: Callable[[], float] | None = None,
) -> Completion:
    """Return the completion of a request, with texts of `length` tokens.

    Raises:
        HttpError: No JSON satisfies the schema of the request (400).
    """
    key = text.digest(
        b"%d" % seed,
        b"" if request.seed is None else b"%d" % request.seed,
        request.model.encode(errors="surrogatepass"),
        json.dumps(request.messages).encode(),
    )
    name = key.hex()
    created = EPOCH + int.from_bytes(key[:4], "big") % 31_536_000
    fixed = _fixed_tokens(request)
    return Completion(
        id=f"chatcmpl-sim-{name[:24]}",
        created=created if clock is None else int(clock()),
        model=request.model,
        choices=tuple(
            _choice(request, index, key, fixed, length) for index in range(request.choices)
        ),
        prompt_tokens=sum(map(text.count, texts(request.messages))),
        logprobs=request.logprobs,
    )


def _choice(
    request: CompletionRequest, index: int, key: bytes, fixed: list[str] | None, length: int
) -> Choice:
    own = key if index == 0 else text.digest(key, b"%d" % index)
    natural = length if fixed is None else len(fixed)
    limit = natural + 1 if request.limit is None else request.limit
    tokens = text.prose(own, min(natural, limit)) if fixed is None else fixed[:limit]
    reason = "length" if natural >= limit else "stop"
    if request.call is None:
        stopped = _cut_before_stop(tokens, request.stop)
        return Choice(
            index=index,
            key=own,
            tokens=tokens if stopped is None else stopped,
            finish_reason=reason if stopped is None else "stop",
        )
    call = request.call
    return Choice(
        index=index,
        key=own,
        tokens=tokens,
        finish_reason=_FINISH_OF_CALL[call.kind] if reason == "stop" else reason,
        call=CalledTool(kind=call.kind, id=f"call_{own.hex()[:24]}", name=call.name),
    )


def _fixed_tokens(request: CompletionRequest) -> list[str] | None:
    """Return the tokens that a format or a call requires; None for a free text."""
    if request.call is not None:
        if request.call.kind == "custom":
            return text.split(_CUSTOM_INPUT)
        return text.split(_json_for(request.call, request.call.schema))
    if request.schema is not None:
        return text.split(_json_for(None, request.schema))
    if request.json_object:
        return text.split(json.dumps({"simulated": True, "text": text.INTRODUCTION}))
    return None


def _json_for(call: ForcedCall | None, schema: object) -> str:
    if call is not None and schema is None:
        return "{}"
    try:
        found = instance(schema)
    except UnsatisfiableError as exc:
        place = "response_format" if call is None else f"function '{call.name}'"
        raise HttpError(
            status=400,
            message=f"Invalid schema for {place}: {exc}",
            param="response_format" if call is None else "tools",
            code="invalid_schema",
        ) from None
    readable = json.dumps(found, ensure_ascii=False)
    # An unpaired surrogate has no UTF-8 form, so such a text stays escaped.
    return json.dumps(found) if _has_surrogates(readable) else readable


def _has_surrogates(whole: str) -> bool:
    return any("\ud800" <= mark <= "\udfff" for mark in whole)


def _cut_before_stop(tokens: list[str], stop: tuple[str, ...]) -> list[str] | None:
    """Return the tokens before the first stop sequence, the last one cut; None if none occurs."""
    if not stop:
        return None
    whole = "".join(tokens)
    found = [place for place in (whole.find(sequence) for sequence in stop) if place >= 0]
    if not found:
        return None
    left = min(found)
    kept: list[str] = []
    for token in tokens:
        if left <= 0:
            break
        kept.append(token[:left])
        left -= len(token)
    return kept
