"""The terminal client against the whole stack: through pipes, and on a pseudo-terminal."""

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from typing import Final

import pytest

from service.simulator.text import INTRODUCTION
from tests.support.grpc_client import KEY
from tests.support.pseudo_terminal import CTRL_C, CTRL_D, Terminal, on_terminal
from tests.support.stack import Stack, stack
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

CHAT: Final = (sys.executable, "-m", "chat")
DOORS: Final = pytest.mark.parametrize("door", [(), ("--grpc",)], ids=["rest", "grpc"])
SLOW: Final = "sim:itd=0.01,tokens=100000"
FAULTS: Final = {"limited": "sim-fault:429", "broken": "sim-fault:reset-mid-stream"}
AWAY: Final = "127.0.0.1:1"
"""A port on which nothing listens."""


@pytest.fixture
async def running() -> AsyncIterator[Stack]:
    async with stack({"default": "vendor/model", "slow": SLOW, **FAULTS}) as started:
        yield started


def environment(running: Stack, **changes: str) -> dict[str, str]:
    return {
        "CHAT_KEY": KEY,
        "CHAT_BASE_URL": running.base_url,
        "CHAT_TARGET": running.service.address,
        **changes,
    }


async def chat(
    running: Stack, *arguments: str, given: str = "", **changes: str
) -> tuple[int, str, str]:
    """Run the client with pipes; return its exit status, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(*CHAT, *arguments),
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), **environment(running, **changes)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            printed, complained = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, printed.decode(), complained.decode()


@DOORS
async def test_a_question_is_answered(running: Stack, door: tuple[str, ...]) -> None:
    status, answer, notes = await chat(
        running, *door, "--model", "default", "--system", "Be brief.", "How", "high?"
    )

    assert status == 0, notes
    assert answer.startswith(INTRODUCTION)
    assert answer.endswith("\n")
    assert " tokens · 0 credits\n" in notes
    assert notes.count("\n") == 1
    request = (await running.arrived()).document
    assert request["stream"] is True
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How high?"},
    ]


@DOORS
async def test_piped_input_follows_the_question(running: Stack, door: tuple[str, ...]) -> None:
    status, _, notes = await chat(running, *door, "summarise", given="a file\n")

    assert status == 0, notes
    request = (await running.arrived()).document
    assert request["messages"] == [{"role": "user", "content": "summarise\n\na file\n"}]


@DOORS
async def test_json_is_one_document_on_one_line(running: Stack, door: tuple[str, ...]) -> None:
    status, answer, notes = await chat(running, *door, "--json", "--model=default", "Hello")

    assert (status, notes) == (0, "")
    assert answer.endswith("}\n")
    assert answer.count("\n") == 1
    completion = json.loads(answer)
    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["message"]["content"].startswith(INTRODUCTION)


@DOORS
async def test_an_error_is_one_line(running: Stack, door: tuple[str, ...]) -> None:
    wrong = await chat(running, *door, "--model", "nope", "Hello")
    strange = await chat(running, *door, "Hello", CHAT_KEY="sk-test-wrong")

    for status, answer, notes in (wrong, strange):
        assert (status, answer, notes.count("\n")) == (1, "", 1)
    assert "'nope'" in wrong[2]
    assert wrong[2].endswith(" (parameter model)\n")
    assert "Incorrect API key provided" in strange[2]


@DOORS
async def test_an_error_names_the_time_of_a_retry(running: Stack, door: tuple[str, ...]) -> None:
    status, answer, notes = await chat(running, *door, "--model", "limited", "Hello")

    assert (status, answer) == (1, "")
    assert re.search(r" \(try again in [0-9.]+ s\)\n$", notes), notes


@DOORS
async def test_an_answer_that_breaks_off_is_an_error(running: Stack, door: tuple[str, ...]) -> None:
    status, answer, notes = await chat(running, *door, "--model", "broken", "Hello")

    assert (status, notes.count("\n")) == (1, 1), notes
    assert INTRODUCTION.startswith(answer.rstrip("\n")[:10])
    assert answer.endswith("\n")


@DOORS
async def test_a_server_that_is_down_has_a_status_of_its_own(
    running: Stack, door: tuple[str, ...]
) -> None:
    away = {"CHAT_BASE_URL": f"http://{AWAY}/v1", "CHAT_TARGET": AWAY}

    status, answer, notes = await chat(running, *door, "Hello", **away)

    assert (status, answer, notes.count("\n")) == (3, "", 1)
    assert f"Cannot reach {'' if door else 'http://'}{AWAY}" in notes


@pytest.mark.parametrize(
    ("arguments", "changes", "error"),
    [
        (("--modle", "x", "Hello"), {}, "did you mean '--model'?"),
        (("Hello",), {"CHAT_KEY": ""}, "export CHAT_KEY=YOUR_KEY"),
        (("Hello",), {"CHAT_BASE_URL": "localhost"}, "expected http://HOST:PORT/v1"),
        ((), {}, "there is no question"),
        (("\udcff",), {}, "must be UTF-8"),
    ],
)
async def test_a_wrong_argument_has_the_status_2(
    running: Stack, arguments: tuple[str, ...], changes: dict[str, str], error: str
) -> None:
    status, answer, notes = await chat(running, *arguments, **changes)

    assert (status, answer, notes.count("\n")) == (2, "", 1)
    assert error in notes


async def _leaves(terminal: Terminal, key: str) -> None:
    await terminal.shows("> ")
    terminal.types(key)
    assert await terminal.exit_status() == 0


@DOORS
async def test_a_conversation_on_a_terminal(running: Stack, door: tuple[str, ...]) -> None:
    command = (*CHAT, *door, "--model", "slow")
    async with on_terminal(command, environment(running), str(ROOT)) as terminal:
        await terminal.shows("> ")
        terminal.types("Hello\r")
        await terminal.shows(INTRODUCTION)
        first = await running.arrived()
        terminal.types(CTRL_C)
        await terminal.shows("stopped")
        await asyncio.wait_for(first.ended.wait(), PATIENCE)
        assert first.outcome == "caller_left"
        await terminal.shows("> ")
        terminal.types("And then?\r")
        await terminal.shows(INTRODUCTION)
        messages = (await running.arrived()).document["messages"]
        terminal.types(CTRL_C)
        await terminal.shows("stopped")
        await _leaves(terminal, CTRL_C)

    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"].startswith(INTRODUCTION)


async def test_an_error_does_not_end_a_conversation(running: Stack) -> None:
    command = (*CHAT, "--model", "nope")
    async with on_terminal(command, environment(running, NO_COLOR="1"), str(ROOT)) as terminal:
        await terminal.shows("> ")
        terminal.types("Hello\r")
        await terminal.shows("The model 'nope'")
        await _leaves(terminal, CTRL_D)

    # Movements of the cursor are left, but no colours and no dimmed lines.
    assert re.findall(r"\x1b\[[0-9;]*[1-9]m", terminal.output) == []


@DOORS
async def test_ctrl_c_ends_a_lone_answer(running: Stack, door: tuple[str, ...]) -> None:
    command = (*CHAT, *door, "--model", "slow", "Hello")
    async with on_terminal(command, environment(running), str(ROOT)) as terminal:
        await terminal.shows(INTRODUCTION)
        terminal.types(CTRL_C)
        assert await terminal.exit_status() == 130

    assert "Traceback" not in terminal.output
    record = await running.arrived()
    await asyncio.wait_for(record.ended.wait(), PATIENCE)
    assert record.outcome == "caller_left"


@DOORS
async def test_an_answer_ends_when_its_reader_leaves(running: Stack, door: tuple[str, ...]) -> None:
    command = shlex.join((*CHAT, *door, "--model", "slow", "Hello"))
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"{{ {command}; echo $? >&2; }} </dev/null | head -c 1"),
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), **environment(running)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        answer, notes = await process.communicate()

    assert (answer, notes) == (INTRODUCTION[:1].encode(), b"141\n")
    record = await running.arrived()
    await asyncio.wait_for(record.ended.wait(), PATIENCE)
    assert record.outcome == "caller_left"
