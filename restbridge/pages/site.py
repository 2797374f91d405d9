"""Serves the pages.

    path -> FILES -> a file of this package -> a body with an ETag, kept in memory
    If-None-Match with that ETag -> 304

Browsers keep a page, but ask whether it changed before they use it.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.types import Receive, Scope, Send

from restbridge.answers import answer
from restbridge.error_responses import RefusedError, of_reason
from restbridge.headers import single

FOLDER: Final = Path(__file__).parent
"""The folder of the files."""

JSON: Final = "application/json"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFile:
    """A file that is served under one path."""

    name: str
    """The name of the file in `FOLDER`."""
    content_type: str


FILES: Final[Mapping[str, PageFile]] = {
    "/openapi.json": PageFile(name="openapi.json", content_type=JSON),
}
"""The file of each path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """The response for one path."""

    body: bytes
    content_type: bytes
    etag: bytes


@cache
def load(path: str) -> Page | None:
    """Return the page of a path, or None if there is none. Reads the file once."""
    file = FILES.get(path)
    if file is None:
        return None
    body = (FOLDER / file.name).read_bytes()
    return Page(
        body=body,
        content_type=file.content_type.encode("ascii"),
        etag=b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode("ascii"),
    )


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the page of a path.

    Raises:
        RefusedError: There is no page with this path.
    """
    page = await asyncio.to_thread(load, scope["path"])
    if page is None:
        raise RefusedError(of_reason("UNKNOWN_URL"))
    headers = [
        (b"etag", page.etag),
        (b"cache-control", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
    ]
    known = single(scope["headers"], b"if-none-match") == page.etag
    await answer(
        scope,
        receive,
        send,
        status=304 if known else 200,
        body=b"" if known else page.body,
        headers=headers,
        content_type=page.content_type,
    )
