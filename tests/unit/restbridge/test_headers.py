import pytest

from chatcompletion import charges
from chatcompletion.v1.chat_completion_service_pb2 import Charge
from restbridge.headers import (
    ANSWER,
    EXPOSED,
    RATE_LIMIT,
    answer,
    idempotency,
    last_event_id,
    metadata,
    single,
)


def sent(*headers: tuple[bytes, bytes]) -> dict[str, str]:
    pairs = metadata(headers, "req_1")
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def test_the_request_id_is_always_sent() -> None:
    assert sent((b"x-request-id", b"other"), (b"cookie", b"c")) == {"x-request-id": "req_1"}


@pytest.mark.parametrize("key", [b"Bearer sk-1", b"Basic a", b"anything", b"x" * 4096])
def test_an_authorization_is_carried_as_it_is(key: bytes) -> None:
    assert sent((b"authorization", key))["authorization"] == key.decode()


@pytest.mark.parametrize("key", [b"", b"x" * 4097, b"a\xff", b"a\tb", b"a\nb", b"a\x00"])
def test_what_cannot_be_a_key_is_left_out(key: bytes) -> None:
    assert "authorization" not in sent((b"authorization", key))


def test_two_keys_are_left_out() -> None:
    assert "authorization" not in sent((b"authorization", b"a"), (b"authorization", b"a"))


@pytest.mark.parametrize("name", [b"x-api-key", b"api-key"])
def test_the_name_of_a_key_in_another_header_is_carried(name: bytes) -> None:
    assert sent((name, b"sk-1")) == {"x-request-id": "req_1", name.decode(): "-"}
    assert name.decode() not in sent((name, b"sk-1"), (b"authorization", b"a"))


def test_trace_headers_are_those_that_are_carried_on() -> None:
    assert metadata([(b"traceparent", b"x")], "req_1", (("baggage", "a=1"),)) == (
        ("x-request-id", "req_1"),
        ("baggage", "a=1"),
    )


@pytest.mark.parametrize("name", sorted(ANSWER))
def test_listed_metadata_become_headers(name: str) -> None:
    assert answer(((name, "7"),)) == [(name.encode(), b"7")]


@pytest.mark.parametrize(
    "pair",
    [
        ("set-cookie", "a"),
        ("x-internal", "a"),
        ("content-type", "text/html"),
        ("x-request-id", "other"),
        ("retry-after", ""),
        ("retry-after", "a\r\nset-cookie: b"),
        ("retry-after", "é"),
        ("retry-after", "x" * 257),
        ("retry-after", b"1"),
    ],
)
def test_nothing_else_does(pair: tuple[str, str | bytes]) -> None:
    assert answer((pair,), None) == []


def test_a_receipt_becomes_a_header() -> None:
    charge = Charge(hold_id="h", amount_nano_credits=7)

    [(name, value)] = answer(charges.metadata(charge), ((charges.KEY, "text"),))

    assert (name, value) == (b"x-charge", charges.text(charge).encode())


def test_of_a_repeated_name_the_last_counts() -> None:
    assert answer((("retry-after", "1"),), (("retry-after", "2"),)) == [(b"retry-after", b"2")]


def test_the_limits_are_openais_six() -> None:
    assert set(RATE_LIMIT) == {
        "x-ratelimit-limit-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
    }
    assert {*ANSWER, "x-charge", "x-request-id", "x-should-retry"} == set(EXPOSED)


def test_a_single_header_is_there_once() -> None:
    headers = [(b"a", b"1"), (b"b", b"2"), (b"b", b"3")]
    assert [single(headers, name) for name in (b"a", b"b", b"c")] == [b"1", None, None]


@pytest.mark.parametrize("key", [b"a", b"a b", b"x" * 255])
def test_an_idempotency_key_is_carried_as_it_is(key: bytes) -> None:
    assert idempotency([(b"idempotency-key", key)]) == (("idempotency-key", key.decode()),)


@pytest.mark.parametrize("keys", [[b""], [b"x" * 256], [b"a\xff"], [b"a\tb"], [b"a", b"a"]])
def test_a_key_that_cannot_be_carried_becomes_one_that_is_refused(keys: list[bytes]) -> None:
    headers = [(b"idempotency-key", key) for key in keys]
    assert idempotency(headers) == (("idempotency-key", ""),)


def test_without_a_key_there_is_none() -> None:
    assert idempotency([(b"x-request-id", b"a")]) == ()


def test_a_last_event_id_is_there_once() -> None:
    assert last_event_id([(b"a", b"1")]) is None
    assert last_event_id([(b"last-event-id", b"h-1")]) == "h-1"
    assert last_event_id([(b"last-event-id", b"x" * 999)]) == "x" * 256
    assert last_event_id([(b"last-event-id", b"h-1"), (b"last-event-id", b"h-2")]) == ""
