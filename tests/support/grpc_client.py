"""What the tests over sockets run, each an async context manager that leaves nothing behind.

simulator(...)                          the upstream, on a free port
service({name: upstream model}, ...)    a server in this process, and a client of it
process("service", {...})               `python -m service`, from "serving" to its exit status

async with simulator() as upstream, service(["any"], upstream) as running:
    completion = await running.client.create("any")
    streamed = await running.client.collect("any")     chunks, and the failure if there was one
    failure = await running.client.refusal("sim-fault:500")     Failed(code, reason, ...)
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chatcompletion import openai_json
from chatcompletion.process import settings as process_settings
from chatcompletion.v1 import error_pb2
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
    StreamChatCompletionResponse,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from chatcompletion.v1.model_service_pb2_grpc import ModelServiceStub
from service.config import Settings
from service.ledger.store import TIMEOUTS, Timeouts
from service.models import Catalogue, catalogue
from service.server import Server
from service.simulator import SimulatorConfig, SimulatorServer

KEY: Final = "sk-test-0123456789abcdef"
"""The key that `service` accepts, and that `Client` shows."""
UPSTREAM_KEY: Final = "sk-upstream-fedcba9876543210"
"""The key that `service` shows to its upstream."""
PATIENCE: Final = 20.0
"""Seconds after which a test has failed rather than waits on."""
ROOT: Final = Path(__file__).parents[2]
"""Where `python -m` finds the deployables."""

Metadata = Sequence[tuple[str, str | bytes]]

_DETAILS: Final[tuple[type[Message], ...]] = (
    error_pb2.ErrorDetail,
    error_details_pb2.BadRequest,
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
)


# --------------------------------------------------------------------------------- what came back


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The status of a call that failed; members are empty where the status does not tell them."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    http_status: int = 0
    retryable: bool = False
    error: error_pb2.ApiError = field(default_factory=error_pb2.ApiError)
    """The OpenAI error object."""
    violations: tuple[str, ...] = ()
    """Of google.rpc.BadRequest: the paths."""
    retry_delay: float | None = None
    """Of google.rpc.RetryInfo: seconds."""
    trailers: Mapping[str, str | bytes] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the trailer tells clients and meshes not to retry by themselves."""
        return self.trailers.get("grpc-retry-pushback-ms") == "-1"


def failed(error: grpc.aio.AioRpcError) -> Failed:
    """Read what a failed call says of itself."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status()
    packed = trailers.get("grpc-status-details-bin", b"")
    status.ParseFromString(packed if isinstance(packed, bytes) else packed.encode())
    found: dict[type[Message], Any] = {kind: kind() for kind in _DETAILS}
    for detail in status.details:
        for kind, message in found.items():
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(message)
    info = found[error_details_pb2.ErrorInfo]
    retry = found[error_details_pb2.RetryInfo]
    return Failed(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        http_status=found[error_pb2.ErrorDetail].http_status,
        retryable=info.metadata.get("retryable") == "true",
        error=found[error_pb2.ErrorDetail].error,
        violations=tuple(v.field for v in found[error_details_pb2.BadRequest].field_violations),
        retry_delay=(
            retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None
        ),
        trailers=trailers,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """A streamed call that ended."""

    chunks: tuple[ChatCompletionChunk, ...]
    failure: Failed | None
    """None is success."""
    initial_metadata: Mapping[str, str | bytes]

    @property
    def text(self) -> str:
        """The content of choice 0."""
        return "".join(
            choice.delta.content_text
            for chunk in self.chunks
            for choice in chunk.choices
            if choice.index == 0
        )


# ------------------------------------------------------------------------------------- the client


def params(model: str, **members: Any) -> ChatCompletionParams:
    """Make the parameters of a call from members of OpenAI's JSON; one user message by default."""
    document = {"model": model, "messages": [{"role": "user", "content": "hi"}], **members}
    return openai_json.decode_request(json.dumps(document).encode())


Request = str | ChatCompletionParams
"""The name of a model, or all parameters."""


class Client:
    """A caller with a key. Deadlines are seconds from now; None sets none.

    Args:
        channel: To a service.
        key: The key it shows; None shows none.
    """

    def __init__(self, channel: grpc.aio.Channel, key: str | None = KEY) -> None:
        self.channel = channel
        self.metadata: Metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        self.chat = ChatCompletionServiceStub(channel)
        self.models = ModelServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)  # its types have no methods

    def start_create(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        """Begin a unary call."""
        return self.chat.CreateChatCompletion(
            CreateChatCompletionRequest(params=_params(request)),
            timeout=deadline,
            metadata=(*self.metadata, *metadata),
        )

    def start_stream(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> grpc.aio.UnaryStreamCall[Any, StreamChatCompletionResponse]:
        """Begin a streamed call."""
        return self.chat.StreamChatCompletion(
            StreamChatCompletionRequest(params=_params(request)),
            timeout=deadline,
            metadata=(*self.metadata, *metadata),
        )

    async def create(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> ChatCompletion:
        """Return the whole completion.

        Raises:
            grpc.aio.AioRpcError: the call failed.
        """
        response = await self.start_create(request, deadline=deadline, metadata=metadata)
        completion: ChatCompletion = response.completion
        return completion

    async def collect(
        self, request: Request, *, deadline: float | None = PATIENCE, metadata: Metadata = ()
    ) -> Streamed:
        """Read a stream to its end, whatever that is."""
        call = self.start_stream(request, deadline=deadline, metadata=metadata)
        chunks: list[ChatCompletionChunk] = []
        failure: Failed | None = None
        try:
            async for response in call:
                chunks.append(response.chunk)  # noqa: PERF401  (kept when the call fails)
        except grpc.aio.AioRpcError as error:
            failure = failed(error)
        return Streamed(
            chunks=tuple(chunks),
            failure=failure,
            initial_metadata=dict(await call.initial_metadata() or ()),
        )

    async def refusal(
        self,
        request: Request,
        *,
        streamed: bool = False,
        deadline: float | None = PATIENCE,
        metadata: Metadata = (),
    ) -> Failed:
        """Return how a call fails, which must not succeed and, streamed, give no chunk."""
        if streamed:
            result = await self.collect(request, deadline=deadline, metadata=metadata)
            assert result.failure is not None
            assert result.chunks == ()
            return result.failure
        try:
            await self.create(request, deadline=deadline, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return failed(error)
        raise AssertionError("the call succeeded")


def _params(request: Request) -> ChatCompletionParams:
    return params(request) if isinstance(request, str) else request


@asynccontextmanager
async def client(
    address: str, *, key: str | None = KEY, options: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[Client]:
    """Dial a service and hang up at the end.

    The channel has a connection of its own: a process shares one between equal channels otherwise.
    """
    usual = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    async with grpc.aio.insecure_channel(address, options=(*usual, *options)) as channel:
        yield Client(channel, key)


# ------------------------------------------------------------------------------ in this process


@asynccontextmanager
async def simulator(**config: Any) -> AsyncIterator[SimulatorServer]:
    """Run an upstream on a free port; the arguments are those of `SimulatorConfig`."""
    async with await SimulatorServer.start(SimulatorConfig(**config)) as server:
        yield server


def models(
    names: Mapping[str, str] | Iterable[str],
    upstream: SimulatorServer | str,
    *,
    key: str = UPSTREAM_KEY,
    maximum_output_tokens: int = 1_000_000,
) -> Catalogue:
    """Make a catalogue.

    Args:
        names: The upstream's model for each public name, or names that are alike at both.
        upstream: A simulator, or a base URL up to and without `/v1`.
        key: What the upstream is shown; "" for none.
        maximum_output_tokens: Of each model.
    """
    pairs = names if isinstance(names, Mapping) else {name: name for name in names}
    base_url = upstream if isinstance(upstream, str) else upstream.base_url
    entry = {
        "upstream": "upstream",
        "default_output_tokens": 1024,
        "maximum_output_tokens": maximum_output_tokens,
    }
    return catalogue(
        {
            "upstreams": {"upstream": {"base_url": base_url, "api_key_variable": "KEY"}},
            "models": {name: {**entry, "upstream_model": at} for name, at in pairs.items()},
        },
        {"KEY": key},
    )


def settings(**changes: Any) -> Settings:
    """Make settings for tests: a free local port, no metrics port, no delay in a drain."""
    usual = process_settings.read(
        Settings,
        {
            "CHAT_LISTEN": "127.0.0.1:0",
            "CHAT_ADMIN_LISTEN": "127.0.0.1:0",
            "CHAT_METRICS_LISTEN": "none",
            "CHAT_BOOTSTRAP_API_KEY": KEY,
            "CHAT_DRAIN_DELAY": "0",
            "CHAT_DRAIN_GRACE": "0",
        },
    )
    return replace(usual, **changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A service in this process, and a client of it."""

    server: Server
    client: Client

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return self.server.address

    @property
    def calls_in_flight(self) -> int:
        """Calls of the contract that run."""
        return len(self.server._calls)

    async def rests(self) -> None:
        """Wait until no call runs; a caller knows the end of his a moment before the server.

        Raises:
            AssertionError: one does after `PATIENCE`, or a stream is counted as open.
        """
        await until(lambda: self.calls_in_flight == 0, "a call still runs")
        assert self.metric("chat_upstream_streams_open") == 0

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the metrics, 0 where there is none yet."""
        return self.server._telemetry.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def service(
    names: Catalogue | Mapping[str, str] | Iterable[str] = ("default",),
    upstream: SimulatorServer | str = "",
    *,
    options: Sequence[tuple[str, Any]] = (),
    timeouts: Timeouts = TIMEOUTS,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Run a service in this process.

    Args:
        names: The models, see `models`; or a catalogue, which needs no upstream.
        upstream: See `models`.
        options: Of the client's channel.
        timeouts: Of the store.
        changes: Fields of `Settings`, see `settings`.
    """
    known = names if isinstance(names, Catalogue) else models(names, upstream)
    with TemporaryDirectory() as directory:
        places = {
            "database_url": f"sqlite:///{directory}/accounts.sqlite3",
            "journal_directory": f"{directory}/journal",
        }
        server = Server(settings(**{**places, **changes}), known, timeouts=timeouts)
        await server.start()
        try:
            async with client(server.address, options=options) as caller:
                yield Running(server=server, client=caller)
        finally:
            server.hurry()
            await server.stop()


# --------------------------------------------------------------------------------- what is left


_PAUSE: Final = 0.001
"""Seconds."""


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Look again and again until a condition holds that no event tells.

    There is a pause between looks: an event loop that never rests keeps other threads, the store's
    among them, from the interpreter's lock for seconds.

    Raises:
        AssertionError: it does not within `PATIENCE`.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not condition():
        assert loop.time() < end, what or "the condition never held"
        await asyncio.sleep(_PAUSE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What the process holds at a moment: tasks, by what they run, and open descriptors."""

    tasks: Counter[str]
    descriptors: int

    @classmethod
    def take(cls) -> Footprint:
        """Look at the process now."""
        return cls(tasks=_tasks(), descriptors=_descriptors())

    async def returns(self) -> None:
        """Wait until the process holds no more than this.

        Raises:
            AssertionError: it does not within `PATIENCE`.
        """
        try:
            await until(lambda: _tasks() <= self.tasks)
            gc.collect()
            await until(lambda: _descriptors() <= self.descriptors)
        except AssertionError:
            left = (_tasks() - self.tasks, _descriptors() - self.descriptors)
            raise AssertionError("tasks and descriptors are left: {} {}".format(*left)) from None


def _tasks() -> Counter[str]:
    return Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---------------------------------------------------------------------------- in its own process


@dataclass(kw_only=True, slots=True, eq=False)
class Process:
    """A deployable in a process of its own."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    """What it wrote to its standard error so far."""
    output: bytes = b""
    """What it wrote to its standard output, once it ended."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    async def event(self, name: str) -> dict[str, Any]:
        """Return the first log line of that event; waits for it.

        Raises:
            AssertionError: the process ended without, or `PATIENCE` did.
        """
        seen = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.lines[seen:]:
                    seen += 1
                    with suppress(ValueError):
                        members: dict[str, Any] = json.loads(line)
                        if members["event"] == name:
                            return members
                assert not self._over, f"ended without {name!r}: {self.lines}"
                self._news.clear()
                await self._news.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of that event so far."""
        parsed = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [members for members in parsed if members["event"] == name]

    async def address(self) -> str:
        """Return where it serves, as host:port; waits until it does."""
        return str((await self.event("serving"))["address"])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """Wait for its end and return its exit status; negative is the signal that ended it."""
        async with asyncio.timeout(PATIENCE):
            while not self._over:
                self._news.clear()
                await self._news.wait()
            return await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))
            self._news.set()
        self.output = await self.process.stdout.read()
        self._over = True
        self._news.set()


@asynccontextmanager
async def process(
    module: str, environment: Mapping[str, str], *arguments: str
) -> AsyncIterator[Process]:
    """Run `python -m module`; what still runs at the end is killed.

    Args:
        module: "service" or another that can be run.
        environment: The whole environment, but for PATH. For a service, see `environment`.
        arguments: Of the command line.
    """
    # The accounts are a file where the process runs, unless a setting says otherwise.
    directory = TemporaryDirectory()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=directory.name,
        env={"PATH": os.environ.get("PATH", ""), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    running = Process(process=child)
    reading = asyncio.create_task(running._read())
    try:
        yield running
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.kill()
        await child.wait()
        await reading
        # The transport of the pipes closes in a callback after the last of them.
        await asyncio.sleep(0)
        directory.cleanup()


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a service for tests: like `settings`, as variables."""
    return {
        "CHAT_LISTEN": "127.0.0.1:0",
        "CHAT_METRICS_LISTEN": "none",
        "CHAT_BOOTSTRAP_API_KEY": KEY,
        "CHAT_DRAIN_DELAY": "0",
        "CHAT_DRAIN_GRACE": "0",
        "CHAT_SIMULATOR_TIME_TO_FIRST_TOKEN": "0",
        "CHAT_SIMULATOR_INTER_TOKEN_DELAY": "0",
        **changes,
    }


async def serving(caller: Client, name: str = "") -> None:
    """Wait until a service says by `Watch` that it is SERVING.

    Raises:
        TimeoutError: it does not within `PATIENCE`.
    """
    await watched(caller, health_pb2.HealthCheckResponse.SERVING, name)


async def watched(caller: Client, status: int, name: str = "") -> None:
    """Wait until a service says by `Watch` that it has a health status.

    Raises:
        TimeoutError: it does not within `PATIENCE`.
    """
    async with asyncio.timeout(PATIENCE):
        watch = caller.health.Watch(
            health_pb2.HealthCheckRequest(service=name), wait_for_ready=True
        )
        try:
            async for response in watch:
                if response.status == status:
                    return
        finally:
            watch.cancel()
    raise AssertionError(f"the watch ended without {status}")


@asynccontextmanager
async def service_process(**changes: str) -> AsyncIterator[tuple[Process, Client]]:
    """Run `python -m service` until it is SERVING, with a client of it.

    Args:
        changes: Variables in addition to `environment`.
    """
    async with (
        process("service", environment(**changes)) as running,
        client(await running.address()) as caller,
    ):
        await serving(caller)
        yield running, caller
