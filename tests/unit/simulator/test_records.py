import asyncio

import pytest

from service.simulator.records import RecordLog, RequestRecord


def record(body: bytes = b"{}") -> RequestRecord:
    return RequestRecord(method="POST", path="/", headers={}, body=body, started=0.0)


async def test_requests_are_handed_out_in_turn_and_once() -> None:
    log = RecordLog(records=10, body_bytes=100)
    first, second = record(), record()
    log.add(first)
    log.add(second)

    assert await log.next() is first
    assert await log.next() is second
    assert [log[0], log[1]] == [first, second]


async def test_the_next_request_is_awaited() -> None:
    log = RecordLog(records=10, body_bytes=100)
    waiting = asyncio.create_task(log.next())
    await asyncio.sleep(0)
    assert not waiting.done()

    log.add(arrived := record())

    assert await waiting is arrived


async def test_the_oldest_is_forgotten_first() -> None:
    by_number = RecordLog(records=2, body_bytes=100)
    by_size = RecordLog(records=10, body_bytes=5)
    for number in range(4):
        by_number.add(record(b"%d" % number))
        by_size.add(record(b"%d%d" % (number, number)))

    assert [by_number[index].body for index in range(len(by_number))] == [b"2", b"3"]
    assert [by_size[index].body for index in range(len(by_size))] == [b"22", b"33"]
    assert (await by_number.next()).body == b"2"
    assert (await by_size.next()).body == b"22"


def test_nothing_is_kept_where_nothing_may_be() -> None:
    log = RecordLog(records=0, body_bytes=100)
    log.add(record())
    huge = RecordLog(records=5, body_bytes=1)
    huge.add(record(b"too large"))

    assert (len(log), len(huge)) == (0, 0)


async def test_what_is_cleared_is_not_handed_out() -> None:
    log = RecordLog(records=10, body_bytes=100)
    log.add(record())
    log.clear()
    log.add(later := record())

    assert len(log) == 1
    assert await log.next() is later


def test_the_body_is_read_as_json() -> None:
    assert record(b'{"a": 12345678901234567890123}').document == {"a": 12345678901234567890123}
    with pytest.raises(ValueError, match="Expecting"):
        _ = record(b"").document
