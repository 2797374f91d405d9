"""The process that starts workers, starts them again, and stops them.

start   hold the ports -> metrics -> worker 1 until it serves -> the others until they do
run     a worker that ends is started again: `restarts`
stop    signals are passed on -> every worker drains by its settings -> the end of the last one

The first worker is alone: it brings the store's schema up to date, and if it cannot start, one
process reports why. The supervisor then ends with the exit status of that process.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.registry import Collector

from process import log, metrics
from process.lifetime import Signals
from process.settings import Listen
from process.taken_ports import cannot_listen
from process.workers.child import Child, command_of, start
from process.workers.frames import Family
from process.workers.plan import LONGEST_ENDING, Plan, PrepareError
from process.workers.ports import hold
from process.workers.restarts import Restarts
from process.workers.sums import Sums
from process.workers.telemetry import Telemetry

_FAILED: Final = 1


class _StartError(Exception):
    """A worker, or the supervisor itself, cannot start."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


def supervise(plan: Plan) -> int:
    """Run workers until a signal, drain them, and return the exit status.

    A worker runs the command of this process with one more argument.
    """
    return asyncio.run(Supervisor(plan, command_of(sys.orig_argv)).run())


class Supervisor:
    """One supervisor.

    Args:
        plan: What it runs.
        command: The command of a worker, to which its place is added.
    """

    def __init__(self, plan: Plan, command: Sequence[str]) -> None:
        self._plan = plan
        self._command = command
        self._telemetry = Telemetry()
        self._sums = [Sums() for _ in plan.metrics_listens]
        self._children: dict[int, Child] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._environment = dict(plan.environment)
        self._stopping = asyncio.Event()
        self._status = 0
        self._log = logging.getLogger(plan.logger)
        self._telemetry.serving.set_function(
            lambda: sum(child.serves for child in self._children.values())
        )

    async def run(self) -> int:
        """Run the workers until a signal, drain them, and return the exit status."""
        log.report_exceptions(asyncio.get_running_loop())
        signals = Signals()
        async with AsyncExitStack() as stack:
            try:
                ports = self._listen(stack)
                self._environment |= self._prepared()
                await self._start()
            except _StartError as error:
                if str(error):
                    print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
                await self._stop(delay=0)
                return error.status
            self._plan.serving(ports)
            await signals.drain(self._plan.logger, self._stop, self._hurry, self._hang_up)
        return self._status

    def _listen(self, stack: AsyncExitStack) -> Mapping[str, int]:
        """Hold the ports of the workers and serve metrics; return the ports by variable."""
        ports = {}
        for variable, address in self._plan.listens.items():
            with _listening(variable, address):
                held = stack.enter_context(hold(address))
            ports[variable] = held.getsockname()[1]
            self._environment[variable] = str(address.bound(ports[variable]))
        for position, (variable, listen) in enumerate(self._plan.metrics_listens.items()):
            self._environment[variable] = "none"
            if listen is None:
                continue
            workers = _Workers(asyncio.get_running_loop(), partial(self._ask, position))
            registry = self._telemetry.registry(workers)
            with _listening(variable, listen):
                port, close = metrics.serve(listen, registry)
            if port is not None:
                ports[variable] = port
            stack.push_async_callback(asyncio.to_thread, close)
        return ports

    def _prepared(self) -> Mapping[str, str]:
        try:
            return self._plan.prepare()
        except PrepareError as error:
            raise _StartError(_FAILED, str(error)) from error

    # ------------------------------------------------------------------------- start and restart

    async def _start(self) -> None:
        first = await self._spawn(1)
        await self._started(first)
        others = [await self._spawn(number) for number in range(2, self._plan.workers + 1)]
        for child in others:
            await self._started(child)
        self._keepers = [asyncio.create_task(self._keep(child)) for child in (first, *others)]

    async def _started(self, child: Child) -> None:
        """Wait until a worker serves for the first time."""
        if await child.serving():
            return
        status = await child.ended()
        del self._children[child.number]
        if status > 0:
            raise _StartError(status)  # the worker has reported why
        raise _StartError(_FAILED, f"worker {child.number} ended before it served: {_why(status)}")

    async def _spawn(self, number: int) -> Child:
        child = await start(self._command, self._environment, number)
        self._children[number] = child
        if self._stopping.is_set():
            child.send(signal.SIGTERM)
        return child

    async def _keep(self, child: Child) -> None:
        """Start a worker again whenever it ends, until the supervisor stops."""
        restarts = Restarts()
        while True:
            status = await child.ended()
            for sums in self._sums:
                sums.end(child)
            if self._stopping.is_set():
                return
            lived = asyncio.get_running_loop().time() - child.began
            delay = restarts.after(lived)
            self._report("worker ended", child.number, _why(status), delay)
            del self._children[child.number]
            while not await self._stops_within(delay):
                try:
                    child = await self._spawn(child.number)
                    break
                except OSError as error:
                    delay = restarts.after(0)
                    self._report("worker not started", child.number, error.strerror, delay)
            else:
                return
            self._telemetry.restarts.inc()

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    def _report(self, event: str, number: int, why: object, restart_after: float) -> None:
        members = log.fields(worker=number, why=why, restart_after=restart_after)
        self._log.error(event, extra=members)

    # ------------------------------------------------------------------------------------- stop

    async def _stop(self, *, delay: float | None) -> None:
        """Drain all workers, and return when the last one ended."""
        self._stopping.set()
        self._tell(signal.SIGTERM if delay is None else signal.SIGINT)
        self._kill_in(self._plan.longest_drain + LONGEST_ENDING)
        await asyncio.gather(*self._keepers)
        for child in self._children.values():
            status = await child.ended()
            if status:
                ended = log.fields(worker=child.number, why=_why(status))
                self._log.error("worker ended", extra=ended)
                self._status = _FAILED

    def _hurry(self) -> None:
        self._tell(signal.SIGTERM)
        self._kill_in(LONGEST_ENDING)

    async def _hang_up(self) -> None:
        """Pass SIGHUP on: every worker reloads, and reports that."""
        self._tell(signal.SIGHUP)

    def _tell(self, number: signal.Signals) -> None:
        for child in self._children.values():
            child.send(number)

    def _kill_in(self, seconds: float) -> None:
        def kill() -> None:
            for child in self._children.values():
                child.kill()

        asyncio.get_running_loop().call_later(seconds, kill)

    # ---------------------------------------------------------------------------------- metrics

    async def _ask(self, registry: int) -> Sequence[Family]:
        """Return the sums of the metrics of all workers."""
        sums = self._sums[registry]
        asked = [child for child in self._children.values() if child.serves]
        answers = await asyncio.gather(*(child.scrape(registry) for child in asked))
        answered = []
        for child, families in zip(asked, answers, strict=True):
            if families is None:
                self._telemetry.unanswered.inc()
            elif self._children.get(child.number) is child and child.serves:
                sums.take(child, families)
                answered.append(child)
        return sums.total(answered)


class _Workers(Collector):
    """The metrics of all workers, as one registry has them.

    Args:
        loop: The supervisor's.
        ask: Asks the workers.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[], Coroutine[Any, Any, Sequence[Family]]],
    ) -> None:
        self._loop = loop
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """Ask the workers, from a thread."""
        return map(_metric, asyncio.run_coroutine_threadsafe(self._ask(), self._loop).result())


def _metric(family: Family) -> Metric:
    made = Metric(family.name, family.documentation, family.type)
    for sample in family.samples:
        made.add_sample(sample.name, sample.labels, sample.value)
    return made


@contextmanager
def _listening(variable: str, address: Listen) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _StartError(_FAILED, cannot_listen(variable, address, error)) from error


def _why(status: int) -> int | str:
    """Return an exit status, or the name of the signal that ended a process."""
    return status if status >= 0 else signal.Signals(-status).name
