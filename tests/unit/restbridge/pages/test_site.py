import json

import pytest

from restbridge.error_responses import RefusedError
from restbridge.pages import PATHS, pages
from restbridge.pages.site import FILES
from tests.unit.restbridge.exchanges import Wire, scope


async def asked(path: str, *headers: tuple[bytes, bytes]) -> Wire:
    wire = Wire()
    await pages(scope(*headers, method="GET", path=path), wire.receive, wire.send)
    return wire


@pytest.mark.parametrize("path", FILES)
async def test_a_page_is_a_file_with_a_type_and_a_tag(path: str) -> None:
    wire = await asked(path)

    assert wire.status == 200
    assert wire.headers[b"content-type"] == FILES[path].content_type.encode()
    assert wire.headers[b"x-content-type-options"] == b"nosniff"
    assert wire.headers[b"cache-control"] == b"no-cache"
    assert int(wire.headers[b"content-length"]) == len(wire.body) > 0


async def test_a_page_that_the_browser_has_is_not_sent_again() -> None:
    tag = (await asked("/openapi.json")).headers[b"etag"]

    for sent, status in ((tag, 304), (b'"other"', 200)):
        wire = await asked("/openapi.json", (b"if-none-match", sent))
        assert wire.status == status
        assert wire.headers[b"etag"] == tag
        assert bool(wire.body) == (status == 200)


async def test_the_openapi_document_is_json() -> None:
    assert json.loads((await asked("/openapi.json")).body)["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/pages/../config.py", "/pages/none", "/nowhere"])
async def test_there_is_no_other_page(path: str) -> None:
    with pytest.raises(RefusedError, match="UNKNOWN_URL"):
        await asked(path)


def test_every_path_has_a_file() -> None:
    assert {*PATHS} <= {*FILES}
