"""Receipts equal the ledger, in every form: usage, header, comment, message, trailing metadata.

calls of both doors, complete, failed, cut and cancelled -> the entry of each receipt's hold
golden documents                                         -> the same, with two members more
the commands of docs/receipts.md                         -> what the page shows
"""

import asyncio
import json
import os
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from service.accounts.key_rows import StoredRow
from service.credit_worth import CreditWorth
from service.ledger.rows import EntryKind
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, Answer, document
from tests.support.books import Team
from tests.support.golden import Golden
from tests.support.golden_responses import COMPLETIONS
from tests.support.grpc_client import KEY
from tests.support.json_equality import parse
from tests.support.priced_models import CREDIT, priced
from tests.support.running_bridge import PATH
from tests.support.stack import stack
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

PAGE: Final = (ROOT / "docs" / "receipts.md").read_text(encoding="utf-8")
CALLS: Final = 240
FAULTS: Final = (
    *("500", "429", "malformed-event", "error-event", "truncated-body", "clean-end-mid-stream"),
    *("reset-mid-stream=3,itd=0.05", "hang-mid-stream=2", "cut-chunked-body", "200-text"),
    *("usage-missing", "usage-null", "usage-twice", "usage-list", "usage-in-every-chunk"),
)
RECEIPT: Final = re.compile(
    r'nano-credits=(\d+), prompt=(\d+), completion=(\d+), hold="([^"]+)"(, estimated)?(, partial)?'
)
NO_ANSWERS: Final = {"no choices"}


@pytest.mark.time_limit(180)
async def test_every_receipt_of_a_long_run_is_in_the_ledger(database: str) -> None:
    rng = random.Random(7)  # noqa: S311  (a test's)
    models = {"default": priced()}
    models |= {f: priced(upstream_model=f"sim-fault:{f},tokens=8") for f in FAULTS}
    async with accounts_stack(models, database=database, idle_timeout=0.3) as running:
        team = running.books.team(credit=1000 * CREDIT)
        kinds: Counter[str] = Counter()
        answers: list[Answer] = []
        for _ in range(CALLS // 24):
            batch = [_call(running, team, rng) for _ in range(24)]
            answers += await asyncio.gather(*batch)
        await running.rests()

        entries = {
            row.hold_id: row
            for row in running.books.directory.reports.ledger(team.name, limit=10_000)
            if row.kind != EntryKind.GRANT
        }
        seen: set[str] = set()
        for answer in answers:
            kinds[_check(answer, entries, seen)] += 1
        # Who left has no receipt; every other charge has one.
        assert len(entries.keys() - seen) <= kinds["left"]
        assert min(kinds[kind] for kind in ("whole", "usage", "plain", "partial", "free")) > 0
        running.books.nothing_is_open()


async def _call(running: AccountsStack, team: Team, rng: random.Random) -> Answer:
    model = rng.choice(("default", "default", *FAULTS))
    streamed = rng.random() < 0.7
    usage = streamed and rng.random() < 0.5
    options = {"stream_options": {"include_usage": True}} if usage else {}
    leaves = streamed and rng.random() < 0.15
    return await running.ask(
        rng.choice(DOORS),
        team.key,
        document(model, **options),
        streamed=streamed,
        leave_after=2 if leaves else None,
    )


def _check(answer: Answer, entries: dict[str | None, StoredRow], seen: set[str]) -> str:
    """Compare a receipt with the ledger, and return what kind of an answer it is."""
    if not answer.charge:
        assert answer.code == ""
        assert answer.pieces == 2
        return "left"
    found = RECEIPT.fullmatch(answer.charge)
    assert found is not None, answer.charge
    amount, prompt, completion = (int(found[group]) for group in (1, 2, 3))
    assert prompt + completion == amount
    assert found[4] not in seen
    seen.add(found[4])
    entry = entries.get(found[4])
    if entry is None:
        assert (amount, answer.code != "", answer.pieces) == (0, True, 0)
        return "free"
    marks = (bool(found[5]), bool(found[6]))
    assert (-entry.amount, entry.estimated, entry.partial) == (amount, *marks)
    if answer.code:
        assert entry.partial
        return "partial"
    if "cost" not in answer.usage:
        return "plain"
    details = answer.usage["cost_details"]
    assert round(answer.usage["cost"] * CREDIT) == details["nano_credits"] == amount
    assert (details["hold_id"], details["estimated"], details["partial"]) == (found[4], *marks)
    assert round(details["upstream_inference_prompt_cost"] * CREDIT) == prompt
    assert round(details["upstream_inference_completions_cost"] * CREDIT) == completion
    return "usage" if answer.pieces else "whole"


@pytest.mark.parametrize("golden", COMPLETIONS, ids=[golden.name for golden in COMPLETIONS])
async def test_a_receipt_adds_two_members_to_a_completion(golden: Golden) -> None:
    if golden.name in NO_ANSWERS:
        return
    async with stack({"default": "laid"}) as running, running.http() as http:
        running.upstream.reply_with("laid", body=golden.json.encode())

        response = await http.post(PATH, json=document("default"))

        received, sent = parse(response.content), parse(golden.json)
        usage, own = received.pop("usage"), sent.pop("usage", None)
        assert {**received, "model": ""} == {**sent, "model": ""}
        cost = (own or {}).pop("cost", None)  # the upstream's, which is not hidden for a free model
        assert usage["cost_details"]["upstream_inference_cost"] == cost
        added = usage.keys() - (own or {}).keys()
        counted = {"prompt_tokens", "completion_tokens", "total_tokens", "estimated"}
        assert added == {"cost", "cost_details"} | (counted if own is None else set())
        assert own is None or {name: usage[name] for name in own} == own
        assert RECEIPT.fullmatch(response.headers["x-charge"])


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_without_receipts_nothing_is_added(door: Any, streamed: bool) -> None:
    async with accounts_stack({"default": priced()}, receipts=False) as running:
        team = running.books.team()
        asked = document("default")
        if streamed:
            asked["stream_options"] = {"include_usage": True}

        answer = await running.ask(door, team.key, asked, streamed=streamed)

        assert answer.charge == ""
        assert not {"cost", "cost_details"} & answer.usage.keys()
        assert len(running.books.charges(team)) == 1


@pytest.mark.parametrize("door", DOORS)
async def test_receipts_and_credits_show_the_worth_of_a_credit(door: Any, database: str) -> None:
    worth = CreditWorth(12_345_678, "EUR")
    async with accounts_stack(
        {"default": priced()}, database=database, credit_worth=worth
    ) as running:
        team = running.books.team()
        for streamed in (False, True):
            asked = document("default")
            if streamed:
                asked["stream_options"] = {"include_usage": True}

            answer = await running.ask(door, team.key, asked, streamed=streamed)

            details = answer.usage["cost_details"]
            amount = worth.of(details["nano_credits"]).amount
            assert details["worth"] == {"currency": "EUR", "amount": amount}
            assert answer.charge.endswith(f', worth="{amount} EUR"')
        await running.rests()
        response = await running.web.get("/v1/credits", headers=_bearer(team))
        shown = response.json()
        for name, amount in (
            ("balance", shown["balance_nano_credits"]),
            ("charged", shown["usage"][0]["charged_nano_credits"]),
        ):
            of = shown if name == "balance" else shown["usage"][0]
            assert of[f"{name}_worth"] == {"currency": "EUR", "amount": worth.of(amount).amount}


def _bearer(team: Team) -> dict[str, str]:
    return {"Authorization": f"Bearer {team.key}"}


SH: Final = re.compile(r"```sh\n(curl .*?)```", re.DOTALL)
GRPC: Final = re.compile(r"<!-- grpc receipt -->\n```python\n(.*?)```", re.DOTALL)


async def test_the_commands_of_the_page_print_receipts(tmp_path: Path) -> None:
    whole, streamed = SH.findall(PAGE)
    [program] = GRPC.findall(PAGE)
    async with stack({"default": "vendor/model"}) as running:
        commands = (("sh", "-c", whole), ("sh", "-c", streamed), (sys.executable, "-c", program))
        printed = []
        for command in commands:
            text = command[-1].replace("127.0.0.1:8080", running.bridge.address)
            text = text.replace("127.0.0.1:50051", running.service.address)
            process = await asyncio.create_subprocess_exec(
                *(*command[:-1], text),
                cwd=tmp_path,
                env={**environment(), "CHAT_KEY": KEY},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            async with asyncio.timeout(PATIENCE):
                printed.append((await process.communicate())[0].decode())

    head, _, body = printed[0].partition("\r\n\r\n")
    details = json.loads(body)["usage"]["cost_details"]
    assert f'x-charge: nano-credits=0, prompt=0, completion=0, hold="{details["hold_id"]}"' in head
    assert {*details} == {*json.loads(_example())["usage"]["cost_details"]}
    comment, done = printed[1].split("\n\n")[-3:-1]
    assert RECEIPT.fullmatch(comment.removeprefix(": charge "))
    assert done == "data: [DONE]"
    assert printed[2].startswith("hold_id: ")


def environment() -> dict[str, str]:
    kept = ("PATH", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _example() -> str:
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return f"{{{example}}}"
