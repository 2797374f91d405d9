"""Backup and restore: the commands of docs/backup.md, and a copy of a store under load."""

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from service.accounts.backup import back_up
from service.ledger.store import Store
from tests.support.accounts_stack import accounts_stack
from tests.support.books import books
from tests.support.postgres import Server, binaries
from tests.support.processes import environment, process
from tests.support.tree import ROOT

PAGE: Final = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")
SHELL: Final = "set -eu\n"


def commands(name: str) -> str:
    """Return the commands of a block of the page."""
    [text] = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)```\n<!-- /{name} -->", PAGE, re.DOTALL)
    return str(text)


async def shell(text: str, directory: Path, variables: Mapping[str, str]) -> str:
    """Run commands as a person would, and return their output."""
    programs = [str(Path(sys.executable).parent), str(binaries() or "/"), "/usr/bin", "/bin"]
    running = await asyncio.create_subprocess_exec(
        *("bash", "-c", SHELL + text),
        cwd=directory,
        env={
            "PATH": ":".join(programs),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            **variables,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await running.communicate()
    assert running.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.time_limit(180)
async def test_the_commands_of_the_page_restore_a_backup(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    variables = {}
    url = f"sqlite:///{tmp_path}/chatcompletion.sqlite3"
    if engine == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        url = variables["CHAT_DATABASE_URL"] = server.url(server.database())
    account = "python -m service accounts create acme --credit 5 --new-store"
    await shell(account, tmp_path, variables)
    await shell(commands(f"backup of {engine}"), tmp_path, variables)
    await shell("python -m service credit add acme 3", tmp_path, variables)
    settings = environment(
        PYTHONPATH=f"{ROOT}:{ROOT / 'protos'}",
        CHAT_DATABASE_URL=url,
        CHAT_JOURNAL_DIRECTORY=str(tmp_path / "journal"),
        CHAT_BOOTSTRAP_API_KEY="",
    )
    async with process("service", settings) as running:
        await running.address()
        running.process.terminate()
        assert await running.exit_status() == 0
        assert running.events("store has forgotten charges") == []

    output = await shell(commands(f"restore of {engine}"), tmp_path, variables)
    assert "OK: all balances match" in output
    with books(url) as opened:
        assert opened.directory.account("acme").balance == 5 * 10**9
    async with process("service", settings) as running:
        line = await running.event("store has forgotten charges")
        assert (line["level"], line["entry"], line["newest"]) == ("error", 2, 1)
        assert (await running.address()).startswith("127.0.0.1:")


async def test_postgresql_is_backed_up_by_its_own_tool(postgres: Server, tmp_path: Path) -> None:
    url = postgres.url(postgres.database())
    variables = {"CHAT_DATABASE_URL": url}
    await shell("python -m service migrate", tmp_path, variables)
    refused = "python -m service backup 'a file' 2>&1 || [ $? = 1 ]"
    output = await shell(refused, tmp_path, variables)
    command = output.strip().partition("for PostgreSQL, run: ")[2]
    assert command.startswith("pg_dump --format=custom '--file=a file' ")
    await shell(command, tmp_path, {})
    assert (tmp_path / "a file").stat().st_size > 0


async def test_a_store_under_load_is_copied_at_one_moment(tmp_path: Path) -> None:
    async with accounts_stack() as stack:
        teams = [stack.books.team() for _ in range(4)]
        stopping = asyncio.Event()

        async def calls(key: str) -> None:
            while not stopping.is_set():
                assert (await stack.ask("grpc", key, "default")).status == 200

        source = Store(f"sqlite:///{stack.directory}/accounts.db")
        async with asyncio.TaskGroup() as tasks:
            for team in teams:
                tasks.create_task(calls(team.key))
            for number in range(5):
                file = tmp_path / f"backup-{number}"
                # It checks every balance of the copy.
                await asyncio.to_thread(back_up, source, file, journal=str(stack.directory))
            stopping.set()
        source.close()
        await stack.rests()
        for number in range(5):
            with books(f"sqlite:///{tmp_path}/backup-{number}") as copy:
                for team in teams:
                    charges = copy.charges(team)
                    assert charges == stack.books.charges(team)[: len(charges)]
