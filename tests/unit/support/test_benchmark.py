"""The pure parts of the benchmarks, and the tables of docs/performance.md that describe them."""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.load import drive, instructions, layers, report
from tests.load.clients import Request, Seen
from tests.load.kernel import cpu_seconds, with_children
from tests.load.measures import FIGURES, MEASURES, OPTIONAL
from tests.load.systems import ON_REQUEST, OURS, ROOT

PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
REPORT = report.Report(
    machine={"CPU": "fast"},
    values={
        "a": {"unary": [2000.0, 1000.0, 3000.0], "p50": [1.5]},
        "b": {"unary": [1000.0, 2000.0, 3000.0]},
    },
    pairs=[("a", "b")],
)


def first_column(head: str) -> list[str]:
    _, _, rest = PAGE.partition(f"| {head} |")
    return re.findall(r"^\| `([^`]+)` \|", rest.partition("\n\n")[0], re.MULTILINE)


def test_the_page_describes_every_topology_and_measure() -> None:
    assert first_column("Topology") == [*OURS, *ON_REQUEST]
    assert first_column("`--only`") == list(MEASURES)
    assert set(MEASURES) >= OPTIONAL


def test_the_page_takes_every_table() -> None:
    for mark in (report.MARK, layers.MARK, instructions.MARK):
        before, within, after = report.between(PAGE, mark)
        assert before + within + after == PAGE
    _, record, _ = report.between(PAGE, instructions.MARK)
    assert set(instructions.recorded(record)) == {"A unary request", "A streamed chunk"}
    with pytest.raises(ValueError, match="no single pair of <!-- none -->"):
        report.between(PAGE, "none")


def test_a_report_has_medians_with_their_spread_and_the_ratio_of_each_round() -> None:
    lines = REPORT.tables().splitlines()
    assert lines[0] == "Median (least to largest) of 3 interleaved rounds."
    row = next(line for line in lines if FIGURES["unary"].text in line)
    assert row.split(" | ")[1:] == [
        "2,000 (1,000 … 3,000)",
        "2,000 (1,000 … 3,000)",
        "1.000 (0.500 … 2.000) |",
    ]
    row = next(line for line in lines if FIGURES["p50"].text in line)
    assert row.split(" | ")[1:] == ["1.50", "", " |"]
    assert lines[-1] == "CPU: fast."


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(REPORT.to_json(), encoding="utf-8")
    assert report.read(file) == REPORT


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [drive.percentile(values, percent) for percent in (0, 50, 99)] == [1.0, 51.0, 100.0]
    assert drive.percentile([7.0], 99) == 7.0


def test_arrivals_come_at_their_rate_and_alike_each_time() -> None:
    assert list(drive.evenly(4.0, 1.0)) == [0.0, 0.25, 0.5, 0.75]
    times = list(drive.by_chance(100.0, 10.0))
    assert times == list(drive.by_chance(100.0, 10.0))
    assert 900 < len(times) < 1100
    assert times[-1] < 10.0
    assert all(earlier < later for earlier, later in pairwise(times))


class Stalls:
    """A caller that answers when it is let go, at a time of its own clock."""

    def __init__(self) -> None:
        self.chunks = 0
        self.now = 100.0
        self.go = asyncio.Event()

    async def ask(self, request: Request) -> Seen:
        await self.go.wait()
        return Seen(self.now, self.now, 1)


async def test_the_latency_of_an_arrival_counts_while_no_caller_is_free() -> None:
    caller = Stalls()
    request = Request(model="any", streamed=False)
    due = asyncio.Event()

    def times() -> Iterator[float]:
        yield from (0.0, 0.0, 0.0)
        due.set()

    arrivals = drive.arrivals([caller], request, times(), lambda: caller.now)
    running = asyncio.create_task(arrivals)
    await due.wait()
    await asyncio.sleep(0)  # the last one arrives
    caller.now += 5.0
    caller.go.set()
    assert [each.whole for each in await running] == [5.0, 5.0, 5.0]


def test_a_count_may_grow_by_a_twentieth() -> None:
    before = {"A unary request": 1000}
    assert instructions.grown({"A unary request": 1050}, before) == []
    assert instructions.grown({"A unary request": 1051}, before) == [
        "A unary request: 1,051 instructions, 1,000 before"
    ]
    assert instructions.grown({"A new one": 1}, before) == ["A new one: 1 instructions, 0 before"]


def test_counts_are_recorded_to_three_digits() -> None:
    text = instructions.table({"A unary request": 2_998_451, "A streamed chunk": 17_449})
    assert instructions.built() in text
    assert instructions.recorded(text) == {
        "A unary request": 3_000_000,
        "A streamed chunk": 17_400,
    }


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/tree/service/ledger/store.py", "service/ledger"),
        ("/tree/protos/chatcompletion/openai_json/x.py", "chatcompletion/openai_json"),
        ("/tree/.venv/lib/python3.11/site-packages/httpx/_models.py", "httpx"),
        ("/usr/lib/python3.11/asyncio/tasks.py", "asyncio"),
        ("/usr/lib/python3.11/contextlib.py", "standard library"),
        ("<string>", "standard library"),
        ("sqlite3", "SQLite"),
    ],
)
def test_a_file_has_a_layer(file: str, expected: str) -> None:
    assert layers.layer(file, Path("/tree")) == expected


def test_the_largest_layers_come_first_and_small_ones_are_added_up() -> None:
    shares = {"a": {"service": 0.5, "x": 0.004, "y": 0.004, "asyncio": 0.6}}
    assert layers.table(shares).splitlines()[2:] == [
        "| asyncio | 60% |",
        "| `service` | 50% |",
        "| Others | 1% |",
    ]


def test_the_cpu_time_of_a_process_is_the_kernels() -> None:
    before = time.process_time()
    found = cpu_seconds([os.getpid()])
    assert before <= found <= time.process_time()
    assert with_children(os.getpid())[0] == os.getpid()
