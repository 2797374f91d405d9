"""What the end of a call says about the upstream: the one rule of what counts as its failure.

    served     the upstream answered
    refused    it is well, and refused the call: the caller's mistake, a rate limit, our key, a
               model that it does not have
    failed     it could not be reached, was too busy, or did not respond in time
    broke      it answered with a failure or with nonsense, or ended its response too early; the
               request itself can be the cause
    unknown    nothing: the caller left, the service itself failed, or an idle connection was lost,
               which says only that its time was over

Pure: takes the exception that ended the call.
"""

import asyncio
from typing import Final, Literal

from service import errors

Verdict = Literal["served", "refused", "failed", "broke", "unknown"]

_FAILED: Final = (errors.UpstreamUnavailable, errors.UpstreamTimeout)
_BROKE: Final = (errors.UpstreamError, errors.UpstreamInvalidResponse, errors.UpstreamTruncated)
_REFUSED: Final = (
    errors.InvalidRequest,
    errors.RequestTooLarge,
    errors.UpstreamRateLimited,
    errors.UpstreamAccount,
)


def verdict_of(error: BaseException, *, unanswered: float, patience: float) -> Verdict:
    """Return the verdict of a call that failed.

    A caller who disconnects does not count. A deadline counts as a failure if the upstream had not
    responded for as long as the first byte of a stream can take.

    Args:
        error: The exception that ended the call.
        unanswered: Seconds from the request to a deadline that passed without a response; 0 if
            there was a response, or the deadline did not pass.
        patience: Maximum seconds before the first byte of a stream.
    """
    if isinstance(error, asyncio.CancelledError):
        return "failed" if unanswered >= patience else "unknown"
    if isinstance(error, errors.Failure) and error.lost_idle:
        return "unknown"
    if isinstance(error, (*_FAILED, *_BROKE)):
        if error.report is not None and error.report.cause == "model":
            return "refused"
        return "failed" if isinstance(error, _FAILED) else "broke"
    if isinstance(error, _REFUSED) and error.report is not None:
        return "refused"
    return "unknown"
