"""The upstreams that the service calls: what it remembers of each.

    Upstreams.use(catalogue's upstreams) -> UpstreamState: its places, its breaker
    Upstreams.of(model)                  -> that of the model's upstream

An upstream whose name and address stay the same in a new models file keeps what is remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from service.models import Model, Upstream
from service.telemetry import Telemetry
from service.upstream.breaker import Breaker
from service.upstream.bulkhead import Bulkhead


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamBounds:
    """How many calls each upstream gets, and when it gets none."""

    connections: int = 1000
    """Maximum connections to all upstreams."""
    calls: int = 0
    """Maximum calls at each upstream; 0 for all connections if there is one upstream, otherwise for
    half of them."""
    waiting: int = 100
    """Maximum calls that wait for each."""
    failures: int = 5
    """Consecutive failures that open the breaker; 0 for none."""
    pause: float = 5.0
    """Seconds from then to the probe."""

    def calls_at(self, upstream: Upstream, count: int) -> int:
        """Return the maximum calls at an upstream.

        Args:
            upstream: The upstream.
            count: The number of upstreams.
        """
        share = self.connections if count == 1 else max(self.connections // 2, 1)
        return upstream.max_calls or self.calls or share


class UpstreamState:
    """What the service remembers of an upstream.

    Args:
        bulkhead: The places at it.
        breaker: Its breaker.
    """

    __slots__ = ("breaker", "bulkhead", "refuses_options")

    def __init__(self, bulkhead: Bulkhead, breaker: Breaker) -> None:
        self.bulkhead = bulkhead
        self.breaker = breaker
        self.refuses_options = False
        """Whether it refused `stream_options`."""


class Upstreams:
    """The upstreams of a service.

    Args:
        bounds: The bounds of each.
        telemetry: Reports the state of each.
    """

    def __init__(self, bounds: UpstreamBounds, telemetry: Telemetry) -> None:
        self._bounds = bounds
        self._telemetry = telemetry
        self._count = 1
        self._known: dict[tuple[str, str], UpstreamState] = {}

    def use(self, upstreams: Sequence[Upstream]) -> None:
        """Remember these upstreams, and forget all others."""
        self._count = len(upstreams)
        wanted = {(upstream.name, upstream.base_url): upstream for upstream in upstreams}
        for name, _ in self._known.keys() - wanted.keys():
            self._telemetry.forget_upstream(name)
        self._known = {
            place: self._known.get(place) or self._new(upstream)
            for place, upstream in wanted.items()
        }
        for place, upstream in wanted.items():
            known = self._known[place]
            known.bulkhead.resize(*self._sizes(upstream))
            self._telemetry.watch_upstream(
                upstream.name,
                known.breaker.state,
                running=partial(getattr, known.bulkhead, "running"),
                waiting=partial(getattr, known.bulkhead, "waiting"),
            )

    def of(self, model: Model) -> UpstreamState:
        """Return what is remembered of the upstream of a model.

        A call that began with an older models file can have an upstream that was forgotten.
        """
        upstream = model.upstream
        place = upstream.name, upstream.base_url
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = self._new(upstream)
        return known

    def _sizes(self, upstream: Upstream) -> tuple[int, int]:
        waiting = self._bounds.waiting if upstream.max_waiting is None else upstream.max_waiting
        return self._bounds.calls_at(upstream, self._count), waiting

    def _new(self, upstream: Upstream) -> UpstreamState:
        return UpstreamState(
            Bulkhead(*self._sizes(upstream)),
            Breaker(
                failures=self._bounds.failures,
                pause=self._bounds.pause,
                changed=partial(self._telemetry.breaker_changed, upstream.name),
            ),
        )
