"""The command line as a process of its own, next to a store that is in use."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.e2e.running import PATIENCE, ROOT


async def command(
    directory: Path, *arguments: str, stdout: int = asyncio.subprocess.PIPE
) -> tuple[int, str, str]:
    """Run `python -m service` and return its exit status and what it wrote."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *arguments),
        cwd=ROOT,
        env={
            "PATH": os.environ.get("PATH", ""),
            "CHAT_DATABASE_URL": f"sqlite:///{directory}/store.sqlite3",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, (out or b"").decode(), err.decode()


async def document(directory: Path, *arguments: str) -> Any:
    status, out, err = await command(directory, *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


async def test_from_nothing_to_a_verified_ledger(tmp_path: Path) -> None:
    created = await document(tmp_path, "accounts", "create", "acme", "--credit", "25")
    assert created["balance_nano_credits"] == 25 * 10**9
    status, key, note = await command(
        tmp_path, "keys", "create", "acme", "--name", "ci", "--rpm", "60"
    )
    assert status == 0
    assert key.startswith("sk-live-")
    assert key.strip() not in note
    added = await asyncio.gather(
        *(command(tmp_path, "credit", "add", "acme", "10", "--id", "twice") for _ in range(2))
    )
    assert [status for status, _, _ in added] == [0, 0]
    assert (await document(tmp_path, "accounts", "list"))["accounts"][0]["balance"] == "35"
    revoked = await document(tmp_path, "keys", "revoke", "acme", "ci")
    assert revoked["revoked_at"] is not None
    status, out, _ = await command(tmp_path, "ledger", "verify")
    assert (status, out) == (0, "Every balance is the sum of its ledger.\n")


async def test_failures_are_one_line(tmp_path: Path) -> None:
    status, out, err = await command(tmp_path, "accounts", "list")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "store.sqlite3" in err
    status, out, err = await command(tmp_path, "keys", "create", "acme")
    assert (status, out) == (2, "")
    assert "Traceback" not in err


async def test_a_reader_may_leave(tmp_path: Path) -> None:
    await command(tmp_path, "migrate")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        status, _, err = await command(tmp_path, "accounts", "list", stdout=writing)
    finally:
        os.close(writing)
    assert (status, err) == (1, "")
