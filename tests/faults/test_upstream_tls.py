"""Certificates of upstreams are always verified, by the default authorities or by the setting's.

certificate of the upstream     CHAT_UPSTREAM_CA_FILE   result
of an unknown authority         none                    502 upstream_unavailable
one of the authority's          that authority          200
one for another name            that authority          502
one that expired                that authority          502
one of another authority's      that authority          502
of the environment's authority  none                    502
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trustme

from tests.support.asking import HELLO
from tests.support.grpc_client import KEY
from tests.support.running_bridge import PATH, bridge
from tests.support.running_service import models, service, simulator
from tests.support.waiting import PATIENCE

HERE: Final = "localhost"
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
OURS: Final = trustme.CA()
OTHERS: Final = trustme.CA()

CERTIFICATES: Final[dict[str, trustme.LeafCert]] = {
    "good": OURS.issue_cert(HERE),
    "for another name": OURS.issue_cert("upstream.example"),
    "expired": OURS.issue_cert(HERE, not_before=LONG_AGO, not_after=LONG_AGO.replace(year=2021)),
    "of another authority": OTHERS.issue_cert(HERE),
}


@pytest.fixture
def authority(tmp_path: Path) -> str:
    """The file of our authority."""
    file = tmp_path / "ca.pem"
    OURS.cert_pem.write_to_path(str(file))
    return str(file)


@asynccontextmanager
async def upstream(name: str) -> AsyncIterator[str]:
    """Run an upstream with this TLS certificate, and yield its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATES[name].configure_cert(context)
    async with simulator() as plain:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection(plain.host, plain.port)
            await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        async with server:
            yield f"https://{HERE}:{server.sockets[0].getsockname()[1]}"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the other direction handles the close
    finally:
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def ask(base_url: str, **settings: Any) -> list[tuple[int, str]]:
    """Make unary and streamed calls over gRPC and REST, and return the statuses and codes."""
    async with (
        # So many failures in a row would open the breaker.
        service(models(["default"], base_url), breaker_failures=0, **settings) as running,
        bridge(running.address) as door,
        httpx.AsyncClient(
            base_url=f"http://{door.address}", trust_env=False, timeout=PATIENCE
        ) as http,
    ):
        told = []
        for streamed in (False, True):
            body = {"model": "default", "messages": HELLO, "stream": streamed}
            response = await http.post(PATH, json=body, headers={"authorization": f"Bearer {KEY}"})
            if response.status_code == 200:
                assert (await running.client.collect("default")).failure is None
                assert (await running.client.create("default")).choices
                told.append((200, ""))
            else:
                told.append((response.status_code, response.json()["error"]["code"]))
                refused = await running.client.refusal("default", streamed=streamed)
                assert (refused.http_status, refused.error.code_text) == told[-1]
        return told


async def test_a_certificate_of_the_settings_authority_is_trusted(authority: str) -> None:
    async with upstream("good") as base_url:
        assert await ask(base_url, upstream_ca_file=authority) == [(200, "")] * 2


async def test_a_certificate_that_nobody_knows_is_not_trusted() -> None:
    async with upstream("good") as base_url:
        assert await ask(base_url) == [(502, "upstream_unavailable")] * 2


async def test_certificates_of_the_environment_are_not_trusted(
    authority: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, authority)
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(authority).parent))
    async with upstream("good") as base_url:
        assert await ask(base_url) == [(502, "upstream_unavailable")] * 2


@pytest.mark.parametrize("name", [name for name in CERTIFICATES if name != "good"])
async def test_a_certificate_that_is_not_right_is_not_trusted(name: str, authority: str) -> None:
    async with upstream(name) as base_url:
        told = await ask(base_url, upstream_ca_file=authority)
        assert told == [(502, "upstream_unavailable")] * 2
