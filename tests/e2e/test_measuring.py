"""`python -m service models measure`, and the holds of a model with its results."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

import pytest

from service.models_document import catalogue
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS, document
from tests.support.priced_models import cost, priced
from tests.support.processes import process
from tests.support.tree import ROOT

TEMPLATE: Final = 21
MESSAGE: Final = 6
LETTER: Final = 1
"""The tokens of a made-up template, and of the content of a measured message."""

Answer = Callable[[Mapping[str, Any]], tuple[str, Any]]


def regular(asked: Mapping[str, Any]) -> tuple[str, Any]:
    tokens = TEMPLATE + sum(MESSAGE + len(each["content"]) for each in asked["messages"])
    return "200 OK", {"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": 1}}


def without_system(asked: Mapping[str, Any]) -> tuple[str, Any]:
    has_system = any(each["role"] == "system" for each in asked["messages"])
    return ("400 Bad Request", {}) if has_system else regular(asked)


@asynccontextmanager
async def upstream(answer: Answer) -> AsyncIterator[tuple[str, list[Any]]]:
    """Run a server; yield its base URL and the requests that it got."""
    requests: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        asked = json.loads(await reader.readexactly(size))
        requests.append((head, asked))
        status, found = answer(asked)
        body = json.dumps(found).encode()
        start = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(start.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", requests


async def measure(url: str, *names: str, **variables: str) -> tuple[int, str]:
    settings = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
        "CHAT_UPSTREAM_BASE_URL": url,
        "CHAT_UPSTREAM_MODEL": "vendor/model",
        **variables,
    }
    async with process("service", settings, "models", "measure", *names) as running:
        status = await running.exit_status()
    assert running.lines == []
    return status, running.output.decode()


async def test_a_template_is_measured_and_its_numbers_are_a_models_file() -> None:
    async with upstream(regular) as (url, requests):
        status, printed = await measure(url, CHAT_UPSTREAM_API_KEY="sk-canary")

    assert status == 0
    line, table = printed.split("\n\n")
    # The letter counts for the message.
    assert line == (
        f"ok   model default at upstream default: {TEMPLATE} tokens for the prompt, "
        f"{MESSAGE + LETTER} for each message"
    )
    assert tomllib.loads(table) == {
        "models": {
            "default": {"template_tokens": TEMPLATE + 32, "message_tokens": MESSAGE + LETTER + 4}
        }
    }
    assert len(requests) == 5
    for head, asked in requests:
        assert head.startswith("post /v1/chat/completions http/1.1\r\n")
        assert "authorization: bearer sk-canary\r\n" in head
        assert (asked["model"], asked["max_tokens"]) == ("vendor/model", 1)


async def test_a_template_without_a_system_message_is_measured_without_it() -> None:
    async with upstream(without_system) as (url, _):
        status, printed = await measure(url, "default")

    assert status == 0
    assert f"{TEMPLATE} tokens for the prompt, {MESSAGE + LETTER} for each message" in printed


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _: ("500 Internal Server Error", {}), "returned HTTP 500"),
        (lambda _: ("200 OK", {"choices": []}), "it reports no usage.prompt_tokens"),
        (lambda _: ("200 OK", {"usage": {"prompt_tokens": 0}}), "reports no usage.prompt_tokens"),
        (lambda _: ("200 OK", {"usage": {"prompt_tokens": True}}), "reports no usage.prompt_tok"),
        (lambda _: ("200 OK", []), "it reports no usage.prompt_tokens"),
    ],
    ids=["500", "no usage", "zero", "boolean", "array"],
)
async def test_what_cannot_be_measured_has_no_numbers(answer: Answer, told: str) -> None:
    async with upstream(answer) as (url, _):
        status, printed = await measure(url)

    assert status == 1
    assert printed.startswith("FAIL model default at upstream default: ")
    assert told in printed
    assert "template_tokens" not in printed


async def test_a_model_that_does_not_exist_and_the_simulator_are_not_measured() -> None:
    status, printed = await measure("simulator", "other", "default")

    assert status == 1
    assert printed.splitlines() == [
        "FAIL model other: there is no such model. The models are default",
        "FAIL model default at upstream default: the built-in simulator has no template",
    ]
    assert (await measure("nowhere"))[0] == 2


@pytest.mark.parametrize("door", DOORS)
async def test_a_measured_model_holds_less_and_charges_the_same(door: Any, database: str) -> None:
    models = {"default": priced(), "own": priced(template_tokens=30, message_tokens=6)}
    async with accounts_stack(models, database=database) as running:
        found: dict[str, str] = {}
        for model in models:
            team = running.books.team(credit=cost(100, 8))
            asked = document(model, max_tokens=8)
            asked["messages"] = [{"role": "user", "content": "hi"}]

            answer = await running.ask(door, team.key, asked, streamed=False)

            found[model] = answer.code
            await running.rests()
        assert found == {"default": "insufficient_credits", "own": ""}
        [charge] = running.books.charges(team)
        assert charge.amount == cost(charge.prompt, charge.completion) > 0
        running.books.nothing_is_open()


@pytest.mark.parametrize("door", DOORS)
async def test_usage_above_a_hold_that_was_measured_wrong_is_charged_as_the_hold(
    door: Any, database: str
) -> None:
    entry = priced(upstream_model="laid", template_tokens=1, message_tokens=1)
    usage = {"prompt_tokens": 500, "completion_tokens": 1, "total_tokens": 501}
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "laid"}
    whole |= {"choices": [choice], "usage": usage}
    async with accounts_stack({"default": entry}, database=database) as running:
        running.upstream.reply_with("laid", body=json.dumps(whole).encode())
        team = running.books.team()

        answer = await running.ask(
            door, team.key, document("default", max_tokens=1), streamed=False
        )

        assert answer.code == ""
        await running.rests()
        [charge] = running.books.charges(team)
        assert (charge.prompt, charge.amount < cost(500, 1)) == (500, True)
        running.books.nothing_is_open()


def test_the_page_has_the_members() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.partition("<!-- measured -->\n```toml\n")[2].partition("```")[0]
    text = f'[upstreams.local]\nbase_url = "http://127.0.0.1:1"\n{table}'
    model = catalogue(tomllib.loads(text, parse_float=Decimal), {}).get("default")
    assert model is not None
    assert (model.template_tokens, model.message_tokens) == (41, 9)
