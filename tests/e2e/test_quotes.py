"""Quotes, on each door and store: what a completion would hold, and what would reject it.

a quote            -> the same failure, code and message as the completion that follows
many quotes        -> nothing held, nothing charged, no limit used
docs/quote.md      -> its commands
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import grpc
import pytest
import sqlalchemy as sa
from msgspec import to_builtins

from chatcompletion.v1.chat_completion_service_pb2 import QuoteChatCompletionRequest
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from restbridge.quote_route import document as as_document
from service.credit_worth import CreditWorth
from service.ledger import budgets
from service.ledger.budgets import Window
from service.ledger.schema import accounts, api_keys
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, DoorName, document, params
from tests.support.grpc_client import KEY, failed
from tests.support.priced_models import CREDIT, cost
from tests.support.stack import stack
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

PAGE: Final = (ROOT / "docs" / "quote.md").read_text(encoding="utf-8")
PATH: Final = "/v1/chat/completions/quote"


async def quote(running: AccountsStack, door: DoorName, key: str, asked: Mapping[str, Any]) -> Any:
    """Return the document of a quote, or the code of its failure."""
    if door == "grpc":
        stub = ChatCompletionServiceStub(running.channel)
        metadata = (("authorization", f"Bearer {key}"),)
        request = QuoteChatCompletionRequest(params=params(asked))
        try:
            return as_document(
                await stub.QuoteChatCompletion(request, metadata=metadata, timeout=PATIENCE)
            )
        except grpc.aio.AioRpcError as error:
            return failed(error).error.code_text
    web = running.web if door == "rest" else running.inside
    response = await web.post(PATH, json=asked, headers={"authorization": f"Bearer {key}"})
    found = response.json()
    if response.status_code != 200:
        return found["error"]["code"]
    assert response.headers["cache-control"] == "no-store"
    assert "x-charge" not in response.headers
    return found


@pytest.mark.parametrize("door", DOORS)
async def test_a_quote_is_what_the_completion_holds(door: DoorName, database: str) -> None:
    async with accounts_stack(database=database) as running:
        team = running.books.team()
        asked = document("default", max_tokens=40, n=2)
        quoted = await quote(running, door, team.key, asked)

        assert quoted["object"] == "chat.completion.quote"
        assert (quoted["model"], quoted["rejection"]) == ("default", None)
        assert quoted["completion_tokens"] == 80
        assert quoted["hold_nano_credits"] == cost(quoted["prompt_tokens"], 80)
        assert quoted["available_nano_credits"] == CREDIT
        assert "hold_worth" not in quoted
        for less, code in ((0, ""), (1, "insufficient_credits")):
            poor = running.books.team(credit=quoted["hold_nano_credits"] - less)
            assert (await running.ask(door, poor.key, asked)).code == code
        await running.rests()
        running.books.nothing_is_open()


@pytest.mark.parametrize("door", DOORS)
async def test_quotes_use_and_change_nothing(door: DoorName, database: str) -> None:
    async with accounts_stack(database=database) as running:
        limits = {"requests_per_minute": 1, "tokens_per_minute": 2000, "concurrency": 1}
        team = running.books.team(**limits)
        asked = document("default", max_tokens=10)
        quotes = await asyncio.gather(*(quote(running, door, team.key, asked) for _ in range(20)))

        assert all(each == quotes[0] for each in quotes)
        assert running.books.charges(team) == []
        assert running.books.balance(team) == CREDIT
        assert (await running.ask(door, team.key, asked)).code == ""
        await running.rests()
        running.books.nothing_is_open()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "case",
    [
        ({}, 1000, 0, "account", "balance", False),
        ({"requests_per_minute": 1}, CREDIT, 1, "api_key", "requests_per_minute", True),
        ({"tokens_per_minute": 100}, CREDIT, 0, "api_key", "tokens_per_minute", False),
        ({"models": ["other"]}, CREDIT, 0, "api_key", "models", False),
    ],
    ids=["balance", "requests", "tokens", "models"],
)
async def test_a_rejection_is_the_failure_of_the_completion(
    door: DoorName, case: tuple[dict[str, Any], int, int, str, str, bool], database: str
) -> None:
    limits, credit, calls, scope, limit, waits = case
    async with accounts_stack(database=database) as running:
        team = running.books.team(credit=credit, **limits)
        asked = document("default", max_tokens=10)
        for _ in range(calls):
            assert (await running.ask(door, team.key, asked)).code == ""
        await running.rests()
        quoted = (await quote(running, door, team.key, asked))["rejection"]
        answer = await running.ask(door, team.key, asked)

        assert (quoted["scope"], quoted["limit"], quoted["code"]) == (scope, limit, answer.code)
        timeless = re.compile(r"[0-9.]+s\.$")
        assert timeless.sub("", quoted["message"]) == timeless.sub("", answer.message)
        if waits:
            assert time.time() < quoted["retry_at"] <= time.time() + 62
        else:
            assert quoted["retry_at"] is None


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("of_key", [True, False])
async def test_a_spent_budget_is_quoted_with_its_reset(
    door: DoorName, of_key: bool, database: str
) -> None:
    async with accounts_stack(database=database) as running:
        team = running.books.team()
        window = Window.DAY if of_key else Window.TOTAL
        own = budgets.put(None, window, 1000, "UTC", time.time_ns())
        table, id_ = (api_keys, team.key_id) if of_key else (accounts, team.account_id)
        changed = sa.update(table).where(table.c.id == id_).values(budgets=to_builtins(own))
        with running.books.store.writing() as connection:
            connection.execute(changed)
        asked = document("default", max_tokens=10)
        quoted = await quote(running, door, team.key, asked)
        answer = await running.ask(door, team.key, asked)

        found = quoted["rejection"]
        assert (found["code"], found["message"]) == (answer.code, answer.message)
        assert found["code"] == "budget_exceeded"
        assert (found["scope"], found["limit"]) == (
            ("api_key", "budget_day") if of_key else ("account", "budget_total")
        )
        end = own.of[0].end
        assert found["retry_at"] == (end and end // 10**9)
        assert quoted["available_nano_credits"] == CREDIT
        assert quoted["largest_max_tokens"] is None


@pytest.mark.parametrize("door", DOORS)
async def test_the_largest_max_tokens_is_admitted_and_one_more_is_not(
    door: DoorName, database: str
) -> None:
    async with accounts_stack(database=database) as running:
        team = running.books.team(credit=cost(700, 123))
        asked = document("default", max_tokens=100_000)
        quoted = await quote(running, door, team.key, asked)
        largest = quoted["largest_max_tokens"]

        assert quoted["rejection"]["code"] == "insufficient_credits"
        assert f"to at most {largest}" in quoted["rejection"]["message"]
        for more, code in ((1, "insufficient_credits"), (0, "")):
            request = document("default", max_tokens=largest + more)
            assert (await quote(running, door, team.key, request))["largest_max_tokens"] == largest
            assert (await running.ask(door, team.key, request)).code == code
        nothing = running.books.team(credit=0)
        assert (await quote(running, door, nothing.key, asked))["largest_max_tokens"] is None


@pytest.mark.parametrize("door", DOORS)
async def test_a_quote_fails_as_the_completion_does(door: DoorName, database: str) -> None:
    async with accounts_stack(database=database) as running:
        team = running.books.team()
        directory = running.books.directory
        for asked, code in (
            (document("nothing"), "model_not_found"),
            (document("default", max_tokens=0), "number_out_of_range"),
            (document("default", max_tokens=100_001), "number_out_of_range"),
            (document("default", stream_options={"include_usage": True}), ""),
        ):
            found = await quote(running, door, team.key, asked)
            completion = await running.ask(door, team.key, asked)
            assert found == completion.code != ""
            assert code in {"", found}
        streamed = document("default", stream=True, stream_options={"include_usage": True})
        assert (await quote(running, door, team.key, streamed))["rejection"] is None
        assert await quote(running, door, "sk-live-unknown", document("default")) == (
            "invalid_api_key"
        )
        directory.lifecycle.suspend_key(team.name, team.key_name)
        assert await quote(running, door, team.key, document("default")) == "suspended"


async def test_a_quote_has_the_worth_of_its_hold(database: str) -> None:
    worth = CreditWorth(10_000_000, "EUR")
    async with accounts_stack(database=database, credit_worth=worth) as running:
        for door in DOORS:
            quoted = await quote(running, door, running.books.team().key, document("default"))
            amount = worth.of(quoted["hold_nano_credits"]).amount
            assert quoted["hold_worth"] == {"currency": "EUR", "amount": amount}


async def test_a_free_model_is_quoted_too(database: str) -> None:
    free = {"upstream_model": "sim:tokens=8", "maximum_output_tokens": 50}
    async with accounts_stack({"default": free}, database=database) as running:
        quoted = await quote(running, "rest", running.books.team(credit=0).key, document("default"))

        assert (quoted["hold"], quoted["rejection"]) == ("0", None)
        assert quoted["largest_max_tokens"] == 50


async def test_the_commands_of_the_page_show_what_it_shows(tmp_path: Any) -> None:
    commands = re.findall(r"```sh\n(curl .*?)```", PAGE, re.DOTALL)
    [shown] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    async with stack({"default": "vendor/model"}) as running:
        for command in commands:
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", command.replace("127.0.0.1:8080", running.bridge.address)),
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "CHAT_KEY": KEY},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            async with asyncio.timeout(PATIENCE):
                printed, _ = await process.communicate()
            found = json.loads(printed)
            assert found["object"] == "chat.completion.quote"
            assert {*found} == {*json.loads(shown)}


async def test_the_program_of_the_page_prints_the_hold(tmp_path: Any) -> None:
    [program] = re.findall(r"<!-- grpc quote -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [client] = re.findall(r"<!-- grpc client -->\n```python\n(.*?)```", readme, re.DOTALL)
    begun, _, _ = client.partition("    request = ")
    program = begun + "".join(f"    {line}\n" for line in program.splitlines())
    async with stack({"default": "vendor/model"}) as running:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program.replace("127.0.0.1:50051", running.service.address)),
            cwd=tmp_path,
            env={"CHAT_KEY": KEY, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            printed, wrong = await process.communicate()

    assert (printed, wrong) == (b"costs at most 0 nano-credits\n", b"")
