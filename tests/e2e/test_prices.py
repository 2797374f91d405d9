"""Prices besides input and output, from the models file to the ledger, on each door and store.

usage with cached, reasoning, … tokens -> the charge, its receipt and the time of its prices
docs/prices.md -> its models file, and the command that shows its prices
"""

import asyncio
import json
import os
import re
import sys
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from service.ledger.rows import EntryKind
from service.models_document import catalogue
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS, document
from tests.support.grpc_client import KEY
from tests.support.priced_models import priced
from tests.support.stack import stack
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

PAGE: Final = (ROOT / "docs" / "prices.md").read_text(encoding="utf-8")
NANO: Final = 10**9
USAGE: Final = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 40},
}
PRICES: Final[dict[str, Any]] = {
    "input_price": 4,
    "output_price": 8,
    "cached_input_price": 1,
    "cache_write_price": 5,
    "reasoning_price": 6,
    "request_price": Decimal("0.001"),
    "margin": 100,
    "prices_from": tomllib.loads("t = 2026-11-01T00:00:00Z")["t"],
}
FROM: Final = 1793491200 * NANO
COMPLETION: Final = (40 * 6 + 10 * 8) * 2000
INSIDE: Final = (30 * 1 + 20 * 5 + 50 * 4) * 2000 + 2 * NANO // 1000
OUTSIDE: Final = (30 * 1 + 20 * 5 + 100 * 4) * 2000 + 2 * NANO // 1000


@pytest.mark.parametrize(
    ("cached", "prompt", "tokens"), [("inside", INSIDE, 100), ("outside", OUTSIDE, 150)]
)
async def test_each_kind_of_token_has_its_price(
    cached: str, prompt: int, tokens: int, database: str
) -> None:
    entry = priced(upstream_model="laid", cached_tokens=cached, **PRICES)
    message = {"role": "assistant", "content": "Hello."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c", "created": 1, "model": "laid"}
    whole = {**head, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    delta = {"index": 0, "delta": {"content": "Hello."}, "finish_reason": "stop"}
    chunk = {**head, "object": "chat.completion.chunk"}
    async with accounts_stack({"default": entry}, database=database) as running:
        running.upstream.reply_with("laid", body=json.dumps(whole).encode())
        events = ({**chunk, "choices": [delta]}, {**chunk, "choices": [], "usage": USAGE})
        running.upstream.stream_with("laid", [json.dumps(each).encode() for each in events])
        for door in DOORS:
            for streamed in (False, True):
                team = running.books.team()

                answer = await running.ask(door, team.key, document("default"), streamed=streamed)

                assert answer.code == ""
                await running.service.rests()
                [row] = [
                    row
                    for row in running.books.directory.reports.ledger(team.name, limit=10)
                    if row.kind != EntryKind.GRANT
                ]
                assert (-row.amount, row.prices_from) == (prompt + COMPLETION, FROM)
                assert (row.prompt_tokens, row.completion_tokens) == (tokens, 50)
                shares = f"prompt={prompt}, completion={COMPLETION}"
                assert shares in answer.charge
        running.books.nothing_is_open()


async def test_the_commands_of_the_page_show_the_worth_of_a_credit(tmp_path: Path) -> None:
    [commands] = re.findall(r"<!-- worth -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-ec", commands.replace("python", sys.executable)),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE):
        printed, _ = await process.communicate()

    assert process.returncode == 0
    head, line = printed.decode().splitlines()[-2:]
    assert (head.split()[-1], line.split()[-1]) == ("EUR", "0.245")


async def test_the_models_of_the_page_have_the_prices_that_it_shows(tmp_path: Path) -> None:
    [text] = re.findall(r"<!-- prices -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
    models = catalogue(tomllib.loads(text, parse_float=Decimal), {})
    [command] = re.findall(r"```sh\n(curl .*?)```", PAGE, re.DOTALL)
    [shown] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    async with stack(models) as running:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", command.replace("127.0.0.1:8080", running.bridge.address)),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "CHAT_KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(PATIENCE):
            printed, _ = await process.communicate()

    assert json.loads(printed)["pricing"] == json.loads(f"{{{shown}}}")["pricing"]
