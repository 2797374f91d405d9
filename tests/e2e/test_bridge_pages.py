"""The pages and the OpenAPI document, over sockets."""

import json
import subprocess
import sys

import pytest

from restbridge.pages import PATHS
from tests.support.bridge_pair import bridged


async def test_every_page_is_served() -> None:
    async with bridged() as pair:
        for path in PATHS:
            response = await pair.http.get(path)
            assert response.status_code == 200
            assert response.headers["x-request-id"]
            again = await pair.http.get(path, headers={"if-none-match": response.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            head = await pair.http.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == response.headers["content-length"]
            assert (await pair.http.post(path, json={})).status_code == 405


async def test_one_setting_switches_all_pages_off() -> None:
    async with bridged(CHAT_BRIDGE_PAGES="off") as pair:
        for path in PATHS:
            response = await pair.http.get(path)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "unknown_url"
        await pair.works()


async def test_a_body_that_nobody_asked_for_does_no_harm() -> None:
    async with bridged() as pair:
        response = await pair.http.request("GET", "/openapi.json", content=b"x" * 1000)
        assert json.loads(response.content)["openapi"] == "3.1.0"
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize("module", ["restbridge.pages.site"])
def test_a_bridge_starts_without_the_code_of_the_pages(module: str) -> None:
    program = f"import sys, restbridge.server; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0  # noqa: S603
