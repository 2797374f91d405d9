"""TLS of every listener and of bridge -> service, seen by OpenSSL, curl, grpcurl, gRPC and OpenAI.

gRPC with a required client certificate   with it: served; without, another authority's, an expired
                                          one, plaintext: refused
bridge                                    https; a failed handshake has a log line with its cause
bridge -> service                         with certificates; a wrong authority or host: 503 and why
new files                                 used after SIGHUP; unusable ones leave the old ones
settings                                  all that is wrong in one list, for start and check
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest
import trustme
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from chatcompletion.v1 import account_service_pb2 as pb
from chatcompletion.v1.account_service_pb2_grpc import AccountServiceStub
from chatcompletion.v1.model_service_pb2 import ListModelsRequest
from chatcompletion.v1.model_service_pb2_grpc import ModelServiceStub
from tests.support.accounts_admin import ADMIN, TOKEN
from tests.support.certificates import Files, written, written_authority
from tests.support.grpc_client import KEY
from tests.support.processes import Process, environment, process
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE, until

TOOLS: Final = ROOT / ".conformance"
"""The folder of the programs that `make conformance` installs."""

OURS: Final = trustme.CA()
OTHERS: Final = trustme.CA()
BEARER: Final = (("authorization", f"Bearer {KEY}"),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The files of a test."""

    folder: Path
    server: Files
    client: Files
    stranger: Files
    ca: str
    other_ca: str

    def service(self, **changes: str) -> dict[str, str]:
        """Return the environment of a service that requires client certificates."""
        usual = {
            "CHAT_TLS_CERT_FILE": self.server.certificate,
            "CHAT_TLS_KEY_FILE": self.server.key,
            "CHAT_TLS_CLIENT_CA_FILE": self.ca,
        }
        return environment(**{**usual, **changes})

    def bridge(self, target: str, **changes: str) -> dict[str, str]:
        """Return the environment of a bridge with TLS on both sides."""
        return {
            # One address, so that the last error of gRPC is that of the handshake.
            "CHAT_SERVICE_TARGET": target,
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_BRIDGE_DRAIN_DELAY": "0",
            "CHAT_BRIDGE_TLS_CERT_FILE": self.server.certificate,
            "CHAT_BRIDGE_TLS_KEY_FILE": self.server.key,
            "CHAT_SERVICE_TLS_CA_FILE": self.ca,
            "CHAT_SERVICE_TLS_CERT_FILE": self.client.certificate,
            "CHAT_SERVICE_TLS_KEY_FILE": self.client.key,
            **changes,
        }

    def credentials(self, *, client: Files | None, ca: str = "") -> grpc.ChannelCredentials:
        """Return the credentials of a gRPC client."""
        key, chain = (
            (Path(client.key).read_bytes(), Path(client.certificate).read_bytes())
            if client
            else (None, None)
        )
        return grpc.ssl_channel_credentials(Path(ca or self.ca).read_bytes(), key, chain)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(
        folder=tmp_path,
        server=written(tmp_path, OURS, "server", "localhost", "127.0.0.1"),
        client=written(tmp_path, OURS, "client", "spiffe://example/ns/a/sa/b"),
        stranger=written(tmp_path, OTHERS, "stranger", "localhost"),
        ca=written_authority(tmp_path, OURS, "ca"),
        other_ca=written_authority(tmp_path, OTHERS, "other-ca"),
    )


async def _models(target: str, credentials: grpc.ChannelCredentials | None) -> list[str]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    channel = (
        grpc.aio.secure_channel(target, credentials, options=options)
        if credentials
        else grpc.aio.insecure_channel(target, options=options)
    )
    async with channel:
        listed = await ModelServiceStub(channel).ListModels(
            ListModelsRequest(), metadata=BEARER, timeout=PATIENCE
        )
    return [model.id for model in listed.data]


async def _run(*command: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await child.communicate()
    return child.returncode or 0, output.decode(errors="replace")


async def _failed(running: Process, why: str) -> None:
    """Wait for the log line of a failed handshake."""
    await until(
        lambda: any(why in line["why"] for line in running.events("tls handshake failed")),
        f"no handshake failed with {why!r}",
    )


@asynccontextmanager
async def _both(place: Place, **changes: str) -> AsyncIterator[tuple[Process, str]]:
    async with process("service", place.service()) as service:
        target = await service.address()
        async with process("restbridge", place.bridge(target, **changes)) as bridge:
            yield bridge, (await bridge.address()).replace("127.0.0.1", "localhost")


async def test_grpc_requires_the_certificate_of_a_client(place: Place) -> None:
    admin = {
        "CHAT_ADMIN_TOKEN": TOKEN,
        "CHAT_ADMIN_LISTEN": f"unix:{place.folder}/admin",
        "CHAT_ADMIN_TLS_CERT_FILE": place.server.certificate,
        "CHAT_ADMIN_TLS_KEY_FILE": place.server.key,
        "CHAT_ADMIN_TLS_CLIENT_CA_FILE": place.ca,
    }
    async with process("service", place.service(**admin)) as running:
        target = await running.address()
        assert await _models(target, place.credentials(client=place.client)) == ["default"]
        refused = (
            *(place.credentials(client=None), place.credentials(client=place.stranger)),
            place.credentials(client=written(place.folder, OURS, "old", "localhost", expired=True)),
            *(place.credentials(client=place.client, ca=place.other_ca), None),
        )
        for credentials in refused:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _models(target, credentials)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        # AccountService, through a UNIX domain socket, whose name is localhost.
        async with grpc.aio.secure_channel(
            admin["CHAT_ADMIN_LISTEN"],
            place.credentials(client=place.client),
            options=(("grpc.ssl_target_name_override", "localhost"),),
        ) as channel:
            await AccountServiceStub(channel).ListAccounts(
                pb.ListAccountsRequest(), metadata=ADMIN, timeout=PATIENCE
            )
        verified = ("-CAfile", place.ca, "-verify_return_error", "-alpn", "h2", "-connect", target)
        shown = ("-cert", place.client.certificate, "-key", place.client.key)
        _, output = await _run("openssl", "s_client", *verified, *shown)
        assert "Verify return code: 0 (ok)" in output
        assert "ALPN protocol: h2" in output


@pytest.mark.parametrize("program", ["service", "workers", "standalone"])
async def test_each_failed_handshake_of_grpc_has_a_log_line(place: Place, program: str) -> None:
    old = written(place.folder, OURS, "old", "localhost", expired=True)
    causes = {
        "the client has no certificate": place.credentials(client=None),
        "is not accepted: unable to get local issuer": place.credentials(client=place.stranger),
        "is not accepted: certificate has expired": place.credentials(client=old),
        "the client sent plaintext": None,
    }
    async with _with_grpc_tls(place, program) as (running, target):
        for cause, credentials in causes.items():
            with pytest.raises(grpc.aio.AioRpcError):
                await _models(target, credentials)
            await _failed(running, cause)
        assert await _models(target, place.credentials(client=place.client)) == ["default"]
        failed = running.events("tls handshake failed")
        assert len(failed) == len(causes)
        # The core's lines are not passed on.
        assert not any("ssl_transport_security" in line for line in running.lines)


@asynccontextmanager
async def _with_grpc_tls(place: Place, program: str) -> AsyncIterator[tuple[Process, str]]:
    if program != "standalone":
        workers = ("--workers", "2") if program == "workers" else ()
        async with process("service", place.service(), *workers) as running:
            yield running, await running.address()
        return
    bridge = {"CHAT_BRIDGE_LISTEN": "127.0.0.1:0", "CHAT_BRIDGE_METRICS_LISTEN": "none"}
    async with process(
        "restbridge", place.service(**bridge, CHAT_BRIDGE_DRAIN_DELAY="0"), "--standalone"
    ) as running:
        serving = await running.event("serving")
        yield running, serving["service"]


async def test_grpc_writes_its_own_lines_if_the_operator_wants_them(place: Place) -> None:
    async with process("service", place.service(GRPC_VERBOSITY="INFO")) as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await _models(await running.address(), place.credentials(client=None))
        await until(
            lambda: any("Handshake failed" in line for line in running.lines), "a line of gRPC"
        )
        assert not running.events("tls handshake failed")


async def test_grpcurl_shows_a_certificate(place: Place) -> None:
    grpcurl = shutil.which("grpcurl", path=str(TOOLS)) or shutil.which("grpcurl")
    if grpcurl is None:
        missing = "grpcurl is missing: run `make conformance`"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    async with process("service", place.service()) as running:
        target = await running.address()
        verified = (grpcurl, "-cacert", place.ca, "-max-time", "10")
        shown = ("-cert", place.client.certificate, "-key", place.client.key)
        status, output = await _run(*verified, *shown, target, "list")
        assert (status, "chatcompletion.v1.ModelService" in output) == (0, True)
        for command in ((*verified, target, "list"), (grpcurl, "-plaintext", target, "list")):
            status, output = await _run(*command)
            assert status != 0, output


async def test_a_bridge_serves_https_and_calls_by_tls(place: Place) -> None:
    async with _both(place) as (bridge, address):
        verified = ssl.create_default_context(cafile=place.ca)
        http = DefaultAsyncHttpxClient(verify=verified, trust_env=False, timeout=PATIENCE)
        async with AsyncOpenAI(
            base_url=f"https://{address}/v1", api_key=KEY, http_client=http
        ) as client:
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    model="default", stream=True, messages=[{"role": "user", "content": "Hello"}]
                )
            ]
            assert chunks[-1].choices[0].finish_reason == "stop"
        curl = ("curl", "--silent", "--show-error", "--max-time", "10")
        url = f"https://{address}/healthz"
        assert await _run(*curl, "--cacert", place.ca, url) == (0, '{"status":"ok"}')
        status, output = await _run(*curl, "--cacert", place.other_ca, url)
        assert (status, "certificate" in output) == (60, True)
        await _failed(bridge, "the client does not trust the certificate: unknown authority")
        assert (await _run(*curl, f"http://{address}/healthz"))[0] != 0
        await _failed(bridge, "the client sent plaintext, not TLS")
        old = ("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0", "-connect", address)
        await _run("openssl", "s_client", *old)
        await _failed(bridge, "the client only speaks versions below TLS 1.2")
        verifying = ("-CAfile", place.ca, "-verify_return_error", "-verify_hostname", "localhost")
        _, output = await _run("openssl", "s_client", *verifying, "-connect", address)
        assert "Verify return code: 0 (ok)" in output


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("CHAT_SERVICE_TLS_CA_FILE", "CERTIFICATE_VERIFY_FAILED"),
        ("CHAT_SERVICE_TLS_NAME", "Hostname Verification Check failed"),
    ],
)
async def test_a_bridge_trusts_no_other_service(place: Place, change: str, why: str) -> None:
    wrong = place.other_ca if change.endswith("_FILE") else "other.example"
    async with _both(place, **{change: wrong}) as (bridge, address):
        verified = ssl.create_default_context(cafile=place.ca)
        async with httpx.AsyncClient(verify=verified, trust_env=False, timeout=PATIENCE) as http:
            answer = await http.get(
                f"https://{address}/v1/models", headers={"authorization": f"Bearer {KEY}"}
            )
        assert answer.status_code == 503
        line = await bridge.event("request")
        assert (line["reason"], why in line["why"]) == ("SERVICE_UNAVAILABLE", True), line
        assert why not in answer.text


async def test_new_files_are_used_and_unusable_ones_are_not(place: Place) -> None:
    async with process("service", place.service()) as service:
        target = await service.address()
        async with process("restbridge", place.bridge(target)) as bridge:
            url = f"https://{(await bridge.address()).replace('127.0.0.1', 'localhost')}/healthz"
            curl = ("curl", "--silent", "--max-time", "10", "--cacert")
            renewed = written(place.folder, OTHERS, "renewed", "localhost", "127.0.0.1")
            shutil.copy(renewed.certificate, place.server.certificate)
            for running in (service, bridge):
                running.send(signal.SIGHUP)
                line = await running.event("tls not reloaded")
                assert "found the key of another certificate" in line["errors"][0]
            assert (await _run(*curl, place.ca, url))[0] == 0
            assert await _models(target, place.credentials(client=place.client)) == ["default"]

            shutil.copy(renewed.key, place.server.key)
            for running, setting in (
                (service, "CHAT_TLS_CERT_FILE"),
                (bridge, "CHAT_BRIDGE_TLS_CERT_FILE"),
            ):
                running.send(signal.SIGHUP)
                await _reloaded(running, setting)
            assert (await _run(*curl, place.ca, url))[0] == 60
            assert (await _run(*curl, place.other_ca, url))[0] == 0
            with pytest.raises(grpc.aio.AioRpcError):
                await _models(target, place.credentials(client=place.client))
            now = place.credentials(client=place.client, ca=place.other_ca)
            assert await _models(target, now) == ["default"]


async def _reloaded(running: Process, setting: str) -> None:
    await until(
        lambda: setting in [line["setting"] for line in running.events("tls reloaded")],
        f"{setting} was not read again",
    )


async def test_every_wrong_setting_is_in_one_list(place: Place) -> None:
    old = written(place.folder, OURS, "old", "localhost", expired=True)
    wrong = place.service(
        CHAT_TLS_KEY_FILE=place.client.key,
        CHAT_ADMIN_TLS_CERT_FILE=old.certificate,
        CHAT_ADMIN_TLS_KEY_FILE=old.key,
        CHAT_UPSTREAM_CA_FILE=place.server.key,
        CHAT_REQUEST_TIMEOUT="soon",
    )
    expected = [
        "CHAT_REQUEST_TIMEOUT must be",
        "CHAT_TLS_KEY_FILE must be the key of CHAT_TLS_CERT_FILE; found the key of another",
        "CHAT_ADMIN_TLS_CERT_FILE must have a certificate that is valid; found one that has expire",
        "CHAT_UPSTREAM_CA_FILE must have a certificate as PEM; found EC PRIVATE KEY",
    ]
    async with process("service", wrong) as running:
        assert await running.exit_status() == 2
        lines = running.lines
    async with process("service", wrong, "check") as checking:
        assert await checking.exit_status() == 2
        checked = checking.output.decode().splitlines()
    for found, start in zip(lines, expected, strict=True):
        assert found.startswith(start)
    assert checked == [f"FAIL {line}" for line in lines]
    half = place.bridge("localhost:1")
    half.pop("CHAT_BRIDGE_TLS_KEY_FILE")
    half.pop("CHAT_SERVICE_TLS_CA_FILE")
    async with process("restbridge", half) as running:
        assert await running.exit_status() == 2
        assert [line.partition(" ")[0] for line in running.lines] == [
            "CHAT_BRIDGE_TLS_KEY_FILE",
            "CHAT_SERVICE_TLS_CERT_FILE",
        ]


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
async def test_plaintext_for_other_machines_has_one_warning(arguments: tuple[str, ...]) -> None:
    async with process("service", environment(CHAT_LISTEN="0.0.0.0:0"), *arguments) as running:
        await running.event("serving")
        (warning,) = running.events("listener without TLS")
        assert (warning["level"], warning["setting"]) == ("warning", "CHAT_LISTEN")
        running.send(signal.SIGINT)
        await running.exit_status()
        assert len(running.events("listener without TLS")) == 1
