import asyncio
import json
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import pytest
import sqlalchemy as sa
from google.rpc import error_details_pb2, status_pb2

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from service import admission as module
from service import errors
from service.accounts import money
from service.accounts.batches import Batches
from service.accounts.directory import Directory, EntryView, KeyLimits
from service.accounts.journal import Ending, Journal
from service.accounts.keys import Caller
from service.accounts.migrations import migrate
from service.accounts.rates import Level
from service.accounts.rows import (
    EntryKind,
    Grant,
    Operation,
    Outcome,
    Place,
    Refusal,
    Refused,
    Release,
    Settle,
)
from service.accounts.schema import api_keys, holds
from service.accounts.store import Store, StoreError
from service.accounts.work import Work
from service.admission import Admission, duration
from service.call import CURRENT, Call
from service.forwarding import Progress
from service.models import Catalogue, Model, Upstream
from service.servicer import ChatCompletionServicer
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
    """A store that fails before or after the commit, where it is told to."""

    fails_before: Callable[[Operation], bool] = staticmethod(lambda _: False)
    fails_after: Callable[[Operation], bool] = staticmethod(lambda _: False)
    reading_fails: bool = False
    queries: int = 0

    def applying(self, operations: Sequence[Operation]) -> Work[list[Outcome]]:
        if any(map(self.fails_before, operations)):
            raise StoreError("away")
        outcomes = yield from super().applying(operations)
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


class InPlace(Batches):
    """Uses the store on the event loop, so that the steps of a call are always the same."""

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        await asyncio.sleep(0)
        result = function(*arguments)
        await asyncio.sleep(0)
        return result

    read = call


class Books:
    """An admission with its store, and a team that may use it."""

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
        self.admission = Admission(
            self.batches,
            self.directory,
            self.journal,
            self.telemetry,
            owner="test",
            clock=lambda: self.monotonic,
        )

    def grant(self, amount: int, name: str) -> None:
        self.store.apply([Grant(account_id=self.account, amount=amount, idempotency_id=name)])

    def add_key(self, name: str, **limits: Any) -> str:
        return self.directory.create_key("acme", name, KeyLimits(**limits))[1]

    async def caller(self, key: str | None = None) -> Caller:
        call = a_call(authorization=f"Bearer {key or self.key}")
        return await self.admission.authenticate(call)

    @property
    def entries(self) -> list[EntryView]:
        return [e for e in self.directory.ledger("acme") if e.kind is not EntryKind.GRANT]

    @property
    def held(self) -> int:
        return self.directory.account("acme").held

    @property
    def lost(self) -> float:
        name = "chat_usage_above_hold_nano_credits_total"
        return self.telemetry.registry.get_sample_value(name) or 0.0

    def assert_at_rest(self) -> None:
        with self.store.reading() as connection:
            running = connection.execute(sa.select(sa.func.sum(api_keys.c.running))).scalar_one()
        assert (self.held, running) == (0, 0)
        assert list(self.directory.differences()) == []

    async def close(self) -> None:
        await self.admission.settled()
        await self.batches.close()
        self.journal.close()
        self.store.close()


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(tmp_path)
    yield made
    await made.close()


def a_call(**members: Any) -> Call:
    task = asyncio.current_task()
    assert task is not None
    fields: dict[str, Any] = {
        "record": CallRecord(method="CreateChatCompletion", request_id="req_1", started=0.0),
        "authorization": None,
        "traceparent": None,
        "deadline": asyncio.get_running_loop().time() + 60,
        "deadline_is_callers": False,
        "task": task,
    }
    return Call(**{**fields, **members})


async def use(
    books: Books,
    what: Callable[[Progress], None] = lambda _: None,
    *,
    key: str | None = None,
    call: Call | None = None,
    model: Model = MODEL,
    **members: Any,
) -> None:
    """Make a call that is admitted, and does this while it is."""
    caller = await books.caller(key)
    admitted = books.admission.admit(
        caller, call or a_call(), params(**members), model, wants_usage=False
    )
    async with admitted as progress:
        what(progress)


# ------------------------------------------------------------------------------------ who calls


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
async def test_the_holder_of_a_key_may_call(books: Books, scheme: str) -> None:
    call = a_call(authorization=f"{scheme}{books.key} ")
    caller = await books.admission.authenticate(call)

    assert call.record.key_name == "ci"
    assert (caller.account_name, caller.key_name) == ("acme", "ci")
    assert books.key not in repr(caller)
    assert books.key not in repr(books.admission)


WRONG: Final[Sequence[Callable[[str], str | None]]] = (
    lambda _: None,
    lambda _: "",
    lambda _: "Bearer",
    lambda _: "Bearer ",
    lambda key: f"Bearer{key}",
    lambda key: f"Basic {key}",
    lambda key: key,
    lambda key: f" Bearer {key}",
    lambda key: f"Bearer {key}x",
    lambda key: f"Bearer {key[:-1]}",
    lambda key: f"Bearer {key.swapcase()}",
    lambda key: f"Bearer Bearer {key}",
    lambda key: f"Bearer {key},Bearer {key}",
    lambda key: f"Bearer {key}\x00",
    lambda _: "Bearer ' OR 1=1 --",
    lambda _: "Bearer " + "x" * 16_384,
    lambda _: "Bearer \ud83d",
    lambda _: "Bearer ключ",
)


@pytest.mark.parametrize("wrong", WRONG)
async def test_all_others_get_the_same_answer(
    books: Books, wrong: Callable[[str], str | None]
) -> None:
    for _ in range(2):
        with pytest.raises(errors.InvalidApiKey) as refused:
            await books.admission.authenticate(a_call(authorization=wrong(books.key)))
        assert errors.status(refused.value, "r") == errors.status(errors.InvalidApiKey(), "r")


async def test_a_key_without_limits_has_none_to_be_told(books: Books) -> None:
    call = a_call(authorization=f"Bearer {books.key}")
    await books.admission.authenticate(call)
    assert call.limits is None


async def test_the_state_of_limits_is_told_without_a_hold(books: Books) -> None:
    key = books.add_key("limited", requests_per_minute=60, tokens_per_minute=1000)
    call = a_call(authorization=f"Bearer {key}")
    await books.admission.authenticate(call)

    assert call.limits is not None
    assert dict(await call.limits()) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "60",
        "x-ratelimit-reset-requests": "0ms",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "1000",
        "x-ratelimit-reset-tokens": "0ms",
    }
    books.store.reading_fails = True
    assert await call.limits() == ()
    books.store.reading_fails = False
    assert len(await call.limits()) == 6


async def test_a_lookup_is_remembered_for_five_seconds(books: Books) -> None:
    await books.caller()
    asked = books.store.queries
    books.monotonic += 4.9
    await books.caller()
    assert books.store.queries == asked
    books.directory.revoke_key("acme", "ci")
    books.monotonic += 0.2
    with pytest.raises(errors.InvalidApiKey):
        await books.caller()


async def test_calls_with_the_same_key_share_a_query(books: Books) -> None:
    asked = books.store.queries
    for key in (books.key, "sk-live-unknown"):
        await asyncio.gather(*(books.caller(key) for _ in range(50)), return_exceptions=True)

    assert books.store.queries == asked + 2


async def test_who_leaves_during_a_lookup_does_not_spoil_that_of_others(books: Books) -> None:
    first, second = (asyncio.create_task(books.caller()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    assert (await second).key_name == "ci"
    assert first.cancelled()


async def test_a_store_that_is_away_is_not_a_wrong_key(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: bytes) -> Caller:
        raise StoreError("away")

    monkeypatch.setattr(books.directory, "find", away)
    for _ in range(2):
        with pytest.raises(errors.StoreUnavailable):
            await books.caller()
    monkeypatch.undo()
    assert (await books.caller()).key_name == "ci"


async def test_a_flood_of_wrong_keys_drives_no_right_one_out_of_memory(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.accounts.keys._MOST_REMEMBERED", 10)
    await books.caller()
    for number in range(20):
        with pytest.raises(errors.InvalidApiKey):
            await books.caller(f"sk-live-{number}")
    asked = books.store.queries
    await books.caller()

    assert books.store.queries == asked


async def test_lookups_delay_no_hold_and_holds_no_lookup(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, gate = books.directory.find, threading.Event()

    def slow(digest: bytes) -> Caller | None:
        assert gate.wait(10)
        return find(digest)

    caller = await books.caller()
    monkeypatch.setattr(books.directory, "find", slow)
    strangers = [asyncio.create_task(books.caller(f"sk-live-{number}")) for number in range(50)]
    await asyncio.sleep(0)
    async with books.admission.admit(
        caller, a_call(), params(), MODEL, wants_usage=False
    ) as progress:
        progress.take(completion())
    assert len(books.entries) == 1
    assert not any(stranger.done() for stranger in strangers)
    gate.set()
    found = await asyncio.gather(*strangers, return_exceptions=True)
    assert {type(each) for each in found} == {errors.InvalidApiKey}
    # And the other way about.
    gate.clear()
    waiting = asyncio.create_task(books.batches.call(gate.wait, 10))
    monkeypatch.undo()
    with pytest.raises(errors.InvalidApiKey):
        await books.caller("sk-live-another")
    gate.set()
    await waiting


async def test_lookups_of_a_store_that_does_not_answer_end_in_time_and_leave_room(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "_MOST_LOOKUPS", 50)
    gate = threading.Event()
    keys = [books.key, *(f"sk-live-{number}" for number in range(49))]
    with monkeypatch.context() as frozen:
        frozen.setattr(books.directory, "find", lambda _: gate.wait(10))
        for _ in range(2):
            calls = [asyncio.create_task(books.caller(key)) for key in keys]
            await asyncio.sleep(0)
            with pytest.raises(errors.Overloaded):
                await books.caller("sk-live-one-too-many")
            async with asyncio.timeout(10):
                found = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in found} == {errors.StoreUnavailable}
    gate.set()
    monkeypatch.setattr(module, "PATIENCE", 10.0)

    assert (await books.caller()).key_name == "ci"


# --------------------------------------------------------------------------------- what it costs


def price(prompt: int, tokens: int) -> int:
    return money.price(MODEL, prompt, tokens)


async def test_what_the_upstream_reports_is_charged_and_recorded(books: Books) -> None:
    call = a_call()

    def stream(progress: Progress) -> None:
        for each in (chunk(), chunk(finish="stop"), usage_chunk(11, 7)):
            progress.observe(each)

    await use(books, stream, call=call)

    (entry,) = books.entries
    assert (entry.amount, entry.partial, entry.estimated) == (-price(11, 7), False, False)
    assert (call.record.prompt_tokens, call.record.completion_tokens) == (11, 7)
    books.assert_at_rest()


@pytest.mark.parametrize(
    "usage", [(None, 7), (11, None), (-1, 7), (11, -1), ("11", 7), (11, 7.5), (2**63, 2**63)]
)
async def test_a_report_that_makes_no_sense_is_none(
    books: Books, usage: tuple[object, object]
) -> None:
    def stream(progress: Progress) -> None:
        for each in (chunk(), chunk(finish="stop"), usage_chunk(*usage)):
            progress.observe(each)

    await use(books, stream)

    (entry,) = books.entries
    assert (entry.prompt_tokens, entry.completion_tokens) == (money.estimate(params(), MODEL), 2)
    assert entry.estimated


async def test_the_last_report_that_makes_sense_counts(books: Books) -> None:
    def stream(progress: Progress) -> None:
        for each in (chunk(), usage_chunk(11, 7), usage_chunk(11, 9), usage_chunk(-1, -1)):
            progress.observe(each)

    await use(books, stream)

    assert [entry.amount for entry in books.entries] == [-price(11, 9)]


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": "7", "completion_tokens": 7}])
async def test_a_whole_answer_without_a_report_is_counted(books: Books, usage: object) -> None:
    await use(books, lambda progress: progress.take(completion(usage)))

    (entry,) = books.entries
    assert entry.completion_tokens == -(-len(completion().choices[0].message.content_text) // 4)
    assert entry.estimated


@pytest.mark.parametrize(
    "ending", [errors.UpstreamTruncated(), asyncio.CancelledError(), GeneratorExit(), KeyError()]
)
@pytest.mark.parametrize("pieces", [0, 3])
async def test_however_a_call_fails_it_costs_what_was_delivered(
    books: Books, ending: BaseException, pieces: int
) -> None:
    def run(progress: Progress) -> None:
        progress.observe(chunk(""))
        for _ in range(pieces):
            progress.observe(chunk())
        raise ending

    with pytest.raises(type(ending)):
        await use(books, run)

    charged = [(entry.completion_tokens, entry.partial) for entry in books.entries]
    assert charged == ([(pieces, True)] if pieces else [])
    books.assert_at_rest()


async def test_use_above_the_hold_is_counted_and_not_charged(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    hold = 0

    def run(progress: Progress) -> None:
        nonlocal hold
        hold = books.held
        progress.observe(chunk())
        progress.observe(usage_chunk(1, 2**62))

    await use(books, run)

    (entry,) = books.entries
    assert entry.amount == -hold
    assert entry.completion_tokens == 10**12
    assert books.lost == float(price(1, 2**62) - hold)
    assert "usage above the hold" in caplog.text
    books.assert_at_rest()


async def test_the_hold_bounds_every_choice(books: Books) -> None:
    held: list[int] = []
    for n in (1, 3):
        await use(books, lambda _: held.append(books.held), n=n, max_tokens=50)
    bounds = [money.bound(params(n=n, max_tokens=50), MODEL, 50) for n in (1, 3)]

    assert [bound.completion_tokens for bound in bounds] == [50, 150]
    assert held == [price(bound.prompt_tokens, bound.completion_tokens) for bound in bounds]


async def test_the_lease_outlives_the_deadline_by_a_minute(books: Books) -> None:
    def run(_: Progress) -> None:
        books.now += 69 * NANO
        assert books.store.expired() == []
        books.now += 2 * NANO
        assert len(books.store.expired()) == 1

    await use(books, run, call=a_call(deadline=asyncio.get_running_loop().time() + 10))


# ------------------------------------------------------------------------------ who is refused


def limits(call: Call) -> dict[str, str]:
    return dict(call.rate_limit)


async def test_the_limit_that_is_named_fits_and_one_more_does_not(books: Books) -> None:
    books.grant(1_900_000 - CREDIT, "less")
    with pytest.raises(errors.InsufficientCredits) as refused:
        await use(books, max_tokens=1000)
    fits = int(re.findall(r"covers is (\d+)\.", refused.value.message)[0])
    with pytest.raises(errors.InsufficientCredits):
        await use(books, max_tokens=fits + 1)

    await use(books, max_tokens=fits)
    assert 0 < fits < 1000


async def test_what_others_hold_is_another_refusal(books: Books) -> None:
    books.grant(price(1000, 150) - CREDIT, "less")

    async with books.admission.admit(
        await books.caller(), a_call(), params(), MODEL, wants_usage=False
    ):
        with pytest.raises(errors.CreditsHeld) as refused:
            await use(books)
    assert refused.value.retryable
    await use(books)


def retry_info(status: errors.Status) -> error_details_pb2.RetryInfo:
    packed = cast("bytes", dict(status.trailing_metadata)[errors.STATUS_DETAILS])
    retry = error_details_pb2.RetryInfo()
    (found,) = [
        detail
        for detail in status_pb2.Status.FromString(packed).details
        if detail.Is(retry.DESCRIPTOR)
    ]
    assert found.Unpack(retry)
    return retry


async def test_a_wait_that_is_told_is_long_enough(books: Books) -> None:
    key = books.add_key("limited", requests_per_minute=7, tokens_per_minute=100_000)
    waited = 0
    for _ in range(30):
        call = a_call()
        try:
            await use(books, key=key, call=call)
        except errors.RateLimited as refused:
            retry = retry_info(errors.status(refused, "r"))
            books.now += retry.retry_delay.ToMilliseconds() * 10**6
            waited += 1
            await use(books, key=key)
        assert limits(call)["x-ratelimit-limit-requests"] == "7"
    assert waited > 10


async def test_limits_are_told_on_every_answer(books: Books) -> None:
    key = books.add_key("limited", requests_per_minute=2, tokens_per_minute=10_000)
    told = []
    for _ in range(2):
        call = a_call()
        await use(books, key=key, call=call)
        told.append(limits(call))
    call = a_call()
    with pytest.raises(errors.RateLimited) as refused:
        await use(books, key=key, call=call)
    told.append(limits(call))

    assert [each["x-ratelimit-remaining-requests"] for each in told] == ["1", "0", "0"]
    assert [each["x-ratelimit-reset-requests"] for each in told] == ["30s", "1m0s", "1m0s"]
    assert all(len(each) == 6 for each in told)
    assert refused.value.subject == "requests per minute"
    assert refused.value.retry_after == 30.001


async def test_a_key_that_is_revoked_or_expired_is_refused_at_once(books: Books) -> None:
    revoked, expired = books.add_key("revoked"), books.add_key("expired", expires_at=books.now + 5)
    callers = [await books.caller(key) for key in (revoked, expired)]
    books.directory.revoke_key("acme", "revoked")
    books.now += 5
    for caller in callers:
        with pytest.raises(errors.InvalidApiKey) as refused:
            async with books.admission.admit(caller, a_call(), params(), MODEL, wants_usage=False):
                raise AssertionError("admitted")
        assert errors.status(refused.value, "r") == errors.status(errors.InvalidApiKey(), "r")
    books.assert_at_rest()


async def test_a_key_uses_its_models_only(books: Books) -> None:
    key = books.add_key("limited", models=("other",))
    with pytest.raises(errors.ModelNotAllowed) as refused:
        await use(books, key=key)
    assert refused.value.param == "model"


@pytest.mark.parametrize("refusal", Refusal)
async def test_every_refusal_is_told_as_something(refusal: Refusal) -> None:
    bound = money.bound(params(), MODEL, 100)
    failure = module._failure(Refused(refusal=refusal), bound, params(), MODEL)

    assert failure.rule.http_status in (401, 402, 403, 429)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (20 * 10**6, "20ms"),
        (999 * 10**6, "999ms"),
        (999 * 10**6 + 1, "1s"),
        (1200 * 10**6, "1.2s"),
        (59_999 * 10**6, "59.999s"),
        (60 * 10**9, "1m0s"),
        (360 * 10**9, "6m0s"),
        (61_500 * 10**6, "1m1.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(nanoseconds: int, text: str) -> None:
    assert duration(Level(1, 0, nanoseconds)) == text


# ------------------------------------------------------------------------- the store goes away


def is_a(*kinds: type) -> Callable[[Operation], bool]:
    return lambda operation: isinstance(operation, kinds)


async def test_a_settlement_that_fails_is_kept(books: Books) -> None:
    books.store.fails_before = is_a(Settle)
    await use(books, lambda progress: progress.take(completion()))

    (kept,) = books.journal.kept().endings
    assert isinstance(kept, Settle)
    assert books.entries == []
    assert books.held > 0


async def test_a_place_whose_answer_was_lost_is_released(books: Books) -> None:
    books.store.fails_after = is_a(Place)
    with pytest.raises(errors.StoreUnavailable):
        await use(books)
    await books.admission.settled()

    assert books.journal.is_empty()
    books.assert_at_rest()


def fail(_: Progress) -> None:
    raise KeyError("nothing was delivered")


async def test_a_release_that_fails_is_kept(books: Books) -> None:
    books.store.fails_before = is_a(Release)
    with pytest.raises(KeyError):
        await use(books, fail)

    assert [type(kept) for kept in books.journal.kept().endings] == [Release]


def full(*_: object) -> None:
    raise OSError("No space left on device")


@pytest.fixture
def kept_nowhere(books: Books, monkeypatch: pytest.MonkeyPatch) -> Books:
    """Books of which neither the store nor the journal takes the end of a hold."""
    monkeypatch.setattr(books.journal, "append", full)
    books.store.fails_before = is_a(Settle, Release)
    return books


async def replay(books: Books) -> None:
    """Have the store take what is in memory."""
    books.store.fails_before = is_a()
    unwritten = books.journal.unwritten.endings()
    for ending in unwritten:
        await books.batches.submit(ending)
    books.journal.unwritten.forget(unwritten)


async def test_a_whole_answer_that_is_kept_nowhere_is_not_given_and_costs_nothing(
    kept_nowhere: Books, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(errors.StoreUnavailable) as failed:
        await use(kept_nowhere, lambda progress: progress.take(completion()))
    assert failed.value.dispatched
    assert not failed.value.retryable
    assert "a settlement is in memory only" in caplog.text
    await replay(kept_nowhere)

    assert kept_nowhere.entries == []
    kept_nowhere.assert_at_rest()


def streams(call: Call, *chunks: ChatCompletionChunk) -> Callable[[Progress], None]:
    def run(progress: Progress) -> None:
        for each in chunks:
            if progress.observe(each):
                call.record.note_chunk(0.0)

    return run


async def test_a_stream_that_is_kept_nowhere_ends_without_success_and_costs_what_was_delivered(
    kept_nowhere: Books,
) -> None:
    call = a_call()
    run = streams(call, chunk(), chunk(finish="stop"), usage_chunk(11, 7))
    with pytest.raises(errors.StoreUnavailable) as failed:
        await use(kept_nowhere, run, call=call)
    assert not failed.value.retryable
    await replay(kept_nowhere)

    (entry,) = kept_nowhere.entries
    assert (entry.amount, entry.partial) == (-price(11, 7), True)
    kept_nowhere.assert_at_rest()


async def test_a_call_that_failed_and_is_kept_nowhere_fails_for_its_own_reason(
    kept_nowhere: Books,
) -> None:
    call = a_call()

    def cut(progress: Progress) -> None:
        streams(call, chunk(), chunk())(progress)
        raise errors.UpstreamTruncated

    with pytest.raises(errors.UpstreamTruncated):
        await use(kept_nowhere, cut, call=call)
    with pytest.raises(KeyError):
        await use(kept_nowhere, fail)
    assert [type(each) for each in kept_nowhere.journal.unwritten.endings()] == [Settle, Release]
    await replay(kept_nowhere)

    assert [(entry.completion_tokens, entry.partial) for entry in kept_nowhere.entries] == [
        (2, True)
    ]
    kept_nowhere.assert_at_rest()


async def test_what_ends_together_shares_few_flushes_of_the_journal(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.store.fails_before = is_a(Settle)
    appended: list[int] = []
    append = books.journal.append

    def counted(*endings: Ending) -> None:
        appended.append(len(endings))
        append(*endings)

    monkeypatch.setattr(books.journal, "append", counted)
    calls = 50
    await asyncio.gather(
        *(use(books, lambda progress: progress.take(completion())) for _ in range(calls))
    )

    assert sum(appended) == calls
    assert len(appended) <= 5
    assert len(books.journal.kept().endings) == calls


async def test_a_charge_that_the_store_cannot_apply_is_kept(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    applying = books.store.applying

    def fails(operations: Sequence[Operation]) -> Work[list[Outcome]]:
        if any(map(is_a(Settle), operations)):
            raise OverflowError("a number that the store cannot hold")
        return applying(operations)

    monkeypatch.setattr(books.store, "applying", fails)
    await use(books, lambda progress: progress.take(completion()))

    assert [type(kept) for kept in books.journal.kept().endings] == [Settle]
    assert "a settlement failed" in caplog.text


async def test_a_charge_whose_hold_the_store_does_not_know_is_kept(books: Books) -> None:
    def restore(progress: Progress) -> None:
        progress.take(completion())
        with books.store.writing() as connection:
            connection.execute(sa.delete(holds))

    await use(books, restore)

    assert [type(kept) for kept in books.journal.kept().endings] == [Settle]


async def test_a_drain_does_not_wait_for_ever_for_settlements(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_WITHIN", 0.01)
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    monkeypatch.setattr(module, "ANSWER_WITHIN", 60.0)
    submit, loop = books.batches.submit, asyncio.get_running_loop()
    unanswered: list[Operation] = []
    come = asyncio.Event()

    def silent(operation: Operation) -> "asyncio.Future[Outcome]":
        if isinstance(operation, Place) and not unanswered:
            return submit(operation)
        unanswered.append(operation)
        come.set()
        return loop.create_future()

    with monkeypatch.context() as dead:
        dead.setattr(books.batches, "submit", silent)
        settling = asyncio.create_task(use(books, lambda progress: progress.take(completion())))
        await come.wait()
        come.clear()
        placing = asyncio.create_task(use(books))
        await come.wait()
        placing.cancel()
        await asyncio.wait((placing,))
        async with asyncio.timeout(10):
            await books.admission.settled()
            await asyncio.wait((settling,))
    # Nobody waits any more for the first call, whose answer was whole.
    assert settling.cancelled()
    left = books.journal.unwritten.endings()
    assert [type(ending) for ending in left] == [Release, Release]
    assert [ending.hold_id for ending in left] == [
        operation.hold_id for operation in unanswered if isinstance(operation, (Settle, Place))
    ]
    await replay(books)
    books.assert_at_rest()


async def test_a_place_that_is_never_answered_is_released(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await books.caller()  # found now, by a store that may take its time
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "ANSWER_WITHIN", 0.01)
    loop = asyncio.get_running_loop()
    submitted: list[Operation] = []

    def submit(operation: Operation) -> "asyncio.Future[Outcome]":
        submitted.append(operation)
        return loop.create_future()

    with monkeypatch.context() as dead:
        dead.setattr(books.batches, "submit", submit)
        with pytest.raises(errors.StoreUnavailable):
            await use(books)
        async with asyncio.timeout(10):
            await books.admission.settled()

    assert [type(operation) for operation in submitted] == [Place, Release]
    assert [type(kept) for kept in books.journal.kept().endings] == [Release]


async def test_who_does_not_wait_for_the_settlement_does_not_stop_it(books: Books) -> None:
    admitted = asyncio.Event()

    async def run() -> None:
        async with books.admission.admit(
            await books.caller(), a_call(), params(), MODEL, wants_usage=False
        ) as progress:
            progress.take(completion())
            admitted.set()
            await asyncio.get_running_loop().create_future()

    call = asyncio.create_task(run())
    await admitted.wait()
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait((call,))
    assert call.cancelled()
    await books.admission.settled()

    assert len(books.entries) == 1
    books.assert_at_rest()


# ----------------------------------------------------------------- cancelled at every moment


class FakeUpstream:
    """An upstream that answers in a few steps."""

    async def complete(self, *_: object) -> ChatCompletion:
        for _step in range(4):
            await asyncio.sleep(0)
        return completion({"prompt_tokens": 11, "completion_tokens": 3})

    async def stream(
        self, _: object, __: object, ___: object, progress: Progress
    ) -> AsyncGenerator[ChatCompletionChunk]:
        for each in (chunk(""), chunk(), chunk(), chunk(finish="stop"), usage_chunk(11, 3)):
            await asyncio.sleep(0)
            if progress.observe(each):
                yield each
        await asyncio.sleep(0)


STEPS: Final = 40
"""More than a call has; a test checks that."""


async def serve(books: Books, *, streamed: bool) -> None:
    upstream = cast("Any", FakeUpstream())
    servicer = ChatCompletionServicer(
        books.admission,
        Catalogue(models=MappingProxyType({"default": MODEL})),
        upstream,
        max_request_bytes=10_000,
        clock=lambda: 0.0,
    )
    CURRENT.set(a_call(authorization=f"Bearer {books.key}"))
    context = cast("Any", None)
    if not streamed:
        await servicer.CreateChatCompletion(CreateChatCompletionRequest(params=params()), context)
        return
    request = StreamChatCompletionRequest(params=params())
    async with aclosing(servicer.StreamChatCompletion(request, context)) as responses:
        async for _ in responses:
            await asyncio.sleep(0)


@pytest.mark.parametrize("again", [None, 0, 1, 2, 5])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_can_be_cancelled_at_any_moment(
    tmp_path: Path, streamed: bool, again: int | None
) -> None:
    books = Books(tmp_path, InPlace)
    endings: dict[str, int] = {"left": 0, "complete": 0}
    for step in range(STEPS):
        if step % 2:
            books.monotonic += 10  # the key is looked up again
        charged = len(books.entries)
        call = asyncio.create_task(serve(books, streamed=streamed))
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        if again is not None:
            for _ in range(again):
                await asyncio.sleep(0)
            call.cancel()
        await asyncio.wait((call,))
        await books.admission.settled()
        endings["left" if call.cancelled() else "complete"] += 1
        books.assert_at_rest()
        new = books.entries[: len(books.entries) - charged]
        assert len(new) <= 1
        for entry in new:
            tokens = entry.completion_tokens
            assert -entry.amount == price(entry.prompt_tokens, tokens)
            assert 1 <= tokens <= 3
            assert entry.partial or not call.cancelled() or tokens == 3
        if not call.cancelled():
            assert len(new) == 1
    assert min(endings.values()) > 3
    assert books.journal.is_empty()
    await books.close()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [Place, Settle, Release])
@pytest.mark.parametrize("committed", [False, True])
async def test_the_store_can_go_away_at_any_moment_of_a_call_that_is_cancelled(
    tmp_path: Path, streamed: bool, kind: type, committed: bool
) -> None:
    books = Books(tmp_path, InPlace)
    for step in range(STEPS):
        setattr(books.store, "fails_after" if committed else "fails_before", is_a(kind))
        call = asyncio.create_task(serve(books, streamed=streamed))
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait((call,))
        await books.admission.settled()
        if not call.cancelled():
            call.exception()
        books.store.fails_before = books.store.fails_after = is_a()
        kept = books.journal.kept()
        for ending in kept.endings:
            await books.batches.submit(ending)
        assert books.journal.forget(kept)
        books.assert_at_rest()
    await books.close()


@pytest.mark.parametrize("streamed", [False, True])
async def test_store_and_journal_can_fail_at_any_moment_of_a_call_that_is_cancelled(
    tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books(tmp_path, InPlace)
    monkeypatch.setattr(books.journal, "append", full)
    left = 0
    for step in range(STEPS):
        charged = len(books.entries)
        books.store.fails_before = is_a(Settle, Release)
        call = asyncio.create_task(serve(books, streamed=streamed))
        for _ in range(step):
            await asyncio.sleep(0)
        call.cancel()
        (ended,) = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(ended, (errors.StoreUnavailable, asyncio.CancelledError))
        left += call.cancelled()
        await books.admission.settled()
        await replay(books)
        books.assert_at_rest()
        new = books.entries[: len(books.entries) - charged]
        # Nothing of a whole answer was delivered, and of a stream what was paid.
        assert len(new) <= streamed
        for entry in new:
            assert entry.partial
            assert 1 <= entry.completion_tokens <= 3
        if streamed and isinstance(ended, errors.StoreUnavailable):
            assert [entry.completion_tokens for entry in new] == [3]
    assert left > 3
    await books.close()
