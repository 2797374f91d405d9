"""`python -m restbridge --standalone`, which is `make up`: everything in one process.

start -> addresses, a key, its export line, a working curl line -> SIGINT -> exit 0
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from service.accounts.directory import Directory
from service.ledger.store import Store
from service.simulator.text import INTRODUCTION
from tests.support.grpc_client import KEY, client
from tests.support.running_bridge import PATH
from tests.support.stack import HELLO
from tests.support.waiting import PATIENCE

FREE: Final = "127.0.0.1:0"
ENVIRONMENT: Final = {
    "CHAT_LISTEN": FREE,
    "CHAT_BRIDGE_LISTEN": FREE,
    "CHAT_METRICS_LISTEN": "none",
    "CHAT_BRIDGE_METRICS_LISTEN": "none",
    "CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN": "0",
    "CHAT_SIMULATOR_INTER_TOKEN_DELAY": "0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Standalone:
    """The process and its output."""

    process: asyncio.subprocess.Process
    told: Mapping[str, str]
    """The lines "name   value"."""
    export: str
    """The line of shell that sets CHAT_KEY."""
    curl: str

    def openai(self, **options: Any) -> AsyncOpenAI:
        """Return an SDK client with the printed address and key."""
        usual = {"base_url": self.told["REST"], "api_key": self.told["API key"], "max_retries": 0}
        return AsyncOpenAI(**{**usual, **options})

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)


async def ended(process: asyncio.subprocess.Process) -> tuple[int, bytes, bytes]:
    """Wait for the end, and return the exit status, the standard output and the standard error.

    Raises:
        AssertionError: it does not end; the text has the stacks of its threads.
    """
    end = asyncio.create_task(process.communicate())
    done, _ = await asyncio.wait((end,), timeout=PATIENCE)
    if not done:
        process.send_signal(signal.SIGABRT)
    printed, complained = await end
    assert done, complained.decode()
    assert process.returncode is not None
    return process.returncode, printed, complained


def logged(complained: bytes) -> list[dict[str, Any]]:
    """Return the lines of the log. The standard error must contain nothing else."""
    return [json.loads(line) for line in complained.splitlines()]


@asynccontextmanager
async def started(
    *arguments: str, cwd: str = "", **changes: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the process, and kill it at the end.

    Args:
        arguments: Further arguments.
        cwd: Its working directory, in which its store is a file; "" for a temporary one.
        changes: Variables.
    """
    directory = TemporaryDirectory()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "faulthandler", "-W", "error", "-m", "restbridge", "--standalone"),
        *arguments,
        cwd=cwd or directory.name,
        env={"PATH": os.environ.get("PATH", ""), **ENVIRONMENT, **changes},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        directory.cleanup()


@asynccontextmanager
async def standalone(*arguments: str, cwd: str = "", **changes: str) -> AsyncIterator[Standalone]:
    """Start the process as `started` does, and read what it prints up to the curl line."""
    async with started(*arguments, cwd=cwd, **changes) as process:
        assert process.stdout is not None
        told: dict[str, str] = {}
        export = ""
        async with asyncio.timeout(PATIENCE):
            while not (line := (await process.stdout.readline()).decode()).startswith("curl "):
                assert line, (await process.communicate())[1]
                if line.startswith("export "):
                    export = line
                    continue
                name, _, value = line.partition("  ")
                told[name.strip()] = value.strip()
        yield Standalone(process=process, told=told, export=export, curl=line)


async def shell(script: str) -> bytes:
    """Return the output of a script in an environment without a key."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-e", "-c", script),
        env={"PATH": os.environ.get("PATH", "")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed


async def test_it_prints_the_ports_of_the_metrics() -> None:
    async with standalone(
        CHAT_METRICS_LISTEN="127.0.0.1:0", CHAT_BRIDGE_METRICS_LISTEN="127.0.0.1:0"
    ) as running:
        addresses = running.told["metrics"].split(", ")
        async with httpx.AsyncClient(trust_env=False) as scraper:
            bridge, service = [(await scraper.get(each)).text for each in addresses]
    assert "chat_bridge_events" in bridge
    assert "chat_holds_open" in service


async def test_what_it_prints_is_all_one_needs() -> None:
    async with standalone() as running:
        told = running.told
        async with running.openai() as user:
            whole = await user.chat.completions.create(model="default", messages=HELLO)
            stream = await user.chat.completions.create(
                model="default", messages=HELLO, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            [model] = (await user.models.list()).data
        async with client(told["gRPC"], key=told["API key"]) as caller:
            streamed = await caller.collect("default")
        running.interrupt()
        status, _, complained = await ended(running.process)

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", told["REST"])
    assert re.fullmatch(r"sk-live-[\w-]{43}", told["API key"])
    page = told["REST"].removesuffix("/v1") + "/playground"
    assert told["browser"] == f"{page}#key={told['API key']}"
    assert (told["upstream"], told["metrics"]) == ("the built-in simulator", "none")
    place = "google/gemma-3-4b-it at the built-in simulator"
    assert f"model default -> {place}, key none, price 0" in told
    assert whole.choices[0].message.content == text
    assert text.startswith(INTRODUCTION)
    assert streamed.text.startswith(INTRODUCTION)
    assert model.id == "default"
    assert status == 0
    assert told["API key"].encode() not in complained
    assert {line["event"] for line in logged(complained)} >= {"serving", "draining", "stopped"}


AWKWARD: Final = "sk-live-$HOME'\"`id`\\"
"""A key that a shell changes unless it is quoted."""


@pytest.mark.parametrize("key", ["", KEY, AWKWARD])
async def test_the_export_line_sets_the_key(key: str) -> None:
    async with standalone(CHAT_BOOTSTRAP_API_KEY=key) as running:
        printed = await shell(f"{running.export}sh -c 'printf %s \"$CHAT_KEY\"'")

    assert printed.decode() == running.told["API key"]
    assert not key or printed.decode() == key


async def test_the_line_for_the_terminal_works_with_the_export_line() -> None:
    async with standalone() as running:
        printed = await shell(f"{running.export}{running.told['terminal']} </dev/null")
        assert printed.decode().startswith(INTRODUCTION)
        running.interrupt()
        await ended(running.process)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
@pytest.mark.parametrize("key", ["", AWKWARD])
async def test_the_curl_line_works(key: str) -> None:
    async with standalone(CHAT_BOOTSTRAP_API_KEY=key) as running:
        printed = await shell(running.curl)

    assert printed.startswith(b"data: {")
    assert printed.endswith(b"data: [DONE]\n\n")


async def test_a_key_that_is_given_is_the_one() -> None:
    async with standalone(CHAT_BOOTSTRAP_API_KEY=KEY) as running:
        assert running.told["API key"] == KEY
        async with running.openai() as user:
            assert await user.chat.completions.create(model="default", messages=HELLO)
        async with running.openai(api_key="sk-live-another") as stranger:
            with pytest.raises(openai.AuthenticationError):
                await stranger.chat.completions.create(model="default", messages=HELLO)


async def test_the_key_is_kept_across_restarts(tmp_path: Path) -> None:
    file = tmp_path / "chatcompletion.sqlite3.bootstrap-key"
    keys = []
    for arguments in ((), (), ("--workers", "2")):
        async with standalone(*arguments, cwd=str(tmp_path)) as running:
            keys.append(running.told["API key"])
            assert running.told["kept in"] == file.name
            assert file.read_text() == f"{keys[0]}\n"
            assert file.stat().st_mode & 0o777 == 0o600
            async with running.openai() as user:
                assert await user.chat.completions.create(model="default", messages=HELLO)
            running.interrupt()
            await ended(running.process)
    assert keys == [keys[0]] * 3

    # A given key is not kept, and revokes the kept one.
    async with standalone(cwd=str(tmp_path), CHAT_BOOTSTRAP_API_KEY=KEY) as running:
        assert "kept in" not in running.told
        assert not file.exists()
        async with running.openai(api_key=keys[0]) as earlier:
            with pytest.raises(openai.AuthenticationError):
                await earlier.chat.completions.create(model="default", messages=HELLO)
        running.interrupt()
        await ended(running.process)
    async with standalone(cwd=str(tmp_path)) as running:
        assert running.told["API key"] not in {KEY, *keys}


async def test_a_kept_key_that_was_revoked_is_replaced(tmp_path: Path) -> None:
    async with standalone(cwd=str(tmp_path)) as running:
        key = running.told["API key"]
        running.interrupt()
        await ended(running.process)
    store = Store(f"sqlite:///{tmp_path}/chatcompletion.sqlite3")
    directory = Directory(store)
    [row] = directory.keys("bootstrap")
    directory.revoke_key("bootstrap", row.name)
    store.close()
    async with standalone(cwd=str(tmp_path)) as running:
        assert running.told["API key"] != key
        async with running.openai() as user:
            assert await user.chat.completions.create(model="default", messages=HELLO)


async def test_ctrl_c_does_not_wait_for_balancers_but_for_answers() -> None:
    changes = {
        "CHAT_DRAIN_DELAY": "600",
        "CHAT_BRIDGE_DRAIN_DELAY": "600",
        "CHAT_SIMULATOR_INTER_TOKEN_DELAY": "0.005",
    }
    async with standalone(**changes) as running:
        async with running.openai() as user:
            stream = await user.chat.completions.create(
                model="default", messages=HELLO, stream=True, max_tokens=40
            )
            await anext(stream)
            running.interrupt()
            rest = [chunk async for chunk in stream]
        status, _, _ = await ended(running.process)

    assert rest[-1].choices[0].finish_reason == "length"
    assert status == 0


async def test_a_drain_takes_new_requests_for_its_delay_while_old_ones_go_on() -> None:
    changes = {"CHAT_BRIDGE_DRAIN_DELAY": "600", "CHAT_SIMULATOR_INTER_TOKEN_DELAY": "0.05"}
    async with standalone(**changes) as running:
        headers = {"authorization": f"Bearer {running.told['API key']}"}
        async with (
            running.openai() as user,
            httpx.AsyncClient(
                base_url=running.told["REST"].removesuffix("/v1"),
                headers=headers,
                timeout=PATIENCE,
                trust_env=False,
            ) as http,
        ):
            stream = await user.chat.completions.create(
                model="default", messages=HELLO, stream=True, max_tokens=40
            )
            await anext(stream)
            running.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                while (await http.get("/readyz")).status_code != 503:
                    pass
            document = {"model": "default", "messages": HELLO, "max_tokens": 1}
            for _ in range(3):
                assert (await http.post(PATH, json=document)).status_code == 200
            rest = [chunk async for chunk in stream]
        # The delay has not passed; a second signal ends it.
        assert running.process.returncode is None
        running.process.send_signal(signal.SIGTERM)
        status, _, _ = await ended(running.process)

    assert rest[-1].choices[0].finish_reason == "length"
    assert status == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"CHAT_LISTEN": "nowhere"},
        {"CHAT_BRIDGE_LISTEN": "127.0.0.1:http"},
        {"CHAT_UPSTREAM_BASE_URL": "ftp://127.0.0.1"},
        {"CHAT_MODELS_FILE": "no-such-file.toml"},
        {"CHAT_BRIDGE_TIMEOUT": "soon", "CHAT_LOG_LEVEL": "loud"},
    ],
    ids="+".join,
)
async def test_a_wrong_setting_is_named(changes: dict[str, str]) -> None:
    async with started(**changes) as process:
        status, printed, complained = await ended(process)

    assert status == 2
    assert printed == b""
    assert b"Traceback" not in complained
    for name, value in changes.items():
        assert f"{name} must be " in complained.decode()
        assert f'; found "{value}"' in complained.decode()


@pytest.mark.parametrize("name", [name for name in ENVIRONMENT if name.endswith("_LISTEN")])
async def test_an_address_that_is_taken_is_named(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        async with started(cwd=str(tmp_path), **{name: address}) as process:
            status, printed, complained = await ended(process)

    assert status == 1
    assert printed == b""
    [told] = complained.decode().splitlines()
    assert told.startswith(f"{name}: cannot listen on {address}: Address already in use. Port ")
    assert f" is free; write: {name}=127.0.0.1:" in told
    assert os.listdir(tmp_path) == []


async def test_all_addresses_that_are_taken_are_named(tmp_path: Path) -> None:
    names = [name for name in ENVIRONMENT if name.endswith("_LISTEN")]
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        taken = {
            name: "{}:{}".format(*server.getsockname())
            for name, server in zip(names, held, strict=True)
        }
        async with started(cwd=str(tmp_path), **taken) as process:
            status, _, complained = await ended(process)

    assert status == 1
    lines = complained.decode().splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(names)
    assert len({line.rpartition("=")[2] for line in lines}) == len(names)
    assert os.listdir(tmp_path) == []
