"""The plan of a supervisor: what it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from process.settings import Address, Listen

LONGEST_ENDING: Final = 15.0
"""Seconds until workers are killed, beyond their longest drain or after a second signal."""


class PrepareError(Exception):
    """The workers cannot be prepared. The text is for the person who starts them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of a supervisor: what it runs."""

    logger: str
    workers: int
    """How many."""
    environment: Mapping[str, str]
    """Of the workers, except for the addresses."""
    listens: Mapping[str, Address]
    """The addresses that workers share, by variable."""
    metrics_listens: Mapping[str, Listen | None]
    """Where the supervisor serves metrics, by variable, in the order of the workers' registries."""
    longest_drain: float
    """How long a worker drains, in seconds."""
    prepare: Callable[[], Mapping[str, str]] = dict
    """Called once when the ports are held; returns variables to add to the environment. Raises
    `PrepareError`."""
    serving: Callable[[Mapping[str, int]], None]
    """Called once when all workers serve, with the ports by variable."""
