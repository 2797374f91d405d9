"""The messages between a supervisor and a worker, over their socket.

    supervisor -> Signal, Scrape -> worker
    supervisor <- Serving, Scraped <- worker

A frame is the length of the message in four bytes and the message as JSON. The end of the stream
is the end of the other process.
"""

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:  # commands import this, and do without
    from prometheus_client.registry import Collector

HEAD: Final = struct.Struct(">I")
"""The length of a message."""

LONGEST: Final = 64 * 1024 * 1024
"""The longest message, in bytes; a longer one ends the stream."""


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, array_like=True, frozen=True):
    """One metric, with its values by labels."""

    name: str
    documentation: str
    type: str
    samples: list[Sample]


class Signal(msgspec.Struct, tag=True, frozen=True):
    """A signal that the supervisor received: the worker acts as if it were its own."""

    number: int


class Scrape(msgspec.Struct, tag=True, frozen=True):
    """A question for the metrics of a registry."""

    number: int
    registry: int
    """Its position among those that the worker serves."""


class Serving(msgspec.Struct, tag=True, frozen=True):
    """The worker serves."""


class Scraped(msgspec.Struct, tag=True, frozen=True):
    """The answer to the question with the same number."""

    number: int
    families: list[Family]


ToWorker: TypeAlias = Signal | Scrape
ToSupervisor: TypeAlias = Serving | Scraped

to_worker: Final = msgspec.json.Decoder(ToWorker)
to_supervisor: Final = msgspec.json.Decoder(ToSupervisor)

_encode: Final = msgspec.json.Encoder().encode


def frame(message: ToWorker | ToSupervisor) -> bytes:
    """Return a message as a frame."""
    body = _encode(message)
    return HEAD.pack(len(body)) + body


def families(registry: "Collector") -> list[Family]:
    """Return the metrics of a registry."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [Sample(sample.name, sample.labels, sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]
