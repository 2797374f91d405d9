import asyncio

import pytest

from service import errors
from service.upstream.verdicts import Verdict, verdict_of


def lost() -> errors.Failure:
    """Return the failure of a request that went out on an idle connection that had ended."""
    failure = errors.UpstreamError(dispatched=True)
    failure.lost_idle = True
    return failure


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (errors.UpstreamUnavailable(), "failed"),
        (errors.UpstreamUnavailable().because("busy"), "failed"),
        (errors.UpstreamError(dispatched=True), "broke"),
        (errors.UpstreamTimeout(dispatched=True), "failed"),
        (errors.UpstreamInvalidResponse(dispatched=True), "broke"),
        (errors.UpstreamTruncated(dispatched=True), "broke"),
        (errors.UpstreamError(dispatched=True).because("model"), "refused"),
        (errors.InvalidRequest(dispatched=True).because("request"), "refused"),
        (errors.RequestTooLarge(dispatched=True).because("request"), "refused"),
        (errors.UpstreamRateLimited().because("rate_limit"), "refused"),
        (errors.UpstreamAccount(dispatched=True).because("account"), "refused"),
        (lost(), "unknown"),
        # The service itself refused or failed.
        (errors.InvalidRequest(), "unknown"),
        (errors.Overloaded().because("pool"), "unknown"),
        (errors.Overloaded().because("descriptors"), "unknown"),
        (errors.Draining(), "unknown"),
        (RuntimeError(), "unknown"),
        (GeneratorExit(), "unknown"),
        (asyncio.CancelledError(), "unknown"),
    ],
)
def test_what_counts(error: BaseException, verdict: Verdict) -> None:
    assert verdict_of(error, unanswered=0.0, patience=300.0) == verdict


@pytest.mark.parametrize(
    ("unanswered", "verdict"), [(0.0, "unknown"), (299.9, "unknown"), (300.0, "failed")]
)
def test_a_deadline_counts_after_a_long_silence(unanswered: float, verdict: Verdict) -> None:
    found = verdict_of(asyncio.CancelledError(), unanswered=unanswered, patience=300.0)
    assert found == verdict
