"""Answers as they are stored, and as they are replayed."""

from typing import Any

import pytest

from chatcompletion.openai_json import decode_chunk, decode_completion
from chatcompletion.v1.chat_completion_service_pb2 import (
    Charge,
    CreateChatCompletionResponse,
    StreamChatCompletionResponse,
)
from service import errors
from service.idempotency.answer_form import Stored, decode, encode, failure_form, replay

COMPLETION = decode_completion(
    b'{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
)
USAGE = decode_chunk(
    b'{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
)
CHUNK = StreamChatCompletionResponse(chunk=decode_chunk(b'{"id":"c","choices":[]}'))


def stored(**members: Any) -> Stored:
    plain: dict[str, Any] = {
        "streamed": True,
        "messages": [CHUNK.SerializeToString()],
        "receipt": True,
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "used_estimated": False,
        "prompt_charge": 30,
        "estimated": False,
        "partial": False,
    }
    return Stored(**{**plain, **members})


@pytest.mark.parametrize("size", [1, 10_000])
def test_an_answer_is_read_as_it_was_stored(size: int) -> None:
    answer = stored(
        messages=[b"\x00" * size],
        usage_chunk=b"u",
        failure=failure_form(errors.UpstreamError("broke", param="p", code=7, kind="k")),
    )
    content = encode(answer)
    assert decode(content) == answer
    assert len(content) < 500


def test_a_completion_gets_its_receipt() -> None:
    answer = stored(streamed=False, messages=[COMPLETION.SerializeToString()])

    messages, charge, failure = replay(answer, "h", 50)

    response = CreateChatCompletionResponse.FromString(messages[0])
    assert failure is None
    assert response.charge == charge
    assert charge == Charge(
        hold_id="h", amount_nano_credits=50, prompt_nano_credits=30, completion_nano_credits=20
    )
    assert response.completion.usage.extra_json["cost"] == "0.00000005"
    assert response.completion.usage.completion_tokens == 4


def test_the_usage_chunk_gets_the_receipt() -> None:
    messages, charge, _ = replay(stored(usage_chunk=USAGE.SerializeToString()), "h", 50)

    first, last = map(StreamChatCompletionResponse.FromString, messages)
    assert first == CHUNK
    assert last.charge == charge
    assert '"hold_id":"h"' in last.chunk.usage.extra_json["cost_details"]


def test_without_receipts_there_is_none() -> None:
    messages, charge, _ = replay(stored(receipt=False), "h", 50)
    assert (len(messages), charge) == (1, None)


def test_a_failure_is_the_same_and_not_retryable() -> None:
    told = errors.UpstreamUnavailable("gone", param="p", code="c", kind="k")
    told.http_status = 418
    told.members = {"more": "1"}
    answer = stored(failure=failure_form(told), usage_chunk=USAGE.SerializeToString())

    messages, charge, failure = replay(decode(encode(answer)), "h", 50)

    assert len(messages) == 1  # the usage chunk precedes a failure by itself
    assert charge is not None
    assert isinstance(failure, errors.UpstreamUnavailable)
    assert (failure.message, failure.param, failure.code, failure.kind) == ("gone", "p", "c", "k")
    assert (failure.http_status, dict(failure.members)) == (418, {"more": "1"})
    assert not failure.retryable


@pytest.mark.parametrize("kind", errors.Failure.__subclasses__())
def test_every_failure_can_be_stored(kind: type[errors.Failure]) -> None:
    _, _, failure = replay(stored(failure=failure_form(kind())), "h", 0)
    assert type(failure) is kind
