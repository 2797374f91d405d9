"""Serves the pages.

    path -> a file of this package, or of Swagger UI -> a body with an ETag, kept in memory
    /    -> home.html or JSON, with the address that the request was sent to
    If-None-Match with the ETag -> 304

Browsers keep a page, but ask whether it changed before they use it. The Content-Security-Policy
allows only scripts and styles of this server, in files of their own, and no other connections.
"""

import asyncio
import hashlib
import html
import importlib.util
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Final

from starlette.types import Receive, Scope, Send

from process.command_line import version
from restbridge import wrong_urls
from restbridge.answers import answer
from restbridge.error_responses import RefusedError, of_reason
from restbridge.headers import single
from restbridge.pages import ASSETS

FOLDER: Final = Path(__file__).parent
"""The folder of the files."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The Content-Security-Policy of every page."""

HEADERS: Final = (
    (b"content-security-policy", POLICY.encode("ascii")),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache"),
)
"""The headers of every page."""

TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
"""The content type of each kind of file."""

DOCUMENTS: Final[Mapping[str, str]] = {
    "/playground": "playground.html",
    "/docs": "docs.html",
    "/openapi.json": "openapi.json",
}
"""The file of each path, except for `/`."""

WITHOUT_SWAGGER_UI: Final = "docs_missing.html"
"""The file of `/docs` if Swagger UI is not installed."""

SWAGGER_UI: Final = ("swagger_style.css", "swagger_bundle.js")
"""The files of Swagger UI, as the package names them."""

_SWAGGER_UI_PACKAGE: Final = "offapi"
_ASSET: Final = re.compile(r"[a-z_]+\.(css|js|svg)")
_HOST: Final = re.compile(rb"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A body and its headers."""

    body: bytes
    content_type: bytes
    etag: bytes

    @classmethod
    def of(cls, body: bytes, suffix: str) -> "Page":
        """Return the page of a body with the type of files with this suffix."""
        digest = hashlib.sha256(body).hexdigest()[:32]
        return cls(
            body=body,
            content_type=TYPES[suffix].encode("ascii"),
            etag=f'"{digest}"'.encode("ascii"),
        )


@cache
def swagger_ui() -> Path | None:
    """Return the folder of Swagger UI, or None if it is not installed. Imports none of its code."""
    spec = importlib.util.find_spec(_SWAGGER_UI_PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place)
        if all((folder / name).is_file() for name in SWAGGER_UI):
            return folder
    return None


def place(path: str) -> Path | None:
    """Return the file of a path, or None if there is none."""
    folder = swagger_ui()
    if path == "/docs" and folder is None:
        return FOLDER / WITHOUT_SWAGGER_UI
    if path in DOCUMENTS:
        return FOLDER / DOCUMENTS[path]
    name = path.removeprefix(ASSETS)
    if name in SWAGGER_UI:
        return folder and folder / name
    file = FOLDER / name
    return file if _ASSET.fullmatch(name) and file.is_file() else None


@cache
def load(file: Path) -> Page:
    """Return the page of a file. Reads it once."""
    return Page.of(file.read_bytes(), file.suffix)


def home(scope: Scope) -> Page:
    """Return the page of `/`: HTML if the client accepts it by name, as browsers do, else JSON."""
    headers = scope["headers"]
    host = single(headers, b"host") or b""
    known = host.decode("ascii") if _HOST.fullmatch(host) else "localhost"
    scheme = "https" if single(headers, b"x-forwarded-proto") == b"https" else "http"
    root = f"{scheme}://{known}"
    base, command = f"{root}/v1", curl(root)
    if b"text/html" in b",".join(value for name, value in headers if name == b"accept"):
        values = {"version": version(), "base": base, "curl": command}
        escaped = {name: html.escape(value) for name, value in values.items()}
        text = (FOLDER / "home.html").read_text(encoding="utf-8")
        return Page.of(Template(text).substitute(escaped).encode(), ".html")
    about = {
        "name": "chatcompletion",
        "version": version(),
        "base_url": base,
        "playground": f"{root}/playground",
        "reference": f"{root}/docs",
        "openapi": f"{root}/openapi.json",
        "example": command,
    }
    return Page.of(json.dumps(about, indent=2).encode() + b"\n", ".json")


def curl(root: str) -> str:
    """Return a curl command that streams an answer from the server with this address."""
    return (
        f"curl -N {shlex.quote(f'{root}/v1/chat/completions')} \\\n"
        '  -H "Authorization: Bearer $CHAT_KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        """  -d '{"model": "default", "stream": true,\n"""
        """       "messages": [{"role": "user", "content": "Hello"}]}'"""
    )


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the page of a path.

    Raises:
        RefusedError: There is no page with this path.
    """
    if scope["path"] == "/":
        page = await asyncio.to_thread(home, scope)
        varies = [(b"vary", b"accept, host, x-forwarded-proto")]
    else:
        file = await asyncio.to_thread(place, scope["path"])
        if file is None:
            message = wrong_urls.message(scope["method"], scope["path"])
            raise RefusedError(of_reason("UNKNOWN_URL", message=message))
        page = await asyncio.to_thread(load, file)
        varies = []
    known = single(scope["headers"], b"if-none-match") == page.etag
    await answer(
        scope,
        receive,
        send,
        status=304 if known else 200,
        body=b"" if known else page.body,
        headers=[(b"etag", page.etag), *varies, *HEADERS],
        content_type=page.content_type,
    )
