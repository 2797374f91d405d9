"""A request to an upstream, as an HTTP request."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import httpx

from process import request_id as request_ids
from service.call import Call
from service.models import Model
from service.upstream.transport.prepared import Opening, PreparedRequest
from service.upstream_dialect import Dialect

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
_USER_AGENT: Final = b"chatcompletion/0.1"
_REQUEST_ID: Final = request_ids.HEADER.encode()
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request to an upstream."""

    body: bytes
    model: Model
    call: Call
    accept: str = field(kw_only=True)
    key: str = field(kw_only=True, repr=False)
    """The key of the upstream; "" for none."""

    def with_body(self, body: bytes) -> "Sent":
        """Return the same request with another body."""
        return replace(self, body=body)


@lru_cache(maxsize=128)
def address(base_url: str, path: str, query: str) -> httpx.URL:
    """Return the URL of a request.

    Args:
        base_url: The base URL of the upstream.
        path: The path below it, with its first slash.
        query: The query of the dialect, without its question mark; "" for none.
    """
    return httpx.URL(f"{base_url}{path}{'?' if query else ''}{query}")


def identified(headers: list[Header], api_key: str, dialect: Dialect) -> list[Header]:
    """Return headers with an upstream's key and a dialect's headers, which take precedence.

    Args:
        headers: The service's own headers, with lower-case names.
        api_key: The key of the upstream; "" for none.
        dialect: The dialect.
    """
    if api_key:
        key = api_key.encode(errors="surrogateescape")  # the bytes of the environment
        headers = [*headers, (b"authorization", b"Bearer " + key)]
    if dialect.headers:
        headers = [*_without(headers, dialect), *dialect.headers]
    return headers


def http_request(
    sent: Sent, timeouts: Mapping[str, Mapping[str, float | None]], *, fresh: bool
) -> httpx.Request:
    """Return a request as httpx has it.

    Args:
        sent: The request.
        timeouts: The timeouts, as an extension of the request.
        fresh: Whether to use a new connection.
    """
    dialect, call = sent.model.dialect, sent.call
    opening = _opening(sent.model.upstream.base_url, dialect, sent.accept, sent.key)
    own = [(_REQUEST_ID, call.record.request_id.encode("ascii"))]
    if call.carried:
        own += [(name.encode("ascii"), value.encode("ascii")) for name, value in call.carried]
    if dialect.headers:
        own = _without(own, dialect)
    own.append((b"content-length", b"%d" % len(sent.body)))
    extensions = {**timeouts, "keepalive": dialect.keepalive, "fresh": fresh}
    return PreparedRequest(opening, own, sent.body, extensions)


@lru_cache(maxsize=1024)
def _opening(base_url: str, dialect: Dialect, accept: str, key: str) -> Opening:
    """Return what all requests to an upstream have in common."""
    url = address(base_url, "/chat/completions", dialect.query)
    headers = [
        (b"host", url.netloc),
        (b"content-type", JSON.encode()),
        (b"accept", accept.encode()),
        (b"accept-encoding", b"identity"),
        (b"user-agent", _USER_AGENT),
    ]
    return Opening("POST", url, tuple(identified(headers, key, dialect)))


def _without(headers: list[Header], dialect: Dialect) -> list[Header]:
    """Return headers without those of a dialect."""
    own = {name for name, _ in dialect.headers}
    return [header for header in headers if header[0] not in own]
