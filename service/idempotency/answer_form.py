"""The stored form of an answer: its messages before the receipt, and the parts of the receipt.

    run -> Stored -> encode -> the store
    the store -> decode -> replay -> the messages with the receipt, and the failure

An answer is stored in the transaction of its charge, so it cannot contain the charge: the store can
charge less than the usage, at most the hold.
"""

import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, ChatCompletionChunk
from chatcompletion.v1.chat_completion_service_pb2 import (
    Charge,
    CreateChatCompletionResponse,
    StreamChatCompletionResponse,
)
from service import errors, receipts
from service.credit_worth import CreditWorth
from service.ledger.rows import Settle
from service.metering.progress import Used

_PLAIN: Final = b"p"
_DEFLATED: Final = b"z"
_FASTEST: Final = 1
_SHORT: Final = 512
"""Answers below this size in bytes are not compressed."""


class StoredFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The failure with which an answer ends."""

    reason: str
    message: str
    param: str | None = None
    code: str | int | None = None
    kind: str | None = None
    http_status: int | None = None
    members: dict[str, str] = {}


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer."""

    streamed: bool
    messages: list[bytes]
    """The messages of a stream, or one completion."""
    receipt: bool
    """Whether the caller gets a receipt."""
    prompt_tokens: int
    completion_tokens: int
    used_estimated: bool
    prompt_charge: int
    estimated: bool
    partial: bool
    usage_chunk: bytes | None = None
    """The usage chunk at the end of a stream, which has the receipt."""
    failure: StoredFailure | None = None


class Replay(NamedTuple):
    """An answer as its callers get it."""

    messages: Sequence[bytes]
    """The response messages."""
    charge: Charge | None
    failure: errors.Failure | None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Stored).decode


def encode(stored: Stored) -> bytes:
    """Return an answer as bytes, compressed unless it is short."""
    data = _encode(stored)
    if len(data) < _SHORT:
        return _PLAIN + data
    return _DEFLATED + zlib.compress(data, _FASTEST)


def decode(content: bytes) -> Stored:
    """Return the answer in the bytes of `encode`."""
    data = content[1:]
    return _decode(zlib.decompress(data) if content[:1] == _DEFLATED else data)


def failure_form(failure: errors.Failure | None) -> StoredFailure | None:
    """Return the stored form of a failure."""
    if failure is None:
        return None
    return StoredFailure(
        reason=failure.reason,
        message=failure.message,
        param=failure.param,
        code=failure.code,
        kind=failure.kind,
        http_status=failure.http_status,
        members=dict(failure.members),
    )


def replay(stored: Stored, hold_id: str, charged: int, worth: CreditWorth | None = None) -> Replay:
    """Return an answer as its callers get it.

    Args:
        stored: The answer.
        hold_id: The hold of its call.
        charged: The charge in the store, in nano-credits.
        worth: The worth of a credit, if receipts show it.
    """
    charge = None
    if stored.receipt:
        ending = Settle(
            hold_id=hold_id,
            account_id=0,
            key_id=0,
            charge=charged,
            prompt_tokens=stored.prompt_tokens,
            completion_tokens=stored.completion_tokens,
            prompt_charge=stored.prompt_charge,
            estimated=stored.estimated,
            partial=stored.partial,
        )
        charge = receipts.charge_of(ending, charged, worth)
    if not stored.streamed:
        completion = ChatCompletion.FromString(stored.messages[0])
        if charge is not None:
            used = Used(stored.prompt_tokens, stored.completion_tokens, stored.used_estimated)
            receipts.add_to_completion(completion, charge, used)
        response = CreateChatCompletionResponse(completion=completion, charge=charge)
        return Replay([response.SerializeToString()], charge, None)
    messages = list(stored.messages)
    if stored.usage_chunk is not None and charge is not None and stored.failure is None:
        chunk = ChatCompletionChunk.FromString(stored.usage_chunk)
        receipts.add(chunk.usage, charge)
        last = StreamChatCompletionResponse(chunk=chunk, charge=charge)
        messages.append(last.SerializeToString())
    return Replay(messages, charge, _failure(stored.failure))


_CLASSES: Final = {failure.reason: failure for failure in errors.Failure.__subclasses__()}


def _failure(form: StoredFailure | None) -> errors.Failure | None:
    if form is None:
        return None
    failure = _CLASSES[form.reason](
        form.message, param=form.param, code=form.code, kind=form.kind, dispatched=True
    )
    failure.http_status = form.http_status
    failure.members = form.members
    return failure
