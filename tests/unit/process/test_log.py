import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from process import log


class CanaryError(Exception):
    pass


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Yield a stream that receives all logging, and restore logging afterwards."""
    root = logging.getLogger()
    ours = [logging.getLogger(name) for name in ("service", "restbridge")]
    before = (root.handlers[:], root.level, [logger.level for logger in ours])
    stream = io.StringIO()
    log.configure("info", stream)
    yield stream
    root.handlers[:], root.level = before[0], before[1]
    for logger, level in zip(ours, before[2], strict=True):
        logger.setLevel(level)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line(stream: io.StringIO) -> None:
    log.event("service.server", "serving", address="h:1", delay=0.5)
    (line,) = read(stream)

    assert line.pop("time")[-6:] == "+00:00"
    assert line == {
        "level": "info",
        "logger": "service.server",
        "event": "serving",
        "address": "h:1",
        "delay": 0.5,
    }


def test_a_line_stays_a_line(stream: io.StringIO) -> None:
    log.event("service", "a\nb", text='c\r\n{"x":"', thing=object())

    assert stream.getvalue().count("\n") == 1
    (line,) = read(stream)
    assert (line["event"], line["text"], line["thing"]) == ("a\nb", 'c\r\n{"x":"', "object")


@pytest.mark.parametrize("value", ["\ud83d", 2**100, float("nan"), b"\xff", {1: "x"}], ids=repr)
def test_no_value_loses_its_line(value: object, stream: io.StringIO) -> None:
    log.event("service", "x", value=value)

    assert [line["event"] for line in read(stream)] == ["x"]


@pytest.mark.parametrize(
    ("logger", "level", "shown"),
    [
        ("service.upstream.client", logging.INFO, True),
        ("restbridge", logging.INFO, True),
        ("service", logging.DEBUG, False),
        ("httpcore", logging.INFO, False),
        ("httpcore", logging.WARNING, True),
        ("servicex", logging.INFO, False),
    ],
)
def test_of_libraries_only_warnings_are_shown(
    logger: str, level: int, shown: bool, stream: io.StringIO
) -> None:
    logging.getLogger(logger).log(level, "x")

    assert bool(read(stream)) is shown


@pytest.mark.parametrize("level", log.LEVELS)
def test_the_level_is_the_least_that_is_shown(level: str, stream: io.StringIO) -> None:
    log.configure(level, stream)
    for each in log.LEVELS:
        logging.getLogger("service").log(logging.getLevelName(each.upper()), each)

    assert [line["level"] for line in read(stream)] == list(log.LEVELS[log.LEVELS.index(level) :])


def test_of_an_exception_there_are_type_and_places_and_no_text(stream: io.StringIO) -> None:
    def inner() -> None:
        raise CanaryError("text-canary")

    try:
        inner()
    except CanaryError:
        logging.getLogger("service").exception("failed")
    (line,) = read(stream)

    assert (line["event"], line["exception"]) == ("failed", "CanaryError")
    assert [place.partition(":")[0] for place in line["places"]] == ["test_log.py"] * 2
    assert line["places"][-1].endswith(" inner")
    assert "canary" not in stream.getvalue().replace("CanaryError", "")


def test_places_are_the_innermost_eight(stream: io.StringIO) -> None:
    def deeper(levels: int) -> None:
        if levels == 0:
            raise CanaryError
        deeper(levels - 1)

    with pytest.raises(CanaryError) as raised:
        deeper(100)
    members = log.exception_members(raised.type, raised.tb)

    assert len(members["places"]) == 8


def test_the_arguments_of_a_librarys_record_are_left_out(stream: io.StringIO) -> None:
    logging.getLogger("httpcore.http11").warning("bad header %s", "key-canary")
    logging.getLogger("service").warning("%d calls", 3)
    theirs, ours = read(stream)

    assert theirs["event"] == "bad header %s"
    assert ours["event"] == "3 calls"


def test_an_event_is_bounded(stream: io.StringIO) -> None:
    logging.getLogger("httpcore").warning("x" * 10_000)

    assert len(read(stream)[0]["event"]) == 512


async def test_what_nobody_awaits_is_reported_without_its_text(stream: io.StringIO) -> None:
    loop = asyncio.get_running_loop()
    log.report_exceptions(loop)
    loop.call_exception_handler(
        {"message": "text-canary", "exception": CanaryError("text-canary"), "task": "canary"}
    )
    loop.call_exception_handler({"message": "text-canary"})
    first, second = read(stream)

    assert (first["event"], first["exception"]) == ("unhandled in event loop", "CanaryError")
    assert "exception" not in second
    assert "text-canary" not in stream.getvalue()


async def test_the_lines_of_a_turn_are_written_together(stream: io.StringIO) -> None:
    log.event("service", "one")
    log.event("service", "two")
    assert read(stream) == []
    await asyncio.sleep(0)

    assert [line["event"] for line in read(stream)] == ["one", "two"]
    log.event("service", "three")
    await asyncio.sleep(0)
    assert [line["event"] for line in read(stream)] == ["one", "two", "three"]


async def test_an_error_is_written_at_once_after_what_came_before(stream: io.StringIO) -> None:
    log.event("service", "before")
    logging.getLogger("service").error("error")

    assert [line["event"] for line in read(stream)] == ["before", "error"]


async def test_what_a_thread_says_is_written_at_once(stream: io.StringIO) -> None:
    await asyncio.to_thread(log.event, "service", "thread")

    assert [line["event"] for line in read(stream)] == ["thread"]


async def test_lines_without_number_are_not_kept(stream: io.StringIO) -> None:
    for _ in range(1500):
        log.event("service", "line")

    assert len(read(stream)) == 1000


def test_what_a_loop_left_unwritten_is_written_with_the_next_line(stream: io.StringIO) -> None:
    async def leave() -> None:
        log.event("service", "left")
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    leaving = loop.create_task(leave())
    loop.run_forever()
    loop.close()
    assert leaving.done()
    log.event("service", "next")

    assert [line["event"] for line in read(stream)] == ["left", "next"]


def test_the_time_has_milliseconds(stream: io.StringIO) -> None:
    formatter = log.JsonFormatter()
    record = logging.LogRecord("service", logging.INFO, "", 0, "x", (), None)
    times = []
    for record.created in (1.0, 1.9996, 2.5, 1.25):
        times.append(json.loads(formatter.format(record))["time"])

    assert times == [
        "1970-01-01T00:00:01.000+00:00",
        "1970-01-01T00:00:01.999+00:00",
        "1970-01-01T00:00:02.500+00:00",
        "1970-01-01T00:00:01.250+00:00",
    ]


def test_a_line_of_each_request_is_as_every_other(stream: io.StringIO) -> None:
    logger = logging.getLogger("service.telemetry")
    logger.info("call", extra=log.fields(status=200))
    log.line(logger, logging.INFO, "call", {"status": 200})
    log.line(logger, logging.DEBUG, "call", {"status": 200})

    usual, quick = ({**line, "time": ""} for line in read(stream))
    assert quick == usual


def test_a_record_of_a_line_has_every_attribute_of_a_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger().addHandler(caplog.handler)
    logging.getLogger("service").setLevel(logging.INFO)
    log.line(logging.getLogger("service"), logging.INFO, "call", {"status": 200})
    usual = logging.LogRecord("service", logging.INFO, "", 0, "call", (), None)

    (record,) = caplog.records
    assert all(hasattr(record, name) for name in vars(usual))
    assert record.getMessage() == "call"
