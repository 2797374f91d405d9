"""The commands and the receiver of docs/events.md, as they stand there."""

import asyncio
import base64
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from service.ledger.migrations import migrate
from service.ledger.outbox import Closing, Outbox
from service.ledger.rows import Grant
from service.ledger.store import Store
from service.webhooks import signatures
from tests.support import canaries
from tests.support.accounts_stack import accounts_stack
from tests.support.books import books
from tests.support.priced_models import CREDIT
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE
from tests.support.webhook_receiver import receiver

PAGE: Final = (ROOT / "docs" / "events.md").read_text()
COMMANDS: Final = re.findall(r"<!-- commands -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
(RECEIVER,) = re.findall(r"<!-- receiver -->\n```python\n(.*?)```", PAGE, re.DOTALL)
SECRET: Final = canaries.secret("whsec_" + base64.b64encode(b"p" * 32).decode())


async def shell(commands: str, directory: Path) -> str:
    """Run commands in a directory with a store, and return their output."""
    shell_ = shutil.which("sh")
    assert shell_ is not None
    child = await asyncio.create_subprocess_exec(
        *(shell_, "-e", "-c", commands),
        cwd=directory,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")]),
            "CHAT_DATABASE_URL": f"sqlite:///{directory}/store.db",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(3 * PATIENCE):  # several programs
        out, _ = await child.communicate()
    assert child.returncode == 0, out
    return out.decode()


@pytest.mark.time_limit(180)
async def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    store = Store(url, thresholds=(50,))
    migrate(store)
    with books(url) as opened:
        team = opened.team(credit=CREDIT)
        opened.directory.create_account("acme")
    # Credit that is taken back crosses the threshold. One event waits, and one is dead.
    for name in ("dead", "waiting"):
        store.apply(
            [
                Grant(account_id=team.account_id, amount=CREDIT, idempotency_id=f"{name} 1"),
                Grant(account_id=team.account_id, amount=-CREDIT, idempotency_id=f"{name} 2"),
            ]
        )
    outbox = Outbox(store)
    (event,) = outbox.claim(most=1, lease=0)
    outbox.close([Closing(id=event.id, attempts=1, failure="HTTP 410")])
    store.close()

    exports, events = COMMANDS
    await shell(exports, tmp_path)
    for file in ("usage-2026-11.csv", "usage-2026-11.jsonl", "acme-2026-11.csv"):
        assert (tmp_path / file).read_text().count("total") >= 1
    out = (await shell(events, tmp_path)).splitlines()
    assert [line.split()[0] for line in out if line.startswith("credit-")] == [
        f"credit-50-{team.account_id}-{name}" for name in ("waiting", "dead")
    ]
    assert out[-2:] == ["Sending again: 1", "Deleted: 0"]
    audit = await shell("python -m service audit", tmp_path)
    assert "RetryEvents" in audit
    refused = await shell("python -m service events drop x 2>&1 || true", tmp_path)
    assert "there is no dead letter 'x'" in refused
    refused = await shell("python -m service events retry 2>&1 || true", tmp_path)
    assert "name the id of an event, or --all" in refused


async def test_the_receiver_of_the_page_accepts_events(tmp_path: Path) -> None:
    async with receiver() as free:
        port = free.port
    program = tmp_path / "receiver.py"
    program.write_text(RECEIVER.replace("8000", str(port)))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(program)),
        env={"SECRET": SECRET, "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with accounts_stack(
            events_url=f"http://127.0.0.1:{port}/", events_secrets=(signatures.key(SECRET),)
        ) as stack:
            team = stack.books.team(credit=CREDIT)
            assert (await stack.ask("rest", team.key, "default")).status == 200
            assert child.stdout is not None
            async with asyncio.timeout(PATIENCE):
                line = (await child.stdout.readline()).decode().split()
            assert (line[0], line[2]) == ("chatcompletion.usage.v1", team.name)
    finally:
        child.kill()
        await child.wait()
