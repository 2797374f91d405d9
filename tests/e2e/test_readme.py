"""The README's examples work unchanged: the terminal client, curl, OpenAI's SDKs, the gRPC client.

    an example of the README -> with the ports of the servers here -> a fresh process

The Node example is skipped without Node and the packages of `make test`, except in CI.
"""

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from service.simulator.text import INTRODUCTION
from tests.support.grpc_client import KEY
from tests.support.stack import Stack, stack
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
GRPC_CLIENT: Final = re.compile(r"<!-- grpc client -->\n```python\n(.*?)```", re.DOTALL)
PYTHON_SDK: Final = re.compile(r"```python\n([^`]*from openai import OpenAI\n.*?)```", re.DOTALL)
NODE_SDK: Final = re.compile(r"```js\n(.*?)```", re.DOTALL)
CHAT: Final = re.compile(r"```sh\n(\S+ -m chat .*)\n```")
CURL: Final = re.compile(r"```sh\n(curl .*?)```", re.DOTALL)
NODE_TESTS: Final = ROOT / "tests" / "e2e" / "node"


@pytest.fixture
async def running() -> AsyncIterator[Stack]:
    async with stack({"default": "vendor/model"}) as all_of_it:
        yield all_of_it


def shown(pattern: re.Pattern[str], running: Stack) -> str:
    """Return an example of the README, with the addresses of the running stack."""
    [text] = pattern.findall(README)
    found: str = text.replace("127.0.0.1:8080", running.bridge.address)
    return found.replace("127.0.0.1:50051", running.service.address)


async def output(*command: str, cwd: Path) -> str:
    """Run a command that must succeed without errors on stderr, and return its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={"PATH": os.environ.get("PATH", ""), "CHAT_KEY": KEY},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            printed, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()
    return printed.decode()


async def test_the_grpc_client_prints_the_text(running: Stack, tmp_path: Path) -> None:
    program = shown(GRPC_CLIENT, running)

    printed = await output(sys.executable, "-W", "error", "-c", program, cwd=tmp_path)

    assert printed.startswith(INTRODUCTION)
    assert len(program.splitlines()) <= 15


async def test_the_python_sdk_prints_the_text(running: Stack, tmp_path: Path) -> None:
    program = shown(PYTHON_SDK, running)

    printed = await output(sys.executable, "-W", "error", "-c", program, cwd=tmp_path)

    assert printed.startswith(INTRODUCTION)


async def test_the_node_sdk_prints_the_text(running: Stack) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_TESTS / "node_modules" / "openai").exists():
        assert not os.environ.get("CI"), "Node or its packages are missing: run `make test`"
        pytest.skip("Node or its packages are missing")

    # For a program in an argument, Node finds packages from the working directory.
    program = shown(NODE_SDK, running)
    printed = await output(node, "--input-type=module", "--eval", program, cwd=NODE_TESTS)

    assert printed.startswith(INTRODUCTION)


async def test_the_line_of_the_terminal_client_prints_the_text(running: Stack) -> None:
    [line] = CHAT.findall(README)
    command = line.replace(".venv/bin/python", shlex.quote(sys.executable))
    address = f"CHAT_BASE_URL={running.base_url}"

    printed = await output("sh", "-c", f"{address} {command}", cwd=ROOT)

    assert printed.startswith(INTRODUCTION)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
async def test_the_curl_line_streams(running: Stack, tmp_path: Path) -> None:
    printed = await output("sh", "-c", shown(CURL, running), cwd=tmp_path)

    assert '"model":"default"' in printed
    assert printed.endswith("data: [DONE]\n\n")
