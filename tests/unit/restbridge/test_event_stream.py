import asyncio

import pytest

from restbridge.event_stream import DONE, KEEP_ALIVE, EventStream, event
from restbridge.http.exchange import Exchange
from tests.unit.restbridge.exchanges import FakeClock, Wire, exchange, turn


def stream(wire: Wire, clock: FakeClock, of: Exchange | None = None) -> EventStream:
    return EventStream(of or exchange(), wire.send, clock=clock, silence=15.0)


async def test_a_stream_is_framed_as_sdks_read_it() -> None:
    wire, clock = Wire(), FakeClock()
    async with stream(wire, clock) as events:
        await events.open([(b"x-a", b"1")])
        await events.write(b'{"a":1}')
        await events.write(b"{}")
        await events.finish()

    assert wire.body == b'data: {"a":1}\n\ndata: {}\n\ndata: [DONE]\n\n'
    assert wire.ended
    assert wire.status == 200
    assert wire.headers == {
        b"content-type": b"text/event-stream; charset=utf-8",
        b"cache-control": b"no-cache",
        b"x-accel-buffering": b"no",
        b"x-a": b"1",
    }
    assert clock.pending == 0


def test_an_event_is_one_line_and_a_blank_one() -> None:
    assert event(b"{}") == b"data: {}\n\n"
    assert DONE == b"data: [DONE]\n\n"
    assert KEEP_ALIVE == b": keep-alive\n\n"


async def test_the_head_of_the_request_is_forgotten_with_the_first_event() -> None:
    wire, clock = Wire(), FakeClock()
    async with stream(wire, clock, exchange(connection=wire)) as events:
        await clock.advance(15)
        assert wire.has_request  # the service can still refuse it
        await events.open([])
        assert not wire.has_request


async def test_nothing_is_sent_before_the_stream_is_open() -> None:
    wire, clock = Wire(), FakeClock()
    of = exchange()
    async with stream(wire, clock, of):
        await clock.advance(14.9)
    assert wire.sent == []
    assert not of.streams_events
    assert clock.pending == 0


async def test_silence_opens_the_stream_and_is_broken_every_15_seconds() -> None:
    wire, clock = Wire(), FakeClock()
    of = exchange()
    async with stream(wire, clock, of) as events:
        await clock.advance(15)
        assert of.streams_events
        assert (wire.status, wire.body) == (200, KEEP_ALIVE)
        await clock.advance(30)
        assert wire.body == KEEP_ALIVE * 3
        await events.open([(b"x-late", b"1")])
        await events.write(b"1")
        await events.finish()
    assert wire.body == KEEP_ALIVE * 3 + b"data: 1\n\n" + DONE
    assert b"x-late" not in wire.headers
    assert [message["type"] for message in wire.sent].count("http.response.start") == 1


async def test_only_silence_is_broken() -> None:
    wire, clock = Wire(), FakeClock()
    async with stream(wire, clock) as events:
        await events.open([])
        for _ in range(10):
            await clock.advance(14)
            await events.write(b"1")
        assert KEEP_ALIVE not in wire.body
        await clock.advance(15)
        assert wire.body.endswith(KEEP_ALIVE)
        await clock.advance(14.9)
        assert wire.body.count(KEEP_ALIVE) == 1


async def test_one_comment_at_most_waits_for_a_reader_who_does_not_read() -> None:
    wire, clock = Wire(), FakeClock()
    async with stream(wire, clock) as events:
        await events.open([])
        wire.gate.clear()
        await clock.advance(150)
        wire.gate.set()
        await events.write(b"1")
    assert wire.body == KEEP_ALIVE + b"data: 1\n\n"


async def test_an_event_waits_for_the_status_line_that_a_comment_sends() -> None:
    wire, clock = Wire(), FakeClock()
    async with stream(wire, clock) as events:
        wire.gate.clear()
        await clock.advance(15)
        opening = asyncio.create_task(events.open([]))
        await turn()
        assert wire.sent == []
        wire.gate.set()
        await opening
        await events.write(b"1")
    assert [message["type"] for message in wire.sent] == [
        "http.response.start",
        "http.response.body",
        "http.response.body",
    ]


async def test_nothing_is_sent_after_the_end() -> None:
    wire, clock = Wire(), FakeClock()
    async with stream(wire, clock) as events:
        await events.open([])
        await events.finish()
        await clock.advance(60)
    await clock.advance(60)
    assert wire.body == DONE


async def test_a_comment_that_cannot_be_sent_fails_the_stream() -> None:
    clock = FakeClock()

    async def broken(_: object) -> None:
        raise OSError

    async def run() -> None:
        async with EventStream(exchange(), broken, clock=clock, silence=15) as events:
            await clock.advance(15)
            await events.open([])

    with pytest.raises(OSError):  # noqa: PT011 - the one above, as it is
        await run()


async def test_what_was_sent_is_counted() -> None:
    wire, clock = Wire(), FakeClock(now=5)
    of = exchange()
    async with stream(wire, clock, of) as events:
        assert not of.events
        await clock.advance(2)
        await events.open([])
        await events.write(b"1")
        await events.write(b"2")
    assert (of.first_event, of.events) == (7, 2)


async def test_a_write_waits_until_the_client_has_read_enough() -> None:
    wire, clock = Wire(), FakeClock()
    of = exchange(connection=wire)
    async with stream(wire, clock, of) as events:
        await events.open([])
        wire.unread.clear()
        writing = asyncio.create_task(events.write(b"1"))
        await turn()
        assert (wire.body, writing.done()) == (b"data: 1\n\n", False)
        wire.unread.set()
        await writing
