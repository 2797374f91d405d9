"""SIGHUP reads the models file again, and never ends a process.

a good file      the models are the new ones; calls in flight end with the old ones
a bad file       the log has every error; the models stay
with workers     the supervisor passes the signal on
bridge           nothing to reload
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chatcompletion.v1.model_service_pb2 import ListModelsRequest
from tests.support.grpc_client import Client, client
from tests.support.processes import Process, environment, process, service_process
from tests.support.waiting import until

UPSTREAM = "[upstreams.u]\nsimulator = true\n"
ENTRY = """[models."{name}"]
upstream = "u"
upstream_model = "{at}"
default_output_tokens = 1000
maximum_output_tokens = 1000000
"""


def document(**models: str) -> str:
    """Return a models file with the upstream's name of each model."""
    return UPSTREAM + "".join(ENTRY.format(name=name, at=at) for name, at in models.items())


async def listed(caller: Client) -> list[str]:
    """Return the names of the models, as callers see them."""
    answer = await caller.models.ListModels(ListModelsRequest(), metadata=caller.metadata)
    return [model.id for model in answer.data]


async def logged(running: Process, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for a log line and return it."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        assert running.process.returncode is None, running.lines
        found[:] = [line for line in running.every_event() if matches(line)]
        return bool(found)

    await until(is_there, "the line is not logged")
    return found[0]


def _has_errors(running: Process, count: int) -> bool:
    return len(running.events("models not reloaded")) == count


def _is_reloaded(worker: int, line: dict[str, Any]) -> bool:
    return (line["event"], line.get("worker")) == ("models reloaded", worker)


async def test_a_service_has_the_new_models(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(document(old="sim:itd=0.02,tokens=40"))
    async with service_process(CHAT_MODELS_FILE=str(file)) as (running, caller):
        call = caller.start_stream("old")
        await call.read()
        file.write_text(document(new="x", **{"local/*": "*"}))
        running.send(signal.SIGHUP)
        line = await running.event("models reloaded")
        assert [text.partition(" ->")[0] for text in line["models"]] == ["new", "local/*"]
        assert await listed(caller) == ["new", "local/*"]
        assert (await caller.refusal("old")).reason == "MODEL_NOT_FOUND"
        assert (await caller.create("new")).choices
        assert (await caller.create("local/llama")).model == "local/llama"
        call.cancel()
        # The call in flight began with the old model, and is logged under its name.
        ended = await logged(running, lambda line: line.get("method") == "StreamChatCompletion")
        assert ended["model"] == "old"
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0


async def test_a_bad_file_changes_nothing_and_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(document(old="x"))
    async with service_process(CHAT_MODELS_FILE=str(file)) as (running, caller):
        bad = document(new="x") + "price = 7\n[models.other]\nupstream = 'nope'\n"
        for number, text in enumerate((bad, "no [toml", None), 1):
            file.unlink()
            if text is not None:
                file.write_text(text)
            running.send(signal.SIGHUP)
            await until(
                partial(_has_errors, running, number),
                "the error is not logged",
            )
            assert await listed(caller) == ["old"]
        many, no_toml, absent = running.events("models not reloaded")
        assert many["level"] == "error"
        assert len(many["errors"]) >= 2
        assert any("models.new.price" in error for error in many["errors"])
        assert "is not TOML" in no_toml["errors"][0]
        assert "No such file" in absent["errors"][0]
        file.write_text(document(newer="x"))
        running.send(signal.SIGHUP)
        await running.event("models reloaded")
        assert await listed(caller) == ["newer"]


async def test_without_a_file_there_is_nothing_to_reload() -> None:
    async with service_process() as (running, caller):
        running.send(signal.SIGHUP)
        assert "CHAT_MODELS_FILE" in (await running.event("nothing to reload"))["hint"]
        await caller.create("default")


@pytest.mark.parametrize("module", ["service", "restbridge"])
async def test_workers_reload_too(module: str, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(document(old="x"))
    variables = environment(
        CHAT_MODELS_FILE=str(file),
        CHAT_BRIDGE_LISTEN="127.0.0.1:0",
        CHAT_BRIDGE_METRICS_LISTEN="none",
    )
    more = ("--standalone",) if module == "restbridge" else ()
    async with process(module, variables, *more, "--workers", "2") as running:
        serving = await logged(
            running, lambda line: line["event"] == "serving" and "worker" not in line
        )
        file.write_text(document(new="x"))
        running.send(signal.SIGHUP)
        for number in (1, 2):
            await logged(running, partial(_is_reloaded, number))
        address = serving["service" if module == "restbridge" else "address"]
        async with client(address) as caller:
            assert await listed(caller) == ["new"]
        running.send(signal.SIGINT)
        assert await running.exit_status() == 0


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
async def test_a_bridge_has_nothing_to_reload(arguments: tuple[str, ...]) -> None:
    variables = {
        "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
        "CHAT_BRIDGE_METRICS_LISTEN": "none",
        "CHAT_BRIDGE_DRAIN_DELAY": "0",
    }
    async with process("restbridge", variables, *arguments) as running:
        await logged(running, lambda line: line["event"] == "serving" and "worker" not in line)
        running.send(signal.SIGHUP)
        await running.event("nothing to reload")
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0
