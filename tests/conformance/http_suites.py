"""Outside suites of HTTP/1.1 against the bridge.

gunicorn's requests    the requests of gunicorn's own tests, valid and invalid, as raw bytes
httplint               each kind of response, checked by REDbot's linter
schemathesis           requests generated from `/openapi.json`, and the responses to them
"""

import asyncio
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
from httplint import HttpResponseLinter
from httplint.note import levels

from tests.conformance.outcomes import Known, Outcome, judge
from tests.conformance.programs import TOOLS, run
from tests.conformance.target import MODEL, Target

_CASE: Final = re.compile(r"tests/requests/(valid|invalid)/(\w+)\.(http|py)$")
_ESCAPES: Final = re.compile(rb"\\(?:r\\n|x([0-9A-Fa-f]{2})|[0nt])")
_PLAIN: Final = {b"\\r\\n": b"\r\n", b"\\0": b"\0", b"\\n": b"\n", b"\\t": b"\t"}
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")
_LONGEST: Final = 1.0
"""Seconds to wait for a response. A request that is incomplete waits for the rest of it."""


async def requests(target: Target, known: Sequence[Known]) -> Outcome:
    """Send the requests of gunicorn's tests.

    A valid one must get a response other than 400. An invalid one must get 4xx or 5xx, or none, and
    then the end of the connection.
    """
    passed, failed = [], {}
    for name, is_valid, data in _corpus():
        status, closed = await _answer(target.rest, data)
        if is_valid:
            is_right = status is not None and status != 400
        else:
            is_right = status is None or (status >= 400 and closed)
        if is_right:
            passed.append(name)
        else:
            failed[name] = f"status {status}, {'closed' if closed else 'open'}"
    return judge("gunicorn's requests", passed, failed, known)


def _corpus() -> Iterator[tuple[str, bool, bytes]]:
    """Yield the name, validity and bytes of each request that needs no setting of gunicorn."""
    (archive,) = TOOLS.glob("gunicorn-*.tar.gz")
    files: dict[tuple[str, str], bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if found := _CASE.search(member.name):
                opened = tar.extractfile(member)
                assert opened is not None
                files[f"{found[1]}/{found[2]}", found[3]] = opened.read()
    for (name, kind), text in sorted(files.items()):
        if kind == "http" and b"cfg.set" not in files.get((name, "py"), b""):
            is_valid = name.startswith("valid")
            data = _unescaped(text)
            yield name, is_valid, _with_host(data) if is_valid else data


def _unescaped(text: bytes) -> bytes:
    """Return the bytes that a file of the corpus describes."""

    def plain(found: re.Match[bytes]) -> bytes:
        return bytes.fromhex(found[1].decode()) if found[1] else _PLAIN[found[0]]

    return _ESCAPES.sub(plain, text.replace(b"\n", b""))


def _with_host(data: bytes) -> bytes:
    """Add the header that gunicorn does not require, and RFC 9112, section 3.2, does."""
    line, _, rest = data.partition(b"\r\n")
    if b"\nhost:" in data.lower() or not line.endswith(b"HTTP/1.1"):
        return data
    return line + b"\r\nHost: localhost\r\n" + rest


async def _answer(address: str, data: bytes) -> tuple[int | None, bool]:
    """Send bytes, and return the first status and whether the connection was closed."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    received, closed = b"", False
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_LONGEST):
            writer.write(data)
            while piece := await reader.read(65536):
                received += piece
            closed = True
    writer.close()
    found = _STATUS.match(received)
    return (int(found[1]) if found else None), closed


# ------------------------------------------------------------------------------------- schemathesis

_CHECKS: Final = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance", "ignored_auth"),
    "unsupported_method",
)
_GENERATED: Final = re.compile(
    r"(\d+) generated(?:, (\d+) found)?.*?(?:, (\d+) skipped)?$", re.MULTILINE
)
_FAILURE: Final = re.compile(r"^  ❌ (ST\d+ .+): (\d+)$", re.MULTILINE)


async def openapi(target: Target, known: Sequence[Known]) -> Outcome:
    """Run schemathesis with the document that the bridge serves."""
    ended = await run(
        *(Path(sys.executable).with_name("schemathesis"), "--no-color", "run"),
        *(f"http://{target.rest}/openapi.json", "-H", f"Authorization: Bearer {target.key}"),
        *("--checks", ",".join(_CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("-n", "25", "--seed", "1", "--generation-database", "none"),
        longest=120,
        directory=TOOLS,  # it writes a cache
    )
    generated = _GENERATED.search(ended.output)
    if generated is None:
        return judge("schemathesis", (), {"the suite": ended.output[-2000:]}, known)
    failed = {name: f"{count} of them" for name, count in _FAILURE.findall(ended.output)}
    skipped = sum(int(count or 0) for count in generated.groups()[1:])
    passed = [f"case {number}" for number in range(int(generated[1]) - skipped)]
    return judge("schemathesis", passed, failed, known)


# ----------------------------------------------------------------------------------------- httplint

_CHAT: Final = "/v1/chat/completions"


async def responses(target: Target, known: Sequence[Known]) -> Outcome:
    """Check each kind of response with httplint: a case is a response without a bad note."""
    passed, failed = [], {}
    url = f"http://{target.rest}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        for name, send in _exchanges(target).items():
            request = send(http)
            bad = _notes(request, await http.send(request))
            if bad:
                failed[name] = ", ".join(bad)
            else:
                passed.append(name)
    return judge("httplint", passed, failed, known)


def _exchanges(target: Target) -> dict[str, Callable[[httpx.AsyncClient], httpx.Request]]:
    key = {"authorization": f"Bearer {target.key}"}
    hello: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}

    def post(**changes: Any) -> Callable[[httpx.AsyncClient], httpx.Request]:
        usual = {"headers": key, "json": hello}
        return lambda http: http.build_request("POST", _CHAT, **{**usual, **changes})

    def get(path: str, **changes: Any) -> Callable[[httpx.AsyncClient], httpx.Request]:
        usual = {"headers": key}
        return lambda http: http.build_request("GET", path, **{**usual, **changes})

    return {
        "completion": post(),
        "stream": post(json={**hello, "stream": True}),
        "invalid JSON": post(
            json=None, content=b"{", headers={**key, "content-type": "application/json"}
        ),
        "invalid parameter": post(json={**hello, "temperature": 9}),
        "unknown model": post(json={**hello, "model": "no"}),
        "no key": post(headers={}),
        "wrong content type": post(
            json=None, content=b"{}", headers={**key, "content-type": "text/plain"}
        ),
        "models": get("/v1/models"),
        "model": get(f"/v1/models/{MODEL}"),
        "credits": get("/v1/credits"),
        "liveness": get("/healthz"),
        "readiness": get("/readyz"),
        "unknown URL": get("/v1/no"),
        "wrong method": get(_CHAT),
        "HEAD": lambda http: http.build_request("HEAD", "/v1/models", headers=key),
        "OPTIONS": lambda http: http.build_request("OPTIONS", _CHAT),
    }


def _notes(request: httpx.Request, response: httpx.Response) -> list[str]:
    linter = HttpResponseLinter(no_content=request.method == "HEAD")
    linter.base_uri = str(request.url)
    linter.process_response_topline(
        b"1.1", str(response.status_code).encode(), response.reason_phrase.encode()
    )
    linter.process_headers(list(response.headers.raw))
    linter.feed_content(response.content)
    linter.finish_content(True)
    return [type(note).__name__ for note in linter.notes if note.level is levels.BAD]
