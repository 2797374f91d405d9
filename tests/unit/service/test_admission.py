"""Who may call, what a call costs, and who is refused; how calls end: `test_admission_endings`."""

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from typing import Final, cast

import pytest
from google.rpc import error_details_pb2, status_pb2

from service import admission as module
from service import errors
from service.accounts.keys import Caller
from service.admission import duration
from service.call import Call
from service.ledger.rates import Level
from service.ledger.rows import (
    Refusal,
    Refused,
)
from service.ledger.store import StoreError
from service.metering import bound as bounds
from service.metering.progress import Progress
from tests.unit.service.books import (
    CREDIT,
    MODEL,
    NANO,
    Books,
    a_call,
    chunk,
    completion,
    params,
    price,
    usage_chunk,
    use,
)

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
    assert (entry.prompt_tokens, entry.completion_tokens) == (bounds.estimate(params(), MODEL), 2)
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
    found = [bounds.bound_of(params(n=n, max_tokens=50), MODEL, 50) for n in (1, 3)]

    assert [bound.completion_tokens for bound in found] == [50, 150]
    assert held == [price(bound.prompt_tokens, bound.completion_tokens) for bound in found]


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
    bound = bounds.bound_of(params(), MODEL, 100)
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
