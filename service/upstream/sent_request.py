"""A request to an upstream, as an HTTP request."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import httpx

from process import request_id as request_ids
from service.call import Call
from service.models import Model
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
        own = {name for name, _ in dialect.headers}
        headers = [*(header for header in headers if header[0] not in own), *dialect.headers]
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
    upstream, dialect, call = sent.model.upstream, sent.model.dialect, sent.call
    url = address(upstream.base_url, "/chat/completions", dialect.query)
    # With a stream as body, httpx adds no headers, which is faster.
    headers = [
        (b"host", url.netloc),
        (b"content-type", JSON.encode()),
        (b"accept", sent.accept.encode()),
        (b"accept-encoding", b"identity"),
        (b"user-agent", _USER_AGENT),
        (_REQUEST_ID, call.record.request_id.encode("ascii")),
    ]
    if call.carried:
        headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in call.carried]
    headers = identified(headers, sent.key, dialect)
    headers.append((b"content-length", b"%d" % len(sent.body)))
    request = httpx.Request(
        "POST",
        url,
        headers=headers,
        stream=httpx.ByteStream(sent.body),
        extensions={**timeouts, "keepalive": dialect.keepalive, "fresh": fresh},
    )
    request.read()
    return request
