"""The metrics of all workers as those of one process.

    counters, histograms   the sum over all workers, living and ended, of the last known values
    gauges                 the sum over the workers that answered, except:
    …_up, …_start_time_…   the lowest
    chat_events_…          the highest of its gauges, which all workers read from the store
    …_info                 one value, as of one process

A counter therefore never goes backwards: not if a worker ends, nor if one does not answer in time.
Pure: takes the answers of workers and returns sums.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from process.workers.frames import Family, Sample

_GAUGE: Final = "gauge"
_LOWEST: Final = ("_up", "_start_time_seconds")
_HIGHEST: Final = ("chat_events_pending", "chat_events_dead", "chat_events_oldest_age_seconds")
_INFO: Final = "_info"

_Labels: TypeAlias = tuple[tuple[str, str], ...]


class _Sum:
    """One family, added up."""

    def __init__(self, family: Family) -> None:
        self._first = family
        self._values: dict[tuple[str, _Labels], float] = {}

    def add(self, family: Family) -> None:
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            known = self._values.get(key)
            if known is None:
                self._values[key] = sample.value
            elif sample.name.endswith(_LOWEST):
                self._values[key] = min(known, sample.value)
            elif sample.name in _HIGHEST:
                self._values[key] = max(known, sample.value)
            elif not sample.name.endswith(_INFO):
                self._values[key] = known + sample.value

    def family(self) -> Family:
        samples = [
            Sample(name, dict(labels), value) for (name, labels), value in self._values.items()
        ]
        return Family(self._first.name, self._first.documentation, self._first.type, samples)


def add(all_families: Iterable[Iterable[Family]]) -> list[Family]:
    """Return the sums of the metrics of several processes, in the order of their first."""
    sums: dict[str, _Sum] = {}
    for families in all_families:
        for family in families:
            if family.name not in sums:
                sums[family.name] = _Sum(family)
            sums[family.name].add(family)
    return [each.family() for each in sums.values()]


class Sums:
    """The metrics of the workers of one supervisor."""

    def __init__(self) -> None:
        self._last: dict[object, list[Family]] = {}
        self._ended: list[Family] = []

    def take(self, worker: object, families: list[Family]) -> None:
        """Take the answer of a worker.

        Args:
            worker: A process; one that was started again is another.
            families: Its metrics.
        """
        self._last[worker] = families

    def end(self, worker: object) -> None:
        """Take note that a worker ended: its gauges are gone, its counters stay."""
        families = self._last.pop(worker, [])
        self._ended = add((self._ended, _lasting(families)))

    def total(self, answered: Iterable[object]) -> list[Family]:
        """Return the sums.

        Args:
            answered: The workers whose last answer is of now.
        """
        fresh = set(answered)
        return add(
            (
                *(
                    families if worker in fresh else _lasting(families)
                    for worker, families in self._last.items()
                ),
                self._ended,
            )
        )


def _lasting(families: Iterable[Family]) -> list[Family]:
    return [family for family in families if family.type != _GAUGE]
