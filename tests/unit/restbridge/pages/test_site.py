import importlib.util
import json
import re
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

import pytest

from restbridge.error_responses import RefusedError
from restbridge.pages import PATHS, pages, site
from tests.unit.restbridge.exchanges import Wire, scope

OURS: Final = sorted(path for path in site.FOLDER.iterdir() if path.suffix in site.TYPES)
ASSETS: Final = [f"/pages/{file.name}" for file in OURS if file.suffix in {".css", ".js", ".svg"}]
HTML: Final = (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8")
ELSEWHERE: Final = re.compile(r"https?:|//[a-z]|@import|\burl\(")
INLINE: Final = re.compile(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Look for Swagger UI anew."""
    site.swagger_ui.cache_clear()
    yield
    site.swagger_ui.cache_clear()


async def asked(path: str, *headers: tuple[bytes, bytes]) -> Wire:
    wire = Wire()
    await pages(scope(*headers, method="GET", path=path), wire.receive, wire.send)
    return wire


@pytest.mark.parametrize("path", [*PATHS, *ASSETS, "/pages/swagger_bundle.js"])
async def test_a_page_has_a_type_a_tag_and_a_policy(path: str) -> None:
    wire = await asked(path, HTML)

    assert wire.status == 200
    suffix = Path(path).suffix or ".html"
    assert wire.headers[b"content-type"] == site.TYPES[suffix].encode()
    assert int(wire.headers[b"content-length"]) == len(wire.body) > 0
    assert wire.headers[b"etag"].startswith(b'"')
    assert dict(site.HEADERS).items() <= wire.headers.items()


async def test_a_page_that_the_browser_has_is_not_sent_again() -> None:
    for path in ("/openapi.json", "/"):
        tag = (await asked(path)).headers[b"etag"]

        for sent, status in ((tag, 304), (b'"other"', 200)):
            wire = await asked(path, (b"if-none-match", sent))
            assert wire.status == status
            assert wire.headers[b"etag"] == tag
            assert bool(wire.body) == (status == 200)


def test_the_policy_allows_no_inline_code_and_no_other_server() -> None:
    assert site.POLICY.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in site.POLICY
    sources = {word for part in site.POLICY.split("; ") for word in part.split()[1:]}
    assert sources == {"'none'", "'self'", "data:"}


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_a_file_names_no_other_server_and_has_no_inline_code(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    text = re.sub(r"(?m)^ *// .*$|//[^\"\n]*$", "", text) if file.suffix == ".js" else text
    if file.suffix != ".json":
        assert ELSEWHERE.findall(text) == []
    if file.suffix == ".html":
        assert INLINE.findall(text) == []


@pytest.mark.parametrize(
    ("host", "proto", "root"),
    [
        (b"chat.example", None, "http://chat.example"),
        (b"chat.example:8443", b"https", "https://chat.example:8443"),
        (b"[::1]:8080", b"http", "http://[::1]:8080"),
        (b'a"><script>', None, "http://localhost"),
        (b"a/b", b"gopher", "http://localhost"),
        (None, None, "http://localhost"),
    ],
)
async def test_the_home_page_names_the_address_of_the_request(
    host: bytes | None, proto: bytes | None, root: str
) -> None:
    headers = [(b"host", host), (b"x-forwarded-proto", proto)]
    sent = [(name, value) for name, value in headers if value is not None]

    about = json.loads((await asked("/", *sent)).body)
    assert (about["name"], about["base_url"]) == ("chatcompletion", f"{root}/v1")
    assert about["version"]
    assert about["playground"] == f"{root}/playground"
    page = await asked("/", *sent, HTML)
    assert f'<code id="base">{root}/v1</code>'.encode() in page.body
    assert b"$" not in page.body.replace(b"$CHAT_KEY", b"")
    assert b"accept" in page.headers[b"vary"]


@pytest.mark.parametrize("accept", [b"*/*", b"application/json"])
async def test_programs_get_json(accept: bytes) -> None:
    assert json.loads((await asked("/", (b"accept", accept))).body)["example"].startswith("curl ")


@pytest.mark.usefixtures("fresh")
async def test_without_swagger_ui_the_reference_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = ModuleSpec("offapi", None, is_package=True)
    empty.submodule_search_locations = [str(tmp_path)]
    for spec in (None, empty):
        site.swagger_ui.cache_clear()
        monkeypatch.setattr(importlib.util, "find_spec", lambda _, spec=spec: spec)
        assert b"chatcompletion[docs]" in (await asked("/docs")).body
        with pytest.raises(RefusedError, match="UNKNOWN_URL"):
            await asked("/pages/swagger_style.css")


@pytest.mark.parametrize(
    "path",
    ["/pages/", "/pages/../config.py", "/pages/site.py", "/pages/home.html", "/pages/none.js",
     "/pages/openapi.json", "/nowhere"],
)  # fmt: skip
async def test_there_is_no_other_page(path: str) -> None:
    with pytest.raises(RefusedError, match="UNKNOWN_URL"):
        await asked(path)


def test_every_document_has_its_file() -> None:
    assert {"/", *site.DOCUMENTS} == {*PATHS}
    for name in (*site.DOCUMENTS.values(), site.WITHOUT_SWAGGER_UI):
        assert (site.FOLDER / name).is_file()
