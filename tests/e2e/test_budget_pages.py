"""The commands of docs/budgets.md, as they are written there."""

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Final

from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

PAGE: Final = (ROOT / "docs" / "budgets.md").read_text(encoding="utf-8")
BLOCK: Final = re.compile(r"<!-- (budgets|groups) -->\n```sh\n(.*?)```", re.DOTALL)


async def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    blocks = dict(BLOCK.findall(PAGE))
    script = blocks["budgets"] + blocks["groups"] + "python -m service ledger verify\n"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-e", "-c", script.replace("python ", f"{shlex.quote(sys.executable)} ")),
        cwd=ROOT,
        env={
            "PATH": os.environ.get("PATH", ""),
            "CHAT_DATABASE_URL": f"sqlite:///{tmp_path / 'accounts.db'}",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        printed, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    shown = printed.decode()
    assert re.search(r"month +10 +0 +0 +10 +Europe/Berlin +20", shown)
    assert re.search(r"total +100 +0 +0 +100 +Europe/Berlin +-", shown)
