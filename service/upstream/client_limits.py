"""The limits of the client of the upstreams: its timeouts, and the bounds on its calls."""

from dataclasses import dataclass, field

from service.models import Model, Upstream


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
    key_pause: float = 60.0
    """Seconds for which a key that was refused is set aside."""

    def calls_at(self, upstream: Upstream, count: int) -> int:
        """Return the maximum calls at an upstream.

        Args:
            upstream: The upstream.
            count: The number of upstreams.
        """
        share = self.connections if count == 1 else max(self.connections // 2, 1)
        return upstream.max_calls or self.calls or share


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamLimits:
    """The timeouts, in seconds, and the maximum size of a response."""

    connect: float
    first_byte: float
    idle: float
    longest_retry_after: float
    max_response_bytes: int
    busy: float = 0.5
    """Wait before the retry of a request that a busy upstream refused without a Retry-After."""
    bounds: UpstreamBounds = field(default_factory=UpstreamBounds)

    def first_byte_of(self, model: Model) -> float:
        """Return the maximum seconds before the first byte of a stream of a model."""
        own = model.dialect.first_byte_timeout
        return self.first_byte if own is None else own

    def idle_of(self, model: Model) -> float:
        """Return the maximum seconds of silence within a response of a model."""
        own = model.dialect.idle_timeout
        return self.idle if own is None else own
