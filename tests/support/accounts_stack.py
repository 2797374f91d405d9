"""A service with its accounts, a bridge and an upstream, on sockets, in this process.

async with accounts_stack({"default": priced(upstream_model="sim:tokens=8")}) as stack:
    team = stack.books.team(credit=CREDIT, requests_per_minute=60)  an account of its own, and a key
    answer = await stack.ask("rest", team.key, "default", streamed=True)
    stack.books.charges(team)            [Charge(amount, prompt, completion, partial, estimated)]
    stack.books.nothing_is_open()        and every balance is that of its ledger

Both doors, gRPC and REST, give the same `Answer`. The store is a file unless a `database` is named;
the books are read through a store of the test's own on the same.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import grpc
import httpx
import sqlalchemy as sa

from chatcompletion import openai_json
from chatcompletion.process import settings as process_settings
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, ChatCompletionParams
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from restbridge.config import Settings as BridgeSettings
from restbridge.server import Bridge
from service.accounts.directory import Directory
from service.accounts.verification import differences
from service.accounts.views import Difference, KeyLimits
from service.ledger.rows import EntryKind, Grant, HoldState
from service.ledger.schema import accounts, api_keys, holds
from service.ledger.store import TIMEOUTS, Store, Timeouts
from service.models import Catalogue, catalogue
from service.simulator import SimulatorServer
from tests.support import grpc_client as running
from tests.support.grpc_client import PATIENCE, UPSTREAM_KEY, Client, Process, Running

CREDIT: Final = 10**9
"""Nano-credits in a credit."""
HELLO: Final[list[dict[str, Any]]] = [{"role": "user", "content": "Hello"}]

DoorName = Literal["grpc", "rest"]
DOORS: Final[tuple[DoorName, ...]] = ("grpc", "rest")


# ------------------------------------------------------------------------------------- the models

INPUT_PRICE: Final = Decimal("0.333333333")
OUTPUT_PRICE: Final = Decimal("1.777777777")
MARGIN: Final = Decimal("12.7")
"""Prices at which hardly any number of tokens costs a whole number of nano-credits."""


def priced(**members: Any) -> dict[str, Any]:
    """Make an entry of models.toml, without its upstream."""
    return {
        "upstream_model": "sim:tokens=8",
        "default_output_tokens": 100,
        "maximum_output_tokens": 100_000,
        "input_price": INPUT_PRICE,
        "output_price": OUTPUT_PRICE,
        "margin": MARGIN,
        **members,
    }


def cost(prompt: int, completion: int, entry: Mapping[str, Any] | None = None) -> int:
    """Return what tokens cost, in nano-credits: computed in decimals, by an entry's prices."""
    prices = priced() if entry is None else entry
    into, out, margin = (
        Decimal(prices[name]) for name in ("input_price", "output_price", "margin")
    )
    credit = (prompt * into + completion * out) / 10**6 * (1 + margin / 100)
    return int((credit * CREDIT).to_integral_value(rounding="ROUND_CEILING"))


def models(
    entries: Mapping[str, Mapping[str, Any]], base_urls: Mapping[str, str], upstream: str
) -> Catalogue:
    """Make a catalogue; an entry that names no upstream has the given one."""
    return catalogue(
        {
            "upstreams": {
                name: {"base_url": url, "api_key_variable": "KEY"}
                for name, url in base_urls.items()
            },
            "models": {name: {"upstream": upstream, **entry} for name, entry in entries.items()},
        },
        {"KEY": UPSTREAM_KEY},
    )


def document(model: str, **members: Any) -> dict[str, Any]:
    """Make a request."""
    return {"model": model, "messages": HELLO, **members}


def params(request: Mapping[str, Any]) -> ChatCompletionParams:
    """Return a request as the contract has it."""
    return openai_json.decode_request(json.dumps(request).encode())


# ------------------------------------------------------------------------------- what is answered


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a call went, alike for both doors."""

    status: int
    """The HTTP status, also over gRPC; 200 where a stream began and then failed."""
    code: str = ""
    """Of the error object; "" is success."""
    message: str = ""
    retryable: bool | None = None
    retry_after_ms: int | None = None
    pieces: int = 0
    """Pieces of content that came."""
    message_bytes: int = 0
    """Of a whole completion: the size of its messages, as the contract has them."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Response headers, or the metadata of both kinds."""
    error: Mapping[str, Any] | bytes = b""
    """All that was told of a failure, without the id of the request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """An entry of the ledger, as the table of charges has it."""

    amount: int
    prompt: int
    completion: int
    partial: bool = False
    estimated: bool = False
    kind: EntryKind = EntryKind.SETTLE


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """An account with one key."""

    name: str
    account_id: int
    key_id: int
    key_name: str
    key: str


# --------------------------------------------------------------------------------------- the books


class Books:
    """What a store says, read and written by a test.

    Args:
        url: The store.
    """

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.directory = Directory(self.store)
        self._names = count(1)

    def team(self, *, credit: int = CREDIT, **limits: Any) -> Team:
        """Create an account with credit, in nano-credits, and a key."""
        name = f"team-{next(self._names)}"
        account = self.directory.create_account(name)
        if credit:
            self.grant(account.id, credit)
        view, key = self.directory.create_key(name, "key", KeyLimits(**limits))
        return Team(name=name, account_id=account.id, key_id=view.id, key_name=view.name, key=key)

    def grant(self, account_id: int, amount: int) -> None:
        """Add credit."""
        name = f"grant-{next(self._names)}"
        self.store.apply([Grant(account_id=account_id, amount=amount, idempotency_id=name)])

    def balance(self, team: Team) -> int:
        """Return what a team has left, the held part included."""
        return self.directory.account(team.name).balance

    def held(self, team: Team) -> int:
        """Return what is held of it."""
        return self.directory.account(team.name).held

    def running(self, team: Team) -> int:
        """Return how many holds of its key are open, by the row of the key."""
        with self.store.reading() as connection:
            wanted = sa.select(api_keys.c.running).where(api_keys.c.id == team.key_id)
            return int(connection.execute(wanted).scalar_one())

    def holds(self, team: Team) -> list[int]:
        """Return the amounts of all holds there ever were of a team's key, the oldest first."""
        with self.store.reading() as connection:
            wanted = sa.select(holds.c.amount).where(holds.c.key_id == team.key_id)
            return list(connection.execute(wanted.order_by(holds.c.created_at)).scalars())

    def charges(self, team: Team) -> list[Charge]:
        """Return what a team was charged, the oldest first."""
        return [
            Charge(
                amount=-entry.amount,
                prompt=entry.prompt_tokens,
                completion=entry.completion_tokens,
                partial=entry.partial,
                estimated=entry.estimated,
                kind=entry.kind,
            )
            for entry in reversed(self.directory.ledger(team.name, limit=10_000))
            if entry.kind is not EntryKind.GRANT
        ]

    def no_hold_is_open(self) -> bool:
        """Return whether every hold has ended."""
        with self.store.reading() as connection:
            wanted = sa.select(holds.c.id).where(holds.c.state == HoldState.OPEN).limit(1)
            return connection.execute(wanted).first() is None

    def differences(self) -> list[Difference]:
        """Return the accounts whose row does not say what ledger and holds say."""
        return list(differences(self.store))

    def nothing_is_open(self) -> None:
        """Check that nothing is held and nothing runs, of anybody, and that all balances are right.

        Raises:
            AssertionError: it is not so.
        """
        with self.store.reading() as connection:
            held = connection.execute(sa.select(sa.func.sum(accounts.c.held))).scalar_one()
            running = connection.execute(sa.select(sa.func.sum(api_keys.c.running))).scalar_one()
        assert (held or 0, running or 0) == (0, 0)
        assert self.differences() == []

    def close(self) -> None:
        """Close the store."""
        self.store.close()


@contextmanager
def books(url: str) -> Iterator[Books]:
    """Open books, and close them at the end."""
    opened = Books(url)
    try:
        yield opened
    finally:
        opened.close()


# --------------------------------------------------------------------------------------- the doors


@dataclass(kw_only=True, slots=True, eq=False)
class AccountsStack:
    """All of it, running."""

    upstream: SimulatorServer
    service: Running
    bridge: Bridge
    web: httpx.AsyncClient
    books: Books
    directory: Path
    """Where the journal is."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """To the service."""
        return self.service.client.channel

    async def rests(self) -> None:
        """Wait until no call runs and no hold is open.

        Who is cancelled twice, by a caller and by a deadline, leaves before his hold has ended.

        Raises:
            AssertionError: it does not come to that within `PATIENCE`.
        """
        await self.service.rests()
        await running.until(self.books.no_hold_is_open, "a hold is open")

    async def ask(
        self,
        door: DoorName,
        key: str,
        request: str | Mapping[str, Any],
        *,
        streamed: bool = False,
        deadline: float = PATIENCE,
        leave_after: int | None = None,
    ) -> Answer:
        """Make a call, and return how it went.

        Args:
            door: Through which.
            key: Of the caller.
            request: A request, or the name of a model.
            streamed: As a stream.
            deadline: In seconds; only over gRPC, for the bridge has its own.
            leave_after: After how many pieces of content the caller leaves; None is never.
        """
        wanted = document(request) if isinstance(request, str) else dict(request)
        if door == "grpc":
            return await ask_grpc(
                self.channel,
                key,
                wanted,
                streamed=streamed,
                deadline=deadline,
                leave_after=leave_after,
            )
        return await self._ask_rest(key, wanted, streamed, leave_after)

    async def _ask_rest(
        self,
        key: str,
        request: Mapping[str, Any],
        streamed: bool,
        leave_after: int | None,
    ) -> Answer:
        body = {**request, "stream": True} if streamed else dict(request)
        headers = {"authorization": f"Bearer {key}"}
        async with self.web.stream(
            "POST", "/v1/chat/completions", json=body, headers=headers
        ) as response:
            if response.status_code != 200:
                told = json.loads(await response.aread())["error"]
                return _rest_failure(response, told)
            if not streamed:
                completion = openai_json.decode_completion(await response.aread())
                return Answer(
                    status=200, message_bytes=_size(completion), headers=dict(response.headers)
                )
            pieces = 0
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    return replace(_rest_failure(response, event["error"]), pieces=pieces)
                pieces += sum(bool(c["delta"].get("content")) for c in event["choices"])
                if pieces == leave_after:
                    break
            return Answer(status=200, pieces=pieces, headers=dict(response.headers))


async def ask_grpc(
    channel: grpc.aio.Channel,
    key: str,
    request: Mapping[str, Any],
    *,
    streamed: bool,
    deadline: float = PATIENCE,
    leave_after: int | None = None,
    watch: Callable[[int], None] | None = None,
) -> Answer:
    """Make a call over gRPC, see `AccountsStack.ask`.

    Args:
        channel: To the service.
        key: Of the caller.
        request: The request.
        streamed: As a stream.
        deadline: In seconds.
        leave_after: After how many pieces of content the caller leaves.
        watch: Told after each message how many came.
    """
    stub = ChatCompletionServiceStub(channel)
    options: dict[str, Any] = {
        "metadata": (("authorization", f"Bearer {key}"),),
        "timeout": deadline,
    }
    wanted = params(request)
    call: Any
    pieces, size = 0, 0
    try:
        if streamed:
            call = stub.StreamChatCompletion(StreamChatCompletionRequest(params=wanted), **options)
            async for response in call:
                pieces += sum(bool(c.delta.content_text) for c in response.chunk.choices)
                if watch is not None:
                    watch(pieces)
                if pieces == leave_after:
                    break
            if leave_after is not None:
                call.cancel()
        else:
            call = stub.CreateChatCompletion(CreateChatCompletionRequest(params=wanted), **options)
            response = await call
            size = _size(response.completion)
        metadata = _texts(await call.initial_metadata())
    except grpc.aio.AioRpcError as error:
        return replace(_failed(error), pieces=pieces)
    return Answer(status=200, pieces=pieces, message_bytes=size, headers=metadata)


def _size(completion: ChatCompletion) -> int:
    return sum(choice.message.ByteSize() for choice in completion.choices)


def _texts(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _failed(error: grpc.aio.AioRpcError) -> Answer:
    found = running.failed(error)
    packed = found.trailers.get("grpc-status-details-bin", b"")
    own = str(found.trailers.get("x-request-id", "")).encode()
    return Answer(
        status=found.http_status,
        # Where the service told nothing, the code of gRPC is what there is.
        code=found.error.code_text or found.code.name.lower(),
        message=found.message,
        retryable=found.retryable if found.reason else None,
        retry_after_ms=None if found.retry_delay is None else round(found.retry_delay * 1000),
        headers=_texts(error.initial_metadata()) | _texts(error.trailing_metadata()),
        error=packed.replace(own, b"") if own and isinstance(packed, bytes) else b"",
    )


def _rest_failure(response: httpx.Response, told: Mapping[str, Any]) -> Answer:
    headers = response.headers
    after = headers.get("retry-after-ms")
    return Answer(
        status=response.status_code,
        code=told["code"],
        message=told["message"],
        retryable={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
        retry_after_ms=None if after is None else int(after),
        headers=dict(headers),
        error=told,
    )


# ------------------------------------------------------------------------------------ running them


def journal_directory(directory: Path) -> Path:
    """Return where the journals are."""
    return directory / "journal"


def journal_content(directory: Path, names: str) -> bytes:
    """Return what is in the files of these names in the journal of `directory`."""
    found = b""
    for path in journal_directory(directory).glob(names):
        with suppress(FileNotFoundError):  # a file is removed once all of it is in the store
            found += path.read_bytes()
    return found


@asynccontextmanager
async def accounts_stack(
    entries: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    database: str | None = None,
    base_urls: Mapping[str, str] | None = None,
    upstream: Mapping[str, Any] | None = None,
    bridge_timeout: float = PATIENCE,
    timeouts: Timeouts = TIMEOUTS,
    **changes: Any,
) -> AsyncIterator[AccountsStack]:
    """Run everything, in a directory of its own.

    Args:
        entries: The models, see `priced`; one named `default` where there are none.
        database: The address of an empty store; None is a file in that directory.
        base_urls: Of upstreams beside the simulator, by name.
        upstream: Of `SimulatorConfig`.
        bridge_timeout: The deadline of the bridge's calls, in seconds.
        timeouts: Of the service's store.
        changes: Fields of the service's `Settings`.
    """
    with TemporaryDirectory() as name:
        directory = Path(name)
        url = database or f"sqlite:///{directory}/accounts.db"
        async with running.simulator(**(upstream or {})) as simulator:
            base = {"simulator": simulator.base_url, **(base_urls or {})}
            own = {
                "database_url": url,
                "journal_directory": str(journal_directory(directory)),
                "bootstrap_api_key": "",
            }
            async with (
                running.service(
                    models(entries or {"default": priced()}, base, "simulator"),
                    timeouts=timeouts,
                    **(own | changes),
                ) as service,
                _bridge(service.address, timeout=bridge_timeout) as door,
                httpx.AsyncClient(
                    base_url=f"http://{door.address}",
                    timeout=PATIENCE,
                    trust_env=False,
                    verify=False,  # noqa: S501  (plaintext: there are no certificates to load)
                ) as web,
            ):
                with books(url) as opened:
                    yield AccountsStack(
                        upstream=simulator,
                        service=service,
                        bridge=door,
                        web=web,
                        books=opened,
                        directory=directory,
                    )


@asynccontextmanager
async def _bridge(target: str, **changes: Any) -> AsyncIterator[Bridge]:
    usual = process_settings.read(
        BridgeSettings,
        {
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_SERVICE_TARGET": target,
        },
    )
    door = Bridge(replace(usual, **changes))
    await door.start()
    try:
        yield door
    finally:
        door.hurry()
        await door.stop(delay=0, grace=0)


# --------------------------------------------------------------------------- in its own process


@asynccontextmanager
async def service_process(
    directory: Path,
    database: str,
    upstream: SimulatorServer,
    entries: Mapping[str, Mapping[str, Any]],
) -> AsyncIterator[tuple[Process, Client]]:
    """Run `python -m service` until it serves, and dial it; it is killed at the end.

    Args:
        directory: Where its journal is.
        database: The address of its store.
        upstream: Who answers.
        entries: The models, see `priced`.
    """
    models_file = directory / "models.toml"
    lines = ["[upstreams.simulator]", f'base_url = "{upstream.base_url}"']
    for name, entry in entries.items():
        lines.append(f'[models."{name}"]')
        for member, value in {"upstream": "simulator", **entry}.items():
            lines.append(f"{member} = {json.dumps(value) if isinstance(value, str) else value}")
    models_file.write_text("\n".join(lines))
    variables = running.environment(
        CHAT_DATABASE_URL=database,
        CHAT_JOURNAL_DIRECTORY=str(journal_directory(directory)),
        CHAT_MODELS_FILE=str(models_file),
        CHAT_BOOTSTRAP_API_KEY="",
    )
    async with (
        running.process("service", variables) as process,
        running.client(await process.address()) as client,
    ):
        yield process, client
