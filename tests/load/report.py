"""From the figures of every round to medians, ratios, tables and JSON.

    {label: {figure: [a value per round]}} -> Report -> JSON -> tables

A median stands with the least and the largest value. A ratio is the median of the ratios of each
round, because the systems of one round met the same machine.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.load.measures import FIGURES, Figure

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""By label and figure, a value per round."""

MARK: Final = "bench"
"""Between the marks of this name, docs/performance.md has the tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a run.

    Args:
        machine: What the figures depend on besides the code, by name.
        values: The figures.
        pairs: Labels to divide: the first by the second.
    """

    machine: Mapping[str, str]
    values: Values
    pairs: Sequence[tuple[str, str]]

    def to_json(self) -> str:
        """Return the report with its medians and spreads, as JSON."""
        document = asdict(self) | {
            "figures": {name: asdict(figure) for name, figure in FIGURES.items()},
            "medians": {
                label: {name: _summary(values) for name, values in figures.items()}
                for label, figures in self.values.items()
            },
            "ratios": {
                f"{one} / {other}": {
                    name: _summary(self._ratios(one, other, name))
                    for name in self._names()
                    if self._ratios(one, other, name)
                }
                for one, other in self.pairs
            },
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def tables(self) -> str:
        """Return the figures and the machine as tables in Markdown."""
        rounds = max(len(values) for each in self.values.values() for values in each.values())
        head = ["", *self.values, *(f"{one} / {other}" for one, other in self.pairs)]
        facts = "; ".join(f"{name}: {value}" for name, value in self.machine.items())
        return "\n".join(
            (
                f"Median (least to largest) of {rounds} interleaved rounds.",
                "",
                _row(head),
                _row("---" for _ in head),
                *(_row(self._cells(name)) for name in self._names()),
                "",
                facts + ".",
            )
        )

    def _names(self) -> Iterator[str]:
        return (name for name in FIGURES if any(name in each for each in self.values.values()))

    def _cells(self, name: str) -> Iterator[str]:
        figure = FIGURES[name]
        yield f"{figure.text}, {figure.unit}"
        for figures in self.values.values():
            yield _cell(figures.get(name, ()), figure)
        for one, other in self.pairs:
            yield _cell(self._ratios(one, other, name), Figure(text="", unit="", digits=3))

    def _ratios(self, one: str, other: str, name: str) -> list[float]:
        pairs = zip(
            self.values.get(one, {}).get(name, ()),
            self.values.get(other, {}).get(name, ()),
            strict=False,
        )
        return [a / b for a, b in pairs if b]


def read(path: Path) -> Report:
    """Read the JSON of an earlier run."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Report(
        machine=document["machine"],
        values=document["values"],
        pairs=[(one, other) for one, other in document["pairs"]],
    )


def between(document: str, mark: str) -> tuple[str, str, str]:
    """Return a document before, within and after a pair of marks, which stay outside.

    Raises:
        ValueError: the document does not have each mark once.
    """
    begin, end = f"<!-- {mark} -->\n", f"\n<!-- /{mark} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"the document has no single pair of <!-- {mark} -->")
    before, _, rest = document.partition(begin)
    within, _, after = rest.partition(end)
    return before + begin, within, end + after


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}


def _cell(values: Sequence[float], figure: Figure) -> str:
    if not values:
        return ""
    middle, least, largest = (
        f"{value:,.{figure.digits}f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({least} … {largest})" if len(values) > 1 else middle


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
