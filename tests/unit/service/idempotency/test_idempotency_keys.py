import pytest

from chatcompletion.openai_json import decode_request
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage
from service.errors import InvalidRequest
from service.idempotency.idempotency_keys import (
    LONGEST,
    StreamPlace,
    body_digest,
    check,
    claim_id,
    place,
    token,
)

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}], "temperature": 1}'


@pytest.mark.parametrize("key", ["a", "a b", '"quoted"', "~", "x" * LONGEST])
def test_a_key_is_printable_text(key: str) -> None:
    check(key)


@pytest.mark.parametrize("key", ["", "x" * (LONGEST + 1), "a\n", "a\x7f", "é", "\t"])
def test_anything_else_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(key)
    assert caught.value.param == "Idempotency-Key"
    assert "1 to 255 printable ASCII characters" in caught.value.message


def test_an_answer_belongs_to_an_api_key() -> None:
    assert claim_id(1, "k") == claim_id(1, "k")
    assert len({claim_id(1, "k"), claim_id(2, "k"), claim_id(1, "l")}) == 3
    assert "secret-name" not in claim_id(1, "secret-name")


def test_the_form_of_the_json_does_not_matter() -> None:
    other = b'{"temperature":1.0,"messages":[{"content":"Hello","role":"user"}],"model":"m"}'
    streamed = BODY[:-1] + b', "stream": true}'
    digests = {body_digest(decode_request(d), streamed=True) for d in (BODY, other, streamed)}
    assert len(digests) == 1


def test_a_message_that_is_not_canonical_has_the_digest_of_its_canonical_form() -> None:
    hello = ChatMessage(role="user", content_text="Hello")
    loose = ChatCompletionParams(model="m", messages=[hello], extra_json={"temperature": "1"})
    assert body_digest(loose, streamed=False) == body_digest(decode_request(BODY), streamed=False)


def test_a_request_that_cannot_be_read_has_a_digest_too() -> None:
    assert body_digest(ChatCompletionParams(extra_json={"a": "{"}), streamed=False)


@pytest.mark.parametrize(
    "other",
    [
        BODY.replace(b"Hello", b"hello"),
        BODY.replace(b"1}", b"0}"),
        BODY[:-1] + b', "n": null}',
        BODY[:-1] + b', "top_k": 3}',
    ],
)
def test_every_parameter_matters(other: bytes) -> None:
    assert body_digest(decode_request(other), streamed=False) != body_digest(
        decode_request(BODY), streamed=False
    )


def test_the_method_matters() -> None:
    params = decode_request(BODY)
    assert body_digest(params, streamed=True) != body_digest(params, streamed=False)


def test_a_digest_leaves_the_request_as_it_is() -> None:
    params = decode_request(BODY[:-1] + b', "stream": true}')
    body_digest(params, streamed=True)
    assert params.stream


def test_a_token_names_its_place() -> None:
    assert place(token("0185d2e4", 12)) == StreamPlace("0185d2e4", 12)


@pytest.mark.parametrize("text", ["", "a", "a-", "-1", "a-x", "a-1-2", "a-1234567890", "a -1"])
def test_any_other_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        place(text)
    assert caught.value.param == "Last-Event-ID"
