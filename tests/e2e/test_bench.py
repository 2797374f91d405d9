"""The benchmarks run, and all responses that they count are successes; no time is looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.load.measures import FIGURES
from tests.load.systems import OURS, ROOT

pytestmark = [
    pytest.mark.time_limit(300),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]


def bench(*arguments: str, module: str = "bench") -> str:
    done = subprocess.run(  # noqa: S603 - our own process
        [sys.executable, "-m", f"tests.load.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_topology_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    shown = bench(
        *("--rounds", "1", "--seconds", "0.1", "--json", str(file)),
        *("--only", "unary,chunks,paced,large,latency,first"),
    )
    medians = json.loads(file.read_text(encoding="utf-8"))["medians"]
    expected = [
        "unary",
        "rate",
        "slow",
        "load",
        "chunk",
        "paced",
        "large",
        "p50",
        "p99",
        "first",
        "first_rate",
    ]
    assert {label: list(figures) for label, figures in medians.items()} == dict.fromkeys(
        OURS, expected
    )
    assert all(FIGURES[name].text in shown for name in expected)


def test_two_checkouts_are_divided(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    bench(
        *("--rounds", "1", "--seconds", "0.1", "--json", str(file), "--topology", "grpc"),
        *("--only", "unary", "--against", str(ROOT)),
    )
    ((pair, ratios),) = json.loads(file.read_text(encoding="utf-8"))["ratios"].items()
    assert pair.startswith("grpc / grpc @")
    assert ratios["unary"]["median"] > 0


def test_a_checkout_charges_the_same_calls_alike() -> None:
    shown = bench("--against", str(ROOT), "--calls", "90", module="ledger_sums")
    first, second = (
        [line.split()[-4:] for line in shown.splitlines() if answers in line]
        for answers in ("whole answers", "odd answers")
    )
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert [entries for entries, *_ in (first[0], second[0])] == ["67", "12"]


def test_the_layers_are_named() -> None:
    shown = bench("--profile", "--seconds", "0.2", "--topology", "standalone")
    assert "| `service/ledger` |" in shown
    assert "| `restbridge` |" in shown
