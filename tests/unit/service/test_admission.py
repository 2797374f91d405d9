"""The cost of calls, and rejected calls. `test_settlement` tests the ends of calls."""

import asyncio
import re
from dataclasses import replace
from typing import cast

import pytest
from google.rpc import error_details_pb2, status_pb2

from service import admission as module
from service import errors
from service.accounts.keys import Caller
from service.admission import Admission
from service.call import Call
from service.ledger.batches import PATIENCE
from service.ledger.budgets import Window
from service.ledger.rows import (
    Exceeded,
    Place,
    Refusal,
    Refused,
)
from service.metering import bound as bounds
from service.metering.progress import Progress
from service.models import NO_SPECIAL_PRICES, PriceChange
from tests.unit.service.books import (
    CREDIT,
    MODEL,
    NANO,
    Books,
    a_call,
    accepted,
    chunk,
    completion,
    params,
    price,
    usage_chunk,
    use,
)

# ------------------------------------------------------------------------------------------ cost


async def test_what_the_upstream_reports_is_charged_and_recorded(books: Books) -> None:
    call = a_call()

    def stream(progress: Progress) -> None:
        for each in (chunk(), chunk(finish="stop"), usage_chunk(11, 7)):
            progress.observe(each)

    await use(books, stream, call=call)

    (entry,) = books.entries
    assert (entry.amount, entry.partial, entry.estimated) == (-price(11, 7), False, False)
    assert (call.record.prompt_tokens, call.record.completion_tokens) == (11, 7)
    assert call.record.charge == price(11, 7)
    books.assert_at_rest()


async def test_without_receipts_a_call_gets_none(books: Books) -> None:
    call = a_call()
    admission = Admission(
        books.batches, books.settlement, owner="test", patience=PATIENCE, gives_receipts=False
    )
    caller = await books.caller()

    async with admission.admit(caller, call, accepted(), wants_usage=False) as progress:
        progress.take(completion())

    assert len(books.entries) == 1
    assert (call.gives_receipt, call.charge) == (False, None)


async def test_a_hold_is_open_until_it_is_settled(books: Books) -> None:
    seen: list[int] = []

    def look(progress: Progress) -> None:
        seen.append(books.admission.open_holds)
        progress.take(completion())

    await use(books, look)

    assert seen == [1]
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
    estimate = bounds.bound_of(params(), MODEL, 1).prompt_estimate
    assert (entry.prompt_tokens, entry.completion_tokens) == (estimate, 2)
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

    call = a_call()
    await use(books, run, call=call)

    (entry,) = books.entries
    assert entry.amount == -hold
    assert call.charge is not None
    assert (call.charge.amount_nano_credits, call.charge.hold_id) == (hold, entry.hold_id)
    assert call.charge.prompt_nano_credits == price(1, 0)
    assert entry.completion_tokens == 10**12
    assert books.lost == float(price(1, 2**62) - hold)
    assert "usage above the hold" in caplog.text
    books.assert_at_rest()


@pytest.mark.parametrize(("prompt", "output"), [(10**12 + 1, 7), (11, 10**12 + 1)])
async def test_more_tokens_than_any_call_uses_are_not_recorded(
    books: Books, prompt: int, output: int
) -> None:
    def run(progress: Progress) -> None:
        for each in (chunk(), chunk(finish="stop"), usage_chunk(prompt, output)):
            progress.observe(each)

    await use(books, run)

    (entry,) = books.entries
    assert (entry.prompt_tokens, entry.completion_tokens) == (
        min(prompt, 1_000_000_000_000),
        min(output, 1_000_000_000_000),
    )


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


# ----------------------------------------------------------------------------------- rejections

CALLER = Caller(account_id=1, account_name="acme", key_id=1, key_name="ci", parents=((7, "all"),))
BUDGET = Exceeded(
    account_id=None,
    window=Window.MONTH,
    time_zone="Europe/Berlin",
    limit=10 * NANO,
    spent=9 * NANO,
    held=NANO // 2,
    end=1_796_079_600 * NANO,
)


def limits(call: Call) -> dict[str, str]:
    return dict(call.rate_limit)


async def test_the_limit_that_is_named_fits_and_one_more_does_not(books: Books) -> None:
    books.grant(1_900_000 - CREDIT, "less")
    with pytest.raises(errors.InsufficientCredits) as refused:
        await use(books, max_tokens=1000)
    assert refused.value.message.startswith("Insufficient credits: this request can cost up to ")
    fits = int(re.findall(r"set max_tokens to at most (\d+)\.", refused.value.message)[0])
    with pytest.raises(errors.InsufficientCredits):
        await use(books, max_tokens=fits + 1)

    await use(books, max_tokens=fits)
    assert 0 < fits < 1000


async def test_what_others_hold_is_another_refusal(books: Books) -> None:
    books.grant(price(1000, 150) - CREDIT, "less")

    async with books.admission.admit(await books.caller(), a_call(), accepted(), wants_usage=False):
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
            async with books.admission.admit(caller, a_call(), accepted(), wants_usage=False):
                raise AssertionError("admitted")
        assert refused.value.message == errors.KEY_ENDED
    books.assert_at_rest()


async def test_a_key_uses_its_models_only(books: Books) -> None:
    key = books.add_key("limited", models=("other",))
    with pytest.raises(errors.ModelNotAllowed) as refused:
        await use(books, key=key)
    assert refused.value.param == "model"


@pytest.mark.parametrize("refusal", Refusal)
async def test_every_refusal_is_told_as_something(refusal: Refusal) -> None:
    bound = bounds.bound_of(params(), MODEL, 100)
    place = Place(
        hold_id="h", account_id=1, key_id=1, amount=5, tokens=1, model="m", owner="o", lease=1
    )
    is_of_budget = refusal in (Refusal.BUDGET, Refusal.BUDGET_HELD)
    refused = Refused(refusal=refusal, budget=BUDGET if is_of_budget else None)
    failure = module.failure_of(refused, place, bound, accepted(), CALLER)

    assert failure.rule.http_status in (401, 402, 403, 429)


def test_a_request_has_the_prices_of_its_time() -> None:
    changes = tuple(
        PriceChange(since=since, input_price=since, output_price=1, special=NO_SPECIAL_PRICES)
        for since in (10, 20)
    )
    request = accepted(replace(MODEL, price_changes=changes))

    assert module.priced_at(request, 9) is request
    assert module.priced_at(request, 10).model.input_price == 10
    assert module.priced_at(request, 25).model.input_price == 20
