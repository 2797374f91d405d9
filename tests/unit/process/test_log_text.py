import io
import logging
import re
from collections.abc import Iterator

import pytest

from process import log
from process.lifetime import SECOND

CALL = {
    "request_id": "req_1",
    "method": "CreateChatCompletion",
    "model": "default",
    "reason": "OK",
    "duration_ms": 812.4,
    "account": "acme",
    "key": "ci",
    "charge": 420_000,
    "upstream": "vllm",
    "upstream_status": 200,
}


class Terminal(io.StringIO):
    """A stream that is a terminal, or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture(autouse=True)
def logging_is_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def written(
    style: str = "text", *, is_terminal: bool = False, worker: int | None = None
) -> Terminal:
    stream = Terminal(is_terminal=is_terminal)
    log.configure("info", stream, style=style, worker=worker)
    return stream


def without_time(stream: io.StringIO) -> list[str]:
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} ", line) for line in lines), lines
    return [line[13:] for line in lines]


def test_a_call_is_one_short_line() -> None:
    stream = written()
    log.event("service", "call", **CALL)

    assert without_time(stream) == [
        "call OK CreateChatCompletion default 812 ms key=acme/ci request_id=req_1 charge=0.00042 "
        "upstream=vllm upstream_status=200"
    ]


def test_a_request_that_succeeds_has_no_reason() -> None:
    stream = written()
    members = {"status": 200, "method": "POST", "route": "/v1/x", "duration_ms": 1.0}
    log.event("restbridge", "request", **members, reason="OK")
    log.event("restbridge", "request", **members, reason="DRAINING")

    assert without_time(stream) == [
        "request 200 POST /v1/x 1 ms",
        "request 200 POST /v1/x 1 ms reason=DRAINING",
    ]


def test_a_level_that_is_not_info_is_named() -> None:
    stream = written(worker=2)
    logging.getLogger("service").error("store is away", extra=log.fields(why="no route to host"))

    assert without_time(stream) == ['ERROR store is away worker=2 why="no route to host"']


def test_a_line_stays_a_line() -> None:
    stream = written()
    log.event("service", "a\nb", text='c\r\n"', empty="", many=("x", "y z"), long="z" * 300)
    logging.getLogger("httpx").warning("said %s", "a secret")

    first, second = without_time(stream)
    assert first.startswith(r'"a\nb" text="c\r\n\"" empty="" many=x,"y z" long=zzz')
    assert len(first) < 300
    assert second == "WARNING said %s"


def test_an_exception_has_its_type_and_places() -> None:
    stream = written()
    try:
        raise RuntimeError("a secret")
    except RuntimeError:
        logging.getLogger("service").exception("failed")

    (line,) = without_time(stream)
    assert line.startswith("ERROR failed exception=RuntimeError places=")
    assert "secret" not in line


@pytest.mark.parametrize(
    ("style", "is_terminal", "is_text"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("json", True, False),
        ("text", False, True),
    ],
)
def test_the_form_follows_the_setting_and_the_terminal(
    style: str, is_terminal: bool, is_text: bool
) -> None:
    stream = written(style, is_terminal=is_terminal)
    log.event("service", "stopped")

    assert stream.getvalue().startswith("{") is not is_text


def test_only_a_terminal_has_colours() -> None:
    colours = []
    for is_terminal in (True, False):
        stream = written(is_terminal=is_terminal)
        log.event("service", "call", **CALL)
        log.event("service", "call", **{**CALL, "reason": "UPSTREAM_ERROR"})
        logging.getLogger("service").error("x")
        colours.append(re.findall(r"\x1b\[3(\d)m", stream.getvalue()))

    assert colours == [["2", "3", "1"], []]


def test_a_line_ends_with_its_text() -> None:
    stream = written(is_terminal=True)
    log.event("service", "stopped")

    assert stream.getvalue().endswith("stopped\x1b[0m\n")


def test_the_hint_at_a_drain_is_readable() -> None:
    stream = written()
    log.event("service", "draining", signal="SIGINT", hint=SECOND)

    assert without_time(stream) == [f'draining signal=SIGINT hint="{SECOND}"']
