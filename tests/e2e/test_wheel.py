"""The built wheel in a bare environment of each role: its console scripts, and its requirements.

The environments are installed from the package index, so these tests run only if CI is set.
"""

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from service.simulator.text import INTRODUCTION
from tests.support.grpc_client import KEY as CALLERS_KEY
from tests.support.installations import PROJECT, build_wheel, closure, install
from tests.support.processes import Process, environment, run
from tests.support.stack import stack
from tests.support.waiting import PATIENCE

pytestmark = [
    pytest.mark.skipif(not os.environ.get("CI"), reason="installs from the package index: CI=true"),
    pytest.mark.time_limit(300),
]

SCRIPTS: Final = {
    "chatcompletion-service": {"service", "standalone"},
    "chatcompletion-bridge": {"restbridge", "standalone"},
    "chatcompletion-standalone": {"standalone"},
    "chatcompletion-admin": {"admin", "service", "standalone"},
    "chatcompletion-probe": {"restbridge", "service", "standalone"},
    # A conversation needs the extra itself, a question less.
    "chatcompletion-chat": {"chat", "service", "standalone"},
}
"""The console scripts, each with the extras that have its requirements."""

OTHERS: Final = {"chatcompletion-bridge": {"restbridge"}, "chatcompletion-probe": {"process"}}
"""The extras that the other scripts name if a requirement is missing."""

COMMANDS: Final = {"chatcompletion-admin", "chatcompletion-chat", "chatcompletion-probe"}
"""The scripts that do not serve."""

ROLES: Final = ("admin", "chat", "restbridge", "service", "standalone")
NEEDLESS: Final = {
    "admin": {"httpx", "httptools", "prometheus-client", "starlette", "uvicorn", "uvloop"},
    "chat": {"alembic", "httptools", "prometheus-client", "sqlalchemy", "starlette", "uvloop"},
    "restbridge": {"alembic", "grpcio-reflection", "httpx", "psycopg", "sqlalchemy"},
    "service": {"psycopg", "starlette", "uvicorn"},
    "standalone": {"psycopg"},
}
"""Packages that a role must do without."""

QUESTIONS: Final = {
    "chatcompletion-admin": ("accounts", "list"),
    "chatcompletion-chat": ("Hello",),
}
"""The arguments with which a script needs its requirements."""

KEY: Final = "sk-live-0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Installation:
    """A bare environment of one role."""

    extra: str
    programs: Path

    def script(self, name: str) -> str:
        return str(self.programs / name)

    def output(self, name: str, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run a script to its end, and return its exit status and its output."""
        done = subprocess.run(  # noqa: S603
            [self.script(name), *arguments],
            cwd=self.programs,
            env=variables,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=ROLES)
def installed(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    extra: str = request.param
    directory = tmp_path_factory.mktemp(extra) / "role"
    return Installation(extra, install(wheel, extra, directory))


def test_the_scripts_are_those_of_the_project() -> None:
    assert set(PROJECT["scripts"]) == set(SCRIPTS)


def test_a_role_installs_what_it_needs_and_only_that(installed: Installation) -> None:
    assert closure(installed.extra) & NEEDLESS[installed.extra] == set()
    for script, extras in SCRIPTS.items():
        status, text = installed.output(script, "--version")
        if installed.extra in extras:
            assert (status, text) == (0, f"chatcompletion {PROJECT['version']}\n")
            status, text = installed.output(script, "--help")
            assert (status, text.startswith(f"usage: {script} ")) == (0, True)
            page = "chat" if script == "chatcompletion-chat" else "configuration"
            assert f"docs/{page}.md" in text
            assert installed.output(script, "--hlep")[0] == 2


def test_a_script_without_its_requirements_names_the_extra(installed: Installation) -> None:
    for script, extras in SCRIPTS.items():
        if installed.extra not in extras:
            command = QUESTIONS.get(script, ())
            variables = {
                "CHAT_UPSTREAM_BASE_URL": "simulator",
                "CHAT_KEY": KEY,
                # Other programs can use the default ports.
                "CHAT_LISTEN": "127.0.0.1:0",
                "CHAT_METRICS_LISTEN": "none",
                "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
                "CHAT_BRIDGE_METRICS_LISTEN": "none",
            }
            status, text = installed.output(script, *command, **variables)
            assert (status, text.count("\n")) == (1, 1), text
            (own,) = {script.removeprefix("chatcompletion-")} & extras or OTHERS[script]
            assert text.endswith(f"Run: pip install 'chatcompletion[{own}]'\n")


async def _serves(installed: Installation, script: str, tmp_path: Path, **changes: str) -> None:
    variables = environment(
        CHAT_BRIDGE_LISTEN="127.0.0.1:0",
        CHAT_BRIDGE_METRICS_LISTEN="none",
        CHAT_BRIDGE_DRAIN_DELAY="0",
        CHAT_DATABASE_URL=f"sqlite:///{tmp_path}/store.sqlite3",
        CHAT_JOURNAL_DIRECTORY=f"{tmp_path}/journal",
        CHAT_BOOTSTRAP_API_KEY=KEY,
        **changes,
    )
    async with run((installed.script(script),), variables) as running:
        address = await running.address()
        if script != "chatcompletion-service":
            await _answers(address, script)
        await _ends(running)


async def _answers(address: str, script: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        if script == "chatcompletion-standalone":
            asked = {"model": "default", "messages": [{"role": "user", "content": "Hello"}]}
            answer = await client.post(
                "/v1/chat/completions", json=asked, headers={"authorization": f"Bearer {KEY}"}
            )
            assert answer.status_code == 200, answer.text


async def _ends(running: Process) -> None:
    running.send(signal.SIGTERM)
    assert await running.exit_status() == 0


async def test_each_role_serves(installed: Installation, tmp_path: Path) -> None:
    for script, extras in SCRIPTS.items():
        if installed.extra in extras and script not in COMMANDS:
            await _serves(installed, script, tmp_path)


async def test_workers_of_a_script_are_the_script(installed: Installation, tmp_path: Path) -> None:
    if installed.extra != "standalone":
        pytest.skip("one role is enough")
    await _serves(installed, "chatcompletion-standalone", tmp_path, CHAT_BRIDGE_WORKERS="2")


def test_the_admin_creates_an_account(installed: Installation, tmp_path: Path) -> None:
    if installed.extra not in SCRIPTS["chatcompletion-admin"]:
        pytest.skip("another role")
    status, text = installed.output(
        *("chatcompletion-admin", "accounts", "create", "acme", "--json"),
        CHAT_DATABASE_URL=f"sqlite:///{tmp_path}/store.sqlite3",
    )
    assert status == 0, text
    assert json.loads(text)["account"]["name"] == "acme"


@pytest.mark.parametrize("door", [(), ("--grpc",)], ids=["rest", "grpc"])
async def test_the_terminal_client_gets_an_answer(
    installed: Installation, door: tuple[str, ...]
) -> None:
    if installed.extra != "chat":
        pytest.skip("another role")
    async with stack({"default": "vendor/model"}) as running:
        status, text = await asyncio.to_thread(
            installed.output,
            *("chatcompletion-chat", *door, "--model", "default", "Hello"),
            CHAT_KEY=CALLERS_KEY,
            CHAT_BASE_URL=running.base_url,
            CHAT_TARGET=running.service.address,
        )
    assert status == 0, text
    assert text.startswith(INTRODUCTION)
