"""Messages for several readers: from any place, at their own pace, in bounded memory."""

import asyncio
from collections.abc import Sequence

import pytest

from service.errors import AnswerNotKept, UpstreamError
from service.idempotency.logs import AnswerLog, LogReader, Memory


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def everything(reader: LogReader) -> list[bytes]:
    found: list[bytes] = []
    while entries := await reader.take():
        found += entries
    return found


def entries(count: int, size: int = 10) -> Sequence[bytes]:
    return [f"{number:0{size}}".encode() for number in range(count)]


async def test_each_reader_gets_all_entries_as_they_arrive() -> None:
    log = AnswerLog(1000, Memory())
    with log.reading(0) as one, log.reading(0) as other:
        readers = [asyncio.create_task(everything(reader)) for reader in (one, other)]
        for entry in entries(5):
            await log.append(entry)
            await turn()
        log.end(None)
        assert await asyncio.gather(*readers) == [entries(5), entries(5)]


@pytest.mark.parametrize("position", [0, 2, 5, 9])
async def test_a_reader_begins_at_any_place(position: int) -> None:
    log = AnswerLog(1000, Memory())
    for entry in entries(5):
        await log.append(entry)
    log.end(None)
    with log.reading(position) as reader:
        assert await everything(reader) == entries(5)[position:]


async def test_a_failure_follows_the_entries_for_each_reader() -> None:
    log = AnswerLog(1000, Memory())
    await log.append(b"1")
    failure = UpstreamError("broke")
    log.end(failure)
    for _ in range(2):
        with log.reading(0) as reader:
            assert await reader.take() == [b"1"]
            with pytest.raises(UpstreamError, match="broke") as caught:
                await reader.take()
            assert caught.value is not failure


async def test_up_to_its_maximum_a_log_waits_for_nobody_and_is_whole() -> None:
    log = AnswerLog(50, Memory())
    for entry in entries(5):
        await log.append(entry)
    assert log.is_whole
    assert log.entries == entries(5)


async def test_beyond_it_the_fastest_reader_sets_the_pace() -> None:
    memory = Memory()
    log = AnswerLog(50, memory)
    with log.reading(0) as fast, log.reading(0) as slow:
        for entry in entries(5):
            await log.append(entry)
        more = asyncio.create_task(log.append(entries(6)[5]))
        await turn()
        assert not more.done()
        assert not log.is_whole

        assert await fast.take() == entries(5)
        await more
        assert memory.used == 50
        assert await fast.take() == entries(6)[5:]
        with pytest.raises(AnswerNotKept, match="too slowly"):
            await slow.take()


async def test_a_full_log_without_readers_waits_for_one() -> None:
    log = AnswerLog(20, Memory())
    with log.reading(0) as reader:
        filling = asyncio.create_task(_fill(log))
        await turn()
        assert not filling.done()
        found: list[bytes] = []
        while not filling.done():
            found += await reader.take()
            await turn()
        log.end(None)
        found += await everything(reader)
    assert found == entries(9)


async def _fill(log: AnswerLog) -> None:
    for entry in entries(9):
        await log.append(entry)


async def test_a_single_entry_can_be_larger_than_the_maximum() -> None:
    log = AnswerLog(5, Memory())
    await log.append(b"x" * 100)
    with log.reading(0) as reader:
        assert await reader.take() == [b"x" * 100]


async def test_all_logs_share_their_memory() -> None:
    memory = Memory(most=30)
    one, other = AnswerLog(1000, memory), AnswerLog(1000, memory)
    for entry in entries(3):
        await one.append(entry)
    await other.append(entries(1)[0])  # the first entry always fits
    waiting = asyncio.create_task(other.append(entries(2)[1]))
    await turn()
    assert not waiting.done()

    with other.reading(0) as reader:
        await reader.take()
        await waiting
    assert one.is_whole
    assert not other.is_whole
    one.clear()
    other.clear()
    assert memory.used == 0
