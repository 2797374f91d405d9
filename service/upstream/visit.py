"""A call at an upstream, from its place there to the end of the response."""

import httpx

from service.models import Model
from service.upstream.upstreams import UpstreamState
from service.upstream.verdicts import Verdict


class Visit:
    """A call at an upstream, from its place there to the end of the response."""

    __slots__ = (
        "body",
        "has_others",
        "key",
        "known",
        "model",
        "permit",
        "responded",
        "started",
    )

    def __init__(self, model: Model, known: UpstreamState, now: float) -> None:
        self.model = model
        self.known = known
        """What is remembered of the upstream."""
        self.permit = known.breaker.enter()
        upstream = model.upstream
        self.key = (
            known.keys.choose(upstream.keys, now) if upstream.other_keys else upstream.api_key
        )
        """The key of the upstream; "" for none."""
        self.started = now
        self.has_others = False
        """Whether the model has other upstreams."""
        self.responded = False
        """Whether the head of a response arrived."""
        self.body: httpx.AsyncByteStream
        """The body of the successful response. A reference to the response would keep its head."""

    def is_probe(self) -> bool:
        """Return whether the call is the probe of a breaker."""
        return self.known.breaker.is_probe(self.permit)

    def answered(self, now: float) -> None:
        """Close the breaker of which this is the probe, because the response has begun."""
        self.known.breaker.end(self.permit, "served", now)

    def leave(self, verdict: Verdict, now: float, account: str = "") -> None:
        """Give back the place, and let the breaker count the call.

        Args:
            verdict: What the end of the call says about the upstream.
            now: The time of the event loop, in seconds.
            account: The account of the caller.
        """
        self.known.breaker.end(self.permit, verdict, now, account)
        self.known.bulkhead.leave()
