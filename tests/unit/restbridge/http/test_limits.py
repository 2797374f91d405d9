from dataclasses import asdict, replace

import pytest
from starlette.types import Message, Receive, Scope, Send

from process import settings as process_settings
from restbridge.config import Settings
from restbridge.error_responses import LEFT, RefusedError
from restbridge.http.exchange import exchange_of
from restbridge.http.limits import Bodies, InFlight, Limits, check_json
from restbridge.server import limits_of
from tests.unit.restbridge.exchanges import Wire, scope

LIMITS = Limits(body_bytes=10, bodies_bytes=15, body_seconds=5)


def pieces(*bodies: bytes, more: bool = False) -> list[Message]:
    last = len(bodies) - 1
    return [
        {"type": "http.request", "body": body, "more_body": more or number < last}
        for number, body in enumerate(bodies)
    ]


async def read(*messages: Message, length: bytes | None = None) -> bytes:
    headers = [] if length is None else [(b"content-length", length)]
    with Bodies(LIMITS).holding() as body:
        return await body.read(scope(*headers), Wire(*messages).receive)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (pieces(b""), b""),
        (pieces(b"0123456789"), b"0123456789"),
        (pieces(b"01234", b"", b"56789"), b"0123456789"),
        ([{"type": "http.request"}], b""),
    ],
)
async def test_a_body_is_read_to_its_end(messages: list[Message], expected: bytes) -> None:
    assert await read(*messages) == expected


@pytest.mark.parametrize("messages", [pieces(b"01234567890"), pieces(b"012345", b"678901")])
async def test_too_long_a_body_is_413_while_it_is_read(messages: list[Message]) -> None:
    with pytest.raises(RefusedError) as caught:
        await read(*messages)
    assert caught.value.failure.status == 413


async def test_too_long_a_body_is_413_before_it_is_read() -> None:
    with pytest.raises(RefusedError) as caught:
        await read(length=b"11")
    assert caught.value.failure.status == 413


async def test_a_body_that_does_not_come_is_408() -> None:
    limits = Limits(body_seconds=0)
    with Bodies(limits).holding() as body, pytest.raises(RefusedError) as caught:
        await body.read(scope(), Wire(*pieces(b"1", more=True)).receive)
    assert (caught.value.failure.status, caught.value.failure.closes) == (408, True)


async def test_leaving_within_the_body_is_no_answer() -> None:
    with pytest.raises(RefusedError) as caught:
        await read(*pieces(b"1", more=True), {"type": "http.disconnect"})
    assert caught.value.failure is LEFT


async def test_all_bodies_together_are_limited_while_they_are_held() -> None:
    bodies = Bodies(LIMITS)
    with bodies.holding() as first:
        await first.read(scope(), Wire(*pieces(b"0123456789")).receive)
        with bodies.holding() as second:
            with pytest.raises(RefusedError) as caught:
                await second.read(scope(), Wire(*pieces(b"012", b"345")).receive)
            assert caught.value.failure.status == 503
    with bodies.holding() as third:
        assert await third.read(scope(), Wire(*pieces(b"0123456789")).receive)


async def test_a_body_that_was_read_is_not_pending() -> None:
    asked = scope()
    exchange_of(asked).body_is_pending = True
    with Bodies(LIMITS).holding() as body:
        await body.read(asked, Wire(*pieces(b"1")).receive)
    assert not exchange_of(asked).body_is_pending


async def test_requests_in_flight_are_limited_over_all_that_is_wrapped() -> None:
    places = InFlight(2)
    ran = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        ran.append("inner")
        with pytest.raises(RefusedError) as caught:
            await other(scope, receive, send)
        assert caught.value.failure.reason == "OVERLOADED"

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        ran.append("outer")
        await places.wrap(inner)(scope, receive, send)

    other = places.wrap(inner)
    wire = Wire()
    for _ in range(2):
        await places.wrap(outer)(scope(), wire.receive, wire.send)
    assert ran == ["outer", "inner"] * 2


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json",
        b"APPLICATION/JSON",
        b"application/json;charset=utf-8",
        b"application/json ; a=b",
        b"application/problem+json",
    ],
)
async def test_json_is_taken(kind: bytes) -> None:
    check_json(scope((b"content-type", kind)))
    check_json(scope((b"content-type", kind), (b"content-encoding", b" Identity")))


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"content-type", b""),),
        ((b"content-type", b"text/json"),),
        ((b"content-type", b"application/json5"),),
        ((b"content-type", b"application/json, application/json"),),
        ((b"content-type", b"application/json"), (b"content-type", b"application/json")),
        ((b"content-type", b"application/json"), (b"content-encoding", b"gzip")),
        ((b"content-type", b"application/json"), (b"content-encoding", b"identity, gzip")),
    ],
)
async def test_anything_else_is_415(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(RefusedError) as caught:
        check_json(scope(*headers))
    assert caught.value.failure.status == 415


def test_the_limits_are_these() -> None:
    assert asdict(Limits()) == {
        "connections": 10_000,
        "head_bytes": 65_536,
        "headers": 100,
        "head_seconds": 10.0,
        "body_bytes": 33_554_432,
        "body_seconds": 30.0,
        "bodies_bytes": 268_435_456,
        "idle_seconds": 75.0,
        "exchange_seconds": 660.0,
        "stall_seconds": 120.0,
        "in_flight": 1000,
    }


def test_some_limits_follow_from_the_settings() -> None:
    settings = process_settings.read(
        Settings,
        {
            "CHAT_BRIDGE_MAX_CONNECTIONS": "7",
            "CHAT_MAX_REQUEST_BYTES": "268435456",
            "CHAT_BRIDGE_MAX_CONCURRENCY": "5",
            "CHAT_BRIDGE_TIMEOUT": "100",
        },
    )
    assert limits_of(process_settings.read(Settings, {})) == Limits()
    assert limits_of(settings) == replace(
        Limits(),
        connections=7,
        body_bytes=268_435_456,
        bodies_bytes=268_435_456,
        in_flight=5,
        exchange_seconds=160.0,
    )
