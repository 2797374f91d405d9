"""The upstreams that the service calls: what it remembers of each.

    Upstreams.use(catalogue's upstreams) -> UpstreamState: its places, its breaker
    Upstreams.of(model)                  -> that of the model's upstream

An upstream whose name and address stay the same in a new models file keeps what is remembered.
"""

from collections.abc import Sequence
from functools import partial

from service.models import Model, Upstream
from service.telemetry import Telemetry
from service.upstream.breaker import Breaker
from service.upstream.bulkhead import Bulkhead
from service.upstream.client_limits import UpstreamBounds
from service.upstream.key_ring import KeyRing


class UpstreamState:
    """What the service remembers of an upstream.

    Args:
        bulkhead: The places at it.
        breaker: Its breaker.
        keys: Its keys.
    """

    __slots__ = ("breaker", "bulkhead", "keys", "refuses_options")

    def __init__(self, bulkhead: Bulkhead, breaker: Breaker, keys: KeyRing) -> None:
        self.bulkhead = bulkhead
        self.breaker = breaker
        self.keys = keys
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
            self._telemetry.upstreams.forget(name)
        self._known = {
            place: self._known.get(place) or self._new(upstream)
            for place, upstream in wanted.items()
        }
        for place, upstream in wanted.items():
            known = self._known[place]
            known.bulkhead.resize(*self._sizes(upstream))
            self._telemetry.upstreams.watch(
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
                changed=partial(self._telemetry.upstreams.breaker_changed, upstream.name),
            ),
            KeyRing(pause=self._bounds.key_pause),
        )
