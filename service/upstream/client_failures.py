"""The failure and the cause for each exception of the HTTP client."""

import errno
import socket
import ssl
from typing import Final

import httpx

from service import errors
from service.upstream.transport.connection import BodyCut, IdleConnectionLost, ServerDisconnected
from service.upstream.transport.parser import HeadTooLarge
from service.upstream_report import Cause

FAILURES: Final[tuple[tuple[type[Exception], type[errors.Failure], bool], ...]] = (
    # The exception, its failure, and whether the upstream may have started to generate.
    (ServerDisconnected, errors.UpstreamError, True),
    (httpx.ConnectError, errors.UpstreamUnavailable, False),
    (httpx.ConnectTimeout, errors.UpstreamUnavailable, False),
    (httpx.PoolTimeout, errors.Overloaded, False),  # the service itself is at its limit
    (httpx.TimeoutException, errors.UpstreamTimeout, True),
    (httpx.RemoteProtocolError, errors.UpstreamInvalidResponse, True),
    (httpx.TransportError, errors.UpstreamError, True),
)
"""The failures of the HTTP client. The first matching row applies."""

CAUSES: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Cause], ...]] = (
    ((socket.gaierror, UnicodeError), "dns"),
    (ssl.SSLError, "tls"),
    (httpx.PoolTimeout, "pool"),
    ((httpx.TimeoutException, TimeoutError), "timeout"),
    (ServerDisconnected, "closed"),
    ((httpx.ReadError, httpx.WriteError, ConnectionResetError), "reset"),
    (BodyCut, "truncated"),
    (HeadTooLarge, "too_large"),
    (httpx.RemoteProtocolError, "protocol"),
)
"""The cause of each exception. The first matching row of the exception, then those of its own
cause, apply."""

CLIENT_ERRORS: Final = (httpx.HTTPError, OSError)
"""The exceptions of the HTTP client."""

_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})


def failure_of(error: Exception) -> errors.Failure:
    """Return the failure for an exception of the HTTP client."""
    if cause_of(error, "other") == "descriptors":
        return errors.Overloaded().because("descriptors")
    for kind, ours, dispatched in FAILURES:
        if isinstance(error, kind):
            failure = ours(dispatched=dispatched).because(cause_of(error, "other"))
            failure.lost_idle = isinstance(error, IdleConnectionLost)
            return failure
    return errors.UpstreamError(dispatched=True).because(cause_of(error, "other"))


def cause_of(error: BaseException, otherwise: Cause) -> Cause:
    """Return the cause of an exception of the HTTP client."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _NO_DESCRIPTOR:
            return "descriptors"
        for kind, cause in CAUSES:
            if isinstance(link, kind):
                return cause
        link = link.__cause__
    return "refused" if isinstance(error, httpx.ConnectError) else otherwise
