"""`--workers N`: several processes on the same ports, and their supervisor.

serve     both ports, every worker; metrics are sums; one store
SIGKILL   of a worker: the others serve, it starts again, no charge is lost
          of the supervisor: its workers drain
SIGTERM   every worker drains
start     exit 1 where an address is taken, 2 where a setting is wrong, each reported once
"""

import asyncio
import http.client
import itertools
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatcompletion.v1 import account_service_pb2
from chatcompletion.v1.account_service_pb2_grpc import AccountServiceStub
from service.ledger.rows import EntryKind
from tests.support.books import books
from tests.support.grpc_client import KEY, Client, client, params
from tests.support.processes import Process, environment, process
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.time_limit(180)

FOREVER: Final = "600"
"""Seconds: only an event ends such a wait within a test."""
TWO: Final = ("--workers", "2")
METRICS: Final = {"CHAT_METRICS_LISTEN": "127.0.0.1:0"}
ADMIN_TOKEN: Final = "admin-token-0123456789"
ADMIN: Final = ("authorization", f"Bearer {ADMIN_TOKEN}")


def standalone(**changes: str) -> dict[str, str]:
    """Return the environment of a bridge and a service in one process."""
    return {
        **environment(),
        "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
        "CHAT_BRIDGE_METRICS_LISTEN": "none",
        "CHAT_BRIDGE_DRAIN_DELAY": "0",
        **changes,
    }


async def serving(running: Process) -> dict[str, Any]:
    """Wait until all workers serve, and return what the supervisor says."""
    return await event(running, "serving", lambda line: "worker" not in line)


async def event(
    running: Process, name: str, matches: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Any]:
    """Wait for a log line, and return it."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        assert running.process.returncode is None, running.lines
        found[:] = filter(matches, running.events(name))
        return bool(found)

    await until(is_there, f"no {name}")
    return found[0]


async def settles(running: Process, number: int, times: int) -> None:
    """Wait until a worker has served so many times, this one included."""

    def served() -> bool:
        lines = running.events("serving")
        return [line.get("worker") for line in lines].count(number) >= times

    await until(served, f"worker {number} does not serve")


def pids(running: Process) -> dict[int, int]:
    """Return the process of each worker that lives, by its number."""
    supervisor = running.process.pid
    found = {}
    for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if "--worker" in command:
            number = command[command.index("--worker") + 1].partition(":")[0]
            found[int(number)] = int(child)
    return found


def mapped(pid: int) -> str:
    """Return which files a process has in its memory."""
    return Path(f"/proc/{pid}/maps").read_text()


_ids = itertools.count()


async def worker_of(running: Process, caller: Client) -> int:
    """Return the number of the worker to which a client is connected."""
    request_id = f"whose-{next(_ids)}"
    short = params("default", max_tokens=1)
    await caller.create(short, metadata=(("x-request-id", request_id),))
    line = await event(running, "call", lambda line: line["request_id"] == request_id)
    return int(line["worker"])


@asynccontextmanager
async def one_of_each(running: Process, address: str) -> AsyncIterator[dict[int, Client]]:
    """Dial until there is a client of each of two workers; yield them by the workers' numbers."""
    found: dict[int, Client] = {}
    async with AsyncExitStack() as stack:
        for _ in range(64):  # each goes to either by chance
            caller = await stack.enter_async_context(client(address))
            found.setdefault(await worker_of(running, caller), caller)
            if len(found) == 2:
                yield found
                return
        raise AssertionError(f"only {found.keys()} were reached")


async def scrape(port: int) -> dict[str, float]:
    """Return the values of all metrics, by name and labels."""

    def read() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(await asyncio.to_thread(read))
        for sample in family.samples
    }


def calls(values: Mapping[str, float]) -> float:
    """Return how many calls there were, by the metrics of a service."""
    names = [name for name in values if name.startswith("gen_ai_server_request_duration_seconds_c")]
    return sum(values[name] for name in names if "_count" in name)


COUNTS: Final = re.compile(r"_(total|count|sum|bucket)(,|$)")


def assert_nothing_went_backwards(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Check that each counter and each histogram is at least what it was."""
    counted = {name: value for name, value in before.items() if COUNTS.search(name)}
    assert counted
    assert {name: after[name] for name in counted if after[name] < counted[name]} == {}


# ---------------------------------------------------------------------------------------- serve


async def test_two_workers_serve_both_ports_with_one_key_and_one_store() -> None:
    async with process("restbridge", standalone(), "--standalone", *TWO) as running:
        told = await serving(running)
        async with one_of_each(running, told["service"]) as callers:
            assert callers.keys() == {1, 2}
        reached: set[int] = set()
        while len(reached) < 2:
            request_id = f"rest-{next(_ids)}"
            headers = {"authorization": f"Bearer {KEY}", "x-request-id": request_id}
            body = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as web:
                url = f"http://{told['address']}{PATH}"
                assert (await web.post(url, json=body, headers=headers)).status_code == 200

            def is_it(line: Mapping[str, Any], request_id: str = request_id) -> bool:
                return bool(line["request_id"] == request_id)

            reached.add((await event(running, "request", is_it))["worker"])
        running.send(signal.SIGINT)
        assert await running.exit_status() == 0
    assert told["workers"] == 2
    # What a person needs is printed once.
    printed = running.output.decode()
    assert [printed.count(word) for word in ("REST ", "API key", "export ", "curl ")] == [1] * 4
    assert f"http://{told['address']}/v1" in printed
    assert told["service"] in printed
    # Lines of workers differ by their number only.
    for line in map(json.loads, running.lines):
        assert line.get("worker") in {None, 1, 2}


async def test_the_supervisor_is_small_and_one_worker_has_none() -> None:
    async with process("service", environment(), *TWO) as running:
        await serving(running)
        maps = mapped(running.process.pid)
        assert [name for name in ("cygrpc", "uvloop", "sqlite") if name in maps] == []
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0
    async with process("service", environment(CHAT_WORKERS="2"), "--workers=1") as running:
        line = await running.event("serving")
        assert "worker" not in line
        assert pids(running) == {}
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0


async def test_the_port_of_operators_is_shared_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    changes = {
        "CHAT_ADMIN_TOKEN": ADMIN_TOKEN,
        "CHAT_ADMIN_LISTEN": address,
        "CHAT_WORKERS": "2",
    }
    request = account_service_pb2.ListAccountsRequest()
    async with process("service", environment(**changes)) as running:
        await serving(running)
        reached: set[int] = set()
        while len(reached) < 2:
            request_id = f"operator-{next(_ids)}"
            options = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                accounts: Any = AccountServiceStub(channel)
                metadata = [ADMIN, ("x-request-id", request_id)]
                listed = await accounts.ListAccounts(request, metadata=metadata, timeout=PATIENCE)
                assert [account.name for account in listed.accounts] == ["bootstrap"]

            def is_it(line: Mapping[str, Any], request_id: str = request_id) -> bool:
                return bool(line["request_id"] == request_id)

            reached.add((await event(running, "call", is_it))["worker"])


# -------------------------------------------------------------------------------------- metrics


async def test_metrics_are_sums_that_never_go_backwards() -> None:
    async with process("service", environment(**METRICS), *TWO) as running:
        told = await serving(running)
        port = told["metrics_port"]
        async with one_of_each(running, told["address"]) as callers:
            already = len(running.events("call"))
            for caller, count in zip(callers.values(), (3, 4), strict=True):
                for _ in range(count):
                    await caller.create("default")
            before = await scrape(port)
            assert calls(before) == already + 7
            assert before["chat_workers"] == 2
            os.kill(pids(running)[1], signal.SIGKILL)
            await event(running, "worker ended", lambda line: line["worker"] == 1)
            between = await scrape(port)
            assert_nothing_went_backwards(before, between)
            await settles(running, 1, 2)
            async with one_of_each(running, told["address"]) as others:
                await others[1].create("default")
                await others[2].create("default")
                after = await scrape(port)
        assert_nothing_went_backwards(between, after)
        assert calls(after) >= calls(before) + 2
        assert after["chat_calls_in_flight,CreateChatCompletion"] == 0
        assert (before["chat_worker_restarts_total"], after["chat_worker_restarts_total"]) == (0, 1)
        await until(lambda: pids(running).keys() == {1, 2})


async def test_a_worker_that_does_not_answer_is_left_out_and_counted() -> None:
    async with process("service", environment(**METRICS), *TWO) as running:
        told = await serving(running)
        async with one_of_each(running, told["address"]):
            before = await scrape(told["metrics_port"])
            silent = pids(running)[2]
            os.kill(silent, signal.SIGSTOP)
            try:
                without = await scrape(told["metrics_port"])
            finally:
                os.kill(silent, signal.SIGCONT)
            assert_nothing_went_backwards(before, without)
            assert without["chat_worker_scrapes_unanswered_total"] == 1
            after = await scrape(told["metrics_port"])
            assert after["chat_worker_scrapes_unanswered_total"] == 1
            assert calls(after) == calls(before)


# ------------------------------------------------------------------------------ a worker crashes


async def test_no_charge_is_lost_when_a_worker_is_killed_under_load(
    database: str, tmp_path: Path
) -> None:
    changes = {
        "CHAT_DATABASE_URL": database,
        "CHAT_JOURNAL_DIRECTORY": str(tmp_path / "journal"),
        "CHAT_BOOTSTRAP_CREDIT": "1000000",
    }
    async with process("service", environment(**changes), *TWO) as running:
        told = await serving(running)
        succeeded, failed = 0, 0
        is_over = False

        async def ask_on() -> None:
            nonlocal succeeded, failed
            async with client(told["address"]) as caller:
                while not is_over:
                    try:
                        await caller.create("default")
                        succeeded += 1
                    except grpc.aio.AioRpcError as error:
                        # The connection to the one that was killed, and the first to dial again.
                        if error.code() != grpc.StatusCode.UNAVAILABLE:
                            raise
                        failed += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(16):
                tasks.create_task(ask_on())
            await until(lambda: succeeded > 50)
            os.kill(pids(running)[1], signal.SIGKILL)
            ended = await event(running, "worker ended", lambda line: line["worker"] == 1)
            killed_at = succeeded
            # The other one serves meanwhile.
            await until(lambda: succeeded > killed_at + 50)
            await settles(running, 1, 2)
            is_over = True
        async with one_of_each(running, told["address"]) as callers:
            assert callers.keys() == {1, 2}
            succeeded += sum(
                line["request_id"].startswith("whose-") for line in running.events("call")
            )
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0
    assert (ended["why"], ended["restart_after"], ended["level"]) == ("SIGKILL", 0.1, "error")
    async with process("service", environment(**changes), "ledger", "verify") as verifying:
        assert await verifying.exit_status() == 0, verifying.lines
    with books(database) as found:
        entries = found.directory.reports.ledger("bootstrap", limit=100_000)
        charged = [entry for entry in entries if entry.kind == EntryKind.SETTLE]
    assert succeeded <= len(charged) <= succeeded + failed


# ----------------------------------------------------------------------------------- the signals


@asynccontextmanager
async def streaming(running: Process, address: str) -> AsyncIterator[list[Awaitable[Any]]]:
    """Begin a stream at each of two workers."""
    async with one_of_each(running, address) as callers:
        streams = []
        for caller in callers.values():
            call = caller.start_stream(params("default", max_tokens=40))
            await call.read()
            streams.append(call)
        yield [_rest(call) for call in streams]


async def _rest(call: Any) -> str:
    """Read the rest of a stream, and return why it finished."""
    reason = ""
    while (response := await call.read()) is not grpc.aio.EOF:
        for choice in response.chunk.choices:
            reason = choice.finish_reason or reason
    assert await call.code() == grpc.StatusCode.OK
    return reason


SLOW: Final = {"CHAT_SIMULATOR_INTER_TOKEN_DELAY": "0.05", "CHAT_DRAIN_GRACE": FOREVER}


@pytest.mark.parametrize(
    ("number", "delay"), [(signal.SIGTERM, "0"), (signal.SIGINT, FOREVER)], ids=["TERM", "INT"]
)
async def test_a_signal_drains_the_stream_of_each_worker(
    number: signal.Signals, delay: str
) -> None:
    changes = {**SLOW, "CHAT_DRAIN_DELAY": delay}
    async with process("service", environment(**changes), *TWO) as running:
        told = await serving(running)
        async with streaming(running, told["address"]) as streams:
            running.send(number)
            assert await asyncio.gather(*streams) == ["length", "length"]
        assert await running.exit_status() == 0
    stopped = [line.get("worker", 0) for line in running.events("stopped")]
    assert (sorted(stopped), stopped[-1]) == ([0, 1, 2], 0)
    assert running.events("worker ended") == []


async def test_a_signal_that_workers_get_too_is_one_signal() -> None:
    changes = {**SLOW, "CHAT_DRAIN_DELAY": "0"}
    async with process("service", environment(**changes), *TWO) as running:
        told = await serving(running)
        async with streaming(running, told["address"]) as streams:
            # As a terminal sends it to a group, and an init system to a unit.
            for pid in (*pids(running).values(), running.process.pid):
                os.kill(pid, signal.SIGTERM)
            assert await asyncio.gather(*streams) == ["length", "length"]
        assert await running.exit_status() == 0


async def test_a_second_signal_ends_every_worker_at_once() -> None:
    changes = {"CHAT_DRAIN_DELAY": FOREVER, "CHAT_DRAIN_GRACE": FOREVER}
    async with process("service", environment(**changes), *TWO) as running:
        await serving(running)
        running.send(signal.SIGTERM)
        for number in (1, 2):
            await event(running, "draining", lambda line, n=number: line.get("worker") == n)  # type: ignore[misc]
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0


async def test_a_worker_that_dies_in_a_drain_stays_dead() -> None:
    changes = {"CHAT_DRAIN_DELAY": FOREVER}
    async with process("service", environment(**changes), *TWO) as running:
        await serving(running)
        running.send(signal.SIGTERM)
        await event(running, "draining", lambda line: line.get("worker") == 2)
        os.kill(pids(running)[2], signal.SIGKILL)
        await until(lambda: pids(running).keys() == {1})
        running.send(signal.SIGTERM)
        # What it had in flight is lost, and is not called a success.
        assert await running.exit_status() == 1
    assert [line.get("worker") for line in running.events("serving")].count(2) == 1


async def test_workers_drain_when_their_supervisor_is_killed() -> None:
    changes = {**SLOW, "CHAT_DRAIN_DELAY": "0"}
    async with process("service", environment(**changes), *TWO) as running:
        told = await serving(running)
        async with streaming(running, told["address"]) as streams:
            running.send(signal.SIGKILL)
            assert await asyncio.gather(*streams) == ["length", "length"]
        # Its standard error ends with the last worker.
        assert await running.exit_status() == -signal.SIGKILL
    assert sorted(line["worker"] for line in running.events("stopped")) == [1, 2]


# ----------------------------------------------------------------------------------------- start


@pytest.mark.parametrize(
    ("changes", "arguments", "name"),
    [
        ({"CHAT_WORKERS": "0"}, (), "CHAT_WORKERS"),
        ({}, ("--workers", "many"), "CHAT_WORKERS"),
        ({"CHAT_REQUEST_TIMEOUT": "canary"}, TWO, "CHAT_REQUEST_TIMEOUT"),
        ({}, (*TWO, "--port"), "python"),
        ({}, ("--workers",), "python"),
    ],
)
async def test_a_wrong_setting_is_reported_once(
    changes: dict[str, str], arguments: tuple[str, ...], name: str
) -> None:
    async with process("service", environment(**changes), *arguments) as running:
        assert await running.exit_status() == 2
    assert [line.split()[0] for line in running.lines] == [name]


@pytest.mark.parametrize("name", ["CHAT_LISTEN", "CHAT_METRICS_LISTEN"])
async def test_a_port_in_use_is_reported_once(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process("service", environment(**{name: address}), *TWO) as running:
            assert await running.exit_status() == 1
    [line] = running.lines
    assert line.startswith(f"{name}: cannot listen on {address}: Address already in use. Port ")


async def test_no_other_service_gets_the_port_of_workers() -> None:
    async with process("service", environment(), *TWO) as running:
        told = await serving(running)
        for arguments in ((), TWO):
            again = environment(CHAT_LISTEN=told["address"])
            async with process("service", again, *arguments) as second:
                assert await second.exit_status() == 1
            # gRPC has its own lines for the one without workers.
            assert second.lines[-1].startswith(f"CHAT_LISTEN: cannot listen on {told['address']}")


async def test_a_start_that_fails_in_a_worker_is_reported_once(tmp_path: Path) -> None:
    changes = {"CHAT_DATABASE_URL": f"sqlite:///{tmp_path}/nowhere/accounts.sqlite3"}
    async with process("service", environment(**changes), "--workers", "4") as running:
        assert await running.exit_status() == 1
    [line] = running.lines
    assert line.startswith("CHAT_DATABASE_URL: ")


async def test_the_bridge_has_workers_too() -> None:
    changes = {"CHAT_BRIDGE_WORKERS": "2", "CHAT_SERVICE_TARGET": "127.0.0.1:1"}
    async with process("restbridge", standalone(**changes)) as running:
        told = await serving(running)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as web:
            assert (await web.get(f"http://{told['address']}/healthz")).status_code == 200
        assert pids(running).keys() == {1, 2}
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0
