"""An admission with its own store, and calls that use it."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from service.accounts.directory import Directory
from service.accounts.key_rows import StoredRow
from service.accounts.keys import Caller
from service.accounts.verification import differences
from service.admission import Admission
from service.authentication import Authentication
from service.call import Call
from service.ledger.batches import PATIENCE, Batches
from service.ledger.database import InThread
from service.ledger.journal import Journal
from service.ledger.migrations import migrate
from service.ledger.rows import (
    EntryKind,
    Grant,
    Operation,
    Outcome,
)
from service.ledger.schema import api_keys
from service.ledger.store import Store, StoreError
from service.metering import price as prices
from service.metering.bound import output_limit
from service.metering.progress import Progress
from service.models import Model, Upstream
from service.request import AcceptedRequest
from service.settlement import Settlement
from service.telemetry import CallRecord, Telemetry

CREDIT: Final = 10**9
NANO: Final = 10**9
MODEL: Final = Model(
    name="default",
    upstream=Upstream(name="primary", base_url="https://vllm.example/v1", api_key="canary-7d1f"),
    upstream_model="vendor/gemma",
    default_output_tokens=100,
    maximum_output_tokens=1000,
    output_limit="max_tokens",
    input_price=3 * NANO + 1,
    output_price=7 * NANO + 1,
    margin=12 * NANO,
    attachment_tokens=100,
    owned_by="tests",
    created=1,
)
_T = TypeVar("_T")


def params(**members: Any) -> ChatCompletionParams:
    document = {"model": "default", "messages": [{"role": "user", "content": "Hello"}], **members}
    return openai_json.decode_request(json.dumps(document).encode())


def chunk(text: str = "x", finish: str | None = None) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return _chunk(choices=[choice])


def usage_chunk(prompt: object, completion: object) -> ChatCompletionChunk:
    return _chunk(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": completion})


def _chunk(**members: Any) -> ChatCompletionChunk:
    document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return openai_json.decode_chunk(json.dumps({**document, **members}).encode())


def completion(usage: object = None) -> ChatCompletion:
    document: dict[str, Any] = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "x" * 39},
                "finish_reason": "stop",
            }
        ],
    }
    if usage is not None:
        document["usage"] = usage
    return openai_json.decode_completion(json.dumps(document).encode())


class FaultyStore(Store):
    """A store that fails before or after the commit, on request."""

    fails_before: Callable[[Operation], bool] = staticmethod(lambda _: False)
    fails_after: Callable[[Operation], bool] = staticmethod(lambda _: False)
    reading_fails: bool = False
    queries: int = 0

    async def applying(
        self, operations: Sequence[Operation], in_thread: InThread | None = None
    ) -> list[Outcome]:
        if any(map(self.fails_before, operations)):
            raise StoreError("away")
        outcomes = await super().applying(operations, in_thread)
        if any(map(self.fails_after, operations)):
            raise StoreError("the answer was lost")
        return outcomes

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        self.queries += 1
        if self.reading_fails:
            raise StoreError("away")
        with super().reading() as connection:
            yield connection


class Books:
    """An admission with its store and a team."""

    def __init__(self, directory: Path, batches: Callable[[Store], Batches] = Batches) -> None:
        self.now = 10**18
        self.monotonic = 100.0
        self.store = FaultyStore(f"sqlite:///{directory / 'db'}", clock=lambda: self.now)
        migrate(self.store)
        self.directory = Directory(self.store)
        self.batches = batches(self.store)
        self.journal = Journal(str(directory / "journal"))
        self.telemetry = Telemetry()
        self.account = self.directory.create_account("acme").id
        self.grant(CREDIT, "1")
        self.key = self.add_key("ci")
        self.authentication = Authentication(
            self.batches, self.directory, patience=PATIENCE, clock=lambda: self.monotonic
        )
        self.settlement = Settlement(self.batches, self.journal, self.telemetry, patience=PATIENCE)
        self.admission = Admission(self.batches, self.settlement, owner="test", patience=PATIENCE)

    def be_patient(self, seconds: float) -> None:
        """Set the time that calls and settlements wait for the store."""
        for each in (self.authentication, self.settlement, self.admission):
            each._patience = seconds

    def grant(self, amount: int, name: str) -> None:
        self.store.apply([Grant(account_id=self.account, amount=amount, idempotency_id=name)])

    def add_key(self, name: str, **limits: Any) -> str:
        return self.directory.create_key("acme", name, **limits)[1]

    async def caller(self, key: str | None = None) -> Caller:
        call = a_call(authorization=f"Bearer {key or self.key}")
        return await self.authentication.authenticate(call)

    @property
    def entries(self) -> list[StoredRow]:
        return [e for e in self.directory.reports.ledger("acme") if e.kind != EntryKind.GRANT]

    @property
    def held(self) -> int:
        return int(self.directory.account("acme").held)

    @property
    def lost(self) -> float:
        name = "chat_usage_above_hold_nano_credits_total"
        return self.telemetry.registry.get_sample_value(name) or 0.0

    def assert_at_rest(self) -> None:
        with self.store.reading() as connection:
            running = connection.execute(sa.select(sa.func.sum(api_keys.c.running))).scalar_one()
        assert (self.held, running) == (0, 0)
        assert (self.admission.open_holds, self.settlement.waiting) == (0, 0)
        assert list(differences(self.store)) == []

    async def close(self) -> None:
        await self.settlement.settled()
        await self.batches.close()
        self.journal.close()
        self.store.close()


def a_call(**members: Any) -> Call:
    task = asyncio.current_task()
    assert task is not None
    fields: dict[str, Any] = {
        "record": CallRecord(method="CreateChatCompletion", request_id="req_1", started=0.0),
        "authorization": None,
        "carried": (),
        "deadline": asyncio.get_running_loop().time() + 60,
        "deadline_is_callers": False,
        "task": task,
    }
    return Call(**{**fields, **members})


def accepted(of: Model = MODEL, **members: Any) -> AcceptedRequest:
    asked = params(**members)
    return AcceptedRequest(
        params=asked, priced=asked, model=of, output_limit=output_limit(asked, of)
    )


async def use(
    books: Books,
    what: Callable[[Progress], None] = lambda _: None,
    *,
    key: str | None = None,
    call: Call | None = None,
    model: Model = MODEL,
    **members: Any,
) -> None:
    """Make a call that is admitted, and run `work` in it."""
    caller = await books.caller(key)
    request = accepted(model, **members)
    admitted = books.admission.admit(caller, call or a_call(), request, wants_usage=False)
    async with admitted as progress:
        what(progress)


def price(prompt: int, tokens: int) -> int:
    return prices.cost(MODEL, prompt, tokens).amount
