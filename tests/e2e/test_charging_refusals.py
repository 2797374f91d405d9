"""Rejected calls: 401, 402, 403 and 429 over gRPC and REST, with their hints."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import sqlalchemy as sa

from service.accounts.budget_rows import BudgetChange
from service.ledger.budgets import Window, local_time
from service.ledger.schema import api_keys
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, HELLO, Answer, DoorName, document
from tests.support.books import Team
from tests.support.priced_models import cost, priced
from tests.support.waiting import PATIENCE

LIMIT_HEADERS = tuple(
    f"x-ratelimit-{what}-{unit}"
    for unit in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)
DURATION = re.compile(r"(\d+m)?\d+(\.\d+)?s|\d+ms")
HANGING = "sim-fault:hang-before-headers"
FORMS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
OWN = ("x-request-id", "date")
"""Headers that differ in each response."""
BOTH_DOORS = pytest.mark.parametrize("door", DOORS)

# The hold of a call depends only on its output limit.
OUTPUT_ONLY = priced(upstream_model="sim:tokens=8", input_price=0)
MODELS = {
    "output-only": OUTPUT_ONLY,
    "default": priced(),
    "hanging": priced(upstream_model=HANGING, input_price=0),
}


@pytest.fixture(autouse=True)
def limits_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no call give up the state of its limits because the machine is busy."""
    monkeypatch.setattr("service.authentication.LOOK_WITHIN", PATIENCE)


@asynccontextmanager
async def in_flight(stack: AccountsStack, team: Team, **members: Any) -> AsyncIterator[None]:
    """Keep one call in progress."""
    request = document("hanging", **members)
    call = asyncio.create_task(stack.ask("grpc", team.key, request))
    record = await stack.upstream.next_record()
    try:
        yield
    finally:
        call.cancel()
        await asyncio.wait((call,))
        await record.ended.wait()
        await stack.rests()


# ------------------------------------------------------------------------------------------ 402


@FORMS
@BOTH_DOORS
async def test_too_little_credit_is_told_with_the_largest_limit_that_fits(
    door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS) as stack:
        # A hold of 1,000 tokens fits, but not of 1,001.
        team = stack.books.team(credit=cost(0, 1001, OUTPUT_ONLY) - 1)

        async def ask(limit: int) -> Answer:
            request = document("output-only", max_tokens=limit)
            return await stack.ask(door, team.key, request, streamed=streamed)

        refused = await ask(5000)
        told = re.search(r"to at most (\d+)\.", refused.message)
        assert told is not None
        fits = int(told[1])
        one_more = await ask(fits + 1)
        admitted = await ask(fits)
        await stack.rests()

        assert fits == 1000
        for answer in (refused, one_more):
            assert (answer.status, answer.code) == (402, "insufficient_credits")
            assert answer.retryable is False
            assert answer.retry_after_ms is None
        assert admitted.code == ""
        assert [charge.amount for charge in stack.books.charges(team)] == [cost(0, 8, OUTPUT_ONLY)]
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_without_credit_no_limit_is_named(door: DoorName) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(credit=0)
        answer = await stack.ask(door, team.key, "default")

        assert (answer.status, answer.code) == (402, "insufficient_credits")
        assert "max_tokens" not in answer.message
        assert len(stack.upstream.records) == 0


@FORMS
@BOTH_DOORS
async def test_credit_that_others_hold_is_worth_waiting_for(door: DoorName, streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(credit=cost(0, 150, OUTPUT_ONLY))
        request = document("output-only", max_tokens=100)
        async with in_flight(stack, team, max_tokens=100):
            held = await stack.ask(door, team.key, request, streamed=streamed)
        after = await stack.ask(door, team.key, request, streamed=streamed)
        await stack.rests()

        assert (held.status, held.code, held.retryable) == (402, "credits_held", True)
        assert held.retry_after_ms == 1000
        free = cost(0, 150, OUTPUT_ONLY) - cost(0, 100, OUTPUT_ONLY)
        fits = max(limit for limit in range(100) if cost(0, limit, OUTPUT_ONLY) <= free)
        assert f"to at most {fits}." in held.message
        assert after.code == ""
        stack.books.nothing_is_open()


@FORMS
@BOTH_DOORS
async def test_a_spent_budget_is_told_with_its_reset(door: DoorName, streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team()
        limit = cost(0, 100, OUTPUT_ONLY)
        changes = [BudgetChange(Window.MONTH, limit, "Europe/Berlin")]
        (month,) = stack.books.directory.budgets.set(team.name, team.key_name, changes=changes)
        assert month.end is not None
        request = document("output-only", max_tokens=101)
        refused = await stack.ask(door, team.key, request, streamed=streamed)
        admitted = await stack.ask(
            door, team.key, document("output-only", max_tokens=100), streamed=streamed
        )
        await stack.rests()

        assert (refused.status, refused.code) == (402, "budget_exceeded")
        assert (refused.retryable, refused.retry_after_ms) == (False, None)
        assert "the monthly budget of this API key" in refused.message
        assert f"until {local_time(month.end, 'Europe/Berlin')}." in refused.message
        assert "max_tokens to at most 100." in refused.message
        assert admitted.code == ""
        stack.books.nothing_is_open()


@FORMS
@BOTH_DOORS
async def test_a_budget_that_others_hold_is_worth_waiting_for(
    door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team()
        changes = [BudgetChange(Window.TOTAL, cost(0, 150, OUTPUT_ONLY))]
        stack.books.directory.budgets.set(team.name, changes=changes)
        request = document("output-only", max_tokens=100)
        async with in_flight(stack, team, max_tokens=100):
            held = await stack.ask(door, team.key, request, streamed=streamed)
        after = await stack.ask(door, team.key, request, streamed=streamed)
        await stack.rests()

        assert (held.status, held.code, held.retryable) == (402, "credits_held", True)
        assert f"the total budget of the account '{team.name}'" in held.message
        assert after.code == ""
        stack.books.nothing_is_open()


# ------------------------------------------------------------------------------------------ 403


@FORMS
@BOTH_DOORS
async def test_a_key_uses_only_its_models(door: DoorName, streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(models=("default",))
        refused = await stack.ask(door, team.key, "output-only", streamed=streamed)
        admitted = await stack.ask(door, team.key, "default", streamed=streamed)
        await stack.rests()

        assert (refused.status, refused.code) == (403, "model_not_allowed")
        assert refused.retryable is False
        assert admitted.code == ""
        assert len(stack.books.charges(team)) == 1
        stack.books.nothing_is_open()


# ------------------------------------------------------------------------------------------ 429


def assert_limited(answer: Answer, subject: str, *, retryable: bool = True) -> None:
    assert (answer.status, answer.code, answer.retryable) == (429, "rate_limit_exceeded", retryable)
    assert subject in answer.message
    assert (answer.retry_after_ms is not None) is retryable


def levels(answer: Answer) -> dict[str, str]:
    return {name: answer.headers[name] for name in LIMIT_HEADERS if name in answer.headers}


@FORMS
@BOTH_DOORS
@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (document("none such"), 404),
        (document("default", temperature=3), 422),
        (document("default", max_tokens=10**9), 422),
    ],
)
async def test_what_is_refused_before_its_limits_is_told_them_too(
    door: DoorName, streamed: bool, request_of: dict[str, Any], status: int
) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(requests_per_minute=60, tokens_per_minute=6000)
        answer = await stack.ask(door, team.key, request_of, streamed=streamed)

        assert answer.status == status
        assert tuple(levels(answer)) == LIMIT_HEADERS
        # The rejected call took nothing.
        assert answer.headers["x-ratelimit-remaining-requests"] == "60"
        assert answer.headers["x-ratelimit-remaining-tokens"] == "6000"
        free = stack.books.team()
        assert levels(await stack.ask(door, free.key, request_of, streamed=streamed)) == {}
        stranger = await stack.ask(door, "sk-live-nobody's", request_of, streamed=streamed)
        assert (stranger.status, levels(stranger)) == (401, {})


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models", 200),
        ("/v1/models/default", 200),
        ("/v1/models/no", 404),
        ("/v1/credits", 200),
    ],
)
async def test_what_costs_nothing_tells_the_limits_too(path: str, status: int) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(requests_per_minute=60)
        response = await stack.web.get(path, headers={"authorization": f"Bearer {team.key}"})

        assert response.status_code == status
        assert response.headers["x-ratelimit-limit-requests"] == "60"
        assert response.headers["x-ratelimit-remaining-requests"] == "60"
        assert response.headers["x-ratelimit-reset-requests"] == "0ms"


async def test_limits_are_told_however_many_keys_ask_at_once(database: str) -> None:
    async with accounts_stack(MODELS, database=database) as stack:
        teams = [stack.books.team(requests_per_minute=60 + number) for number in range(150)]
        asked = [(path, team) for path in ("/v1/models", "/v1/credits") for team in teams]
        responses = await asyncio.gather(
            *(
                stack.web.get(path, headers={"authorization": f"Bearer {team.key}"})
                for path, team in asked
            )
        )

        assert {response.status_code for response in responses} <= {200, 503}
        told = [
            response.headers.get("x-ratelimit-limit-requests")
            for response in responses
            if response.status_code == 200
        ]
        wanted = [
            str(60 + number)
            for number, response in zip([*range(150)] * 2, responses, strict=True)
            if response.status_code == 200
        ]
        assert told == wanted
        # Queries of one caller do not reject those of others.
        assert {response.status_code for response in responses[:150]} == {200}


@FORMS
@BOTH_DOORS
async def test_requests_per_minute(door: DoorName, streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(requests_per_minute=2)
        answers = [await stack.ask(door, team.key, "default", streamed=streamed) for _ in range(3)]
        await stack.rests()

        assert [answer.code for answer in answers[:2]] == ["", ""]
        assert_limited(answers[2], "requests per minute")
        assert answers[2].retry_after_ms is not None
        assert 0 < answers[2].retry_after_ms <= 30_001
        if door != "grpc":
            seconds = int(answers[2].headers["retry-after"])
            assert 0 <= 1000 * seconds - answers[2].retry_after_ms < 1000
        for answer, remaining in zip(answers, "100", strict=True):
            told = levels(answer)
            assert told["x-ratelimit-limit-requests"] == "2"
            assert told["x-ratelimit-remaining-requests"] == remaining
            assert DURATION.fullmatch(told["x-ratelimit-reset-requests"])
            assert "x-ratelimit-limit-tokens" not in told  # the key has no such limit
        assert len(stack.books.charges(team)) == 2
        stack.books.nothing_is_open()


@FORMS
@BOTH_DOORS
async def test_tokens_per_minute(door: DoorName, streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(tokens_per_minute=3000)
        large = document("default", max_tokens=2000)
        async with in_flight(stack, team, max_tokens=1000):
            limited = await stack.ask(door, team.key, large, streamed=streamed)
        # The unused tokens are returned.
        admitted = await stack.ask(door, team.key, large, streamed=streamed)
        await stack.rests()

        assert_limited(limited, "tokens per minute")
        assert limited.retry_after_ms is not None
        assert 0 < limited.retry_after_ms <= 60_000
        told = levels(limited)
        assert told["x-ratelimit-limit-tokens"] == "3000"
        assert 0 < int(told["x-ratelimit-remaining-tokens"]) < 2000
        assert DURATION.fullmatch(told["x-ratelimit-reset-tokens"])
        assert admitted.code == ""
        assert int(admitted.headers["x-ratelimit-remaining-tokens"]) < 1000
        stack.books.nothing_is_open()


@BOTH_DOORS
async def test_more_tokens_than_ever_fit_are_told_with_the_largest_limit_that_does(
    door: DoorName,
) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(tokens_per_minute=3000)
        refused = await stack.ask(door, team.key, document("default", max_tokens=5000))
        told = re.search(r"to at most (\d+)\.", refused.message)
        assert told is not None
        fits = int(told[1])
        one_more = await stack.ask(door, team.key, document("default", max_tokens=fits + 1))
        admitted = await stack.ask(door, team.key, document("default", max_tokens=fits))
        await stack.rests()

        assert_limited(refused, "tokens per minute", retryable=False)
        assert_limited(one_more, "tokens per minute", retryable=False)
        assert 0 < fits < 3000
        assert admitted.code == ""


@FORMS
@BOTH_DOORS
async def test_concurrent_calls(door: DoorName, streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(concurrency=1)
        async with in_flight(stack, team):
            limited = await stack.ask(door, team.key, "default", streamed=streamed)
        admitted = await stack.ask(door, team.key, "default", streamed=streamed)
        await stack.rests()

        assert_limited(limited, "concurrent calls")
        assert "concurrent calls: limit 1. Try again in 1" in limited.message
        assert limited.retry_after_ms is not None
        assert 1000 <= limited.retry_after_ms <= 1001
        assert admitted.code == ""
        stack.books.nothing_is_open()


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_sdk_reads_the_limits(streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(requests_per_minute=1, tokens_per_minute=100_000)
        async with openai.AsyncOpenAI(
            base_url=f"http://{stack.bridge.address}/v1",
            api_key=team.key,
            max_retries=0,
            timeout=PATIENCE,
        ) as client:
            members: Any = {"model": "default", "messages": HELLO, "stream": streamed}
            raw = await client.chat.completions.with_raw_response.create(**members)
            if streamed:
                async for _ in raw.parse():
                    pass
            with pytest.raises(openai.RateLimitError) as limited:
                await client.chat.completions.with_raw_response.create(**members)
        await stack.rests()

        refused = limited.value.response.headers
        assert set(LIMIT_HEADERS) <= set(raw.headers)
        assert set(LIMIT_HEADERS) <= set(refused)
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused["x-should-retry"] == "true"
        assert 0 < int(refused["retry-after-ms"]) <= 60_001
        assert 0 < int(refused["retry-after"]) <= 61
        assert limited.value.code == "rate_limit_exceeded"
        assert limited.value.type == "rate_limit_error"


# ------------------------------------------------------------------------------------------ 401


def change_key(stack: AccountsStack, team: Team, **values: Any) -> None:
    with stack.books.store.writing() as connection:
        connection.execute(sa.update(api_keys).where(api_keys.c.id == team.key_id).values(**values))


@FORMS
@BOTH_DOORS
async def test_revocation_and_expiry_take_effect_at_once(door: DoorName, streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        revoked, expired = stack.books.team(), stack.books.team()
        for team in (revoked, expired):
            # The lookup is cached from now on.
            assert (await stack.ask(door, team.key, "default", streamed=streamed)).code == ""
        stack.books.directory.revoke_key(revoked.name, revoked.key_name)
        change_key(stack, expired, expires_at=1)
        for team in (revoked, expired):
            answer = await stack.ask(door, team.key, "default", streamed=streamed)
            assert (answer.status, answer.code) == (401, "invalid_api_key")
        await stack.rests()

        for team in (revoked, expired):
            assert len(stack.books.charges(team)) == 1
        assert len(stack.upstream.records) == 2
        stack.books.nothing_is_open()


@FORMS
@BOTH_DOORS
async def test_a_suspended_account_or_key_is_refused_until_it_is_resumed(
    door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS) as stack:
        lifecycle = stack.books.directory.lifecycle
        of_account, of_key = stack.books.team(), stack.books.team()
        for team in (of_account, of_key):
            # The lookup is cached from now on.
            assert (await stack.ask(door, team.key, "default", streamed=streamed)).code == ""
        unseen = stack.books.team()
        lifecycle.suspend_account(of_account.name)
        lifecycle.suspend_account(unseen.name)
        lifecycle.suspend_key(of_key.name, of_key.key_name)
        for team in (of_account, of_key, unseen):
            answer = await stack.ask(door, team.key, "default", streamed=streamed)
            assert (answer.status, answer.code, answer.retryable) == (403, "suspended", False)
        lifecycle.resume_account(of_account.name)
        lifecycle.resume_key(of_key.name, of_key.key_name)
        for team in (of_account, of_key):
            assert (await stack.ask(door, team.key, "default", streamed=streamed)).code == ""
        await stack.rests()

        assert len(stack.upstream.records) == 4
        stack.books.nothing_is_open()


@FORMS
@BOTH_DOORS
async def test_every_wrong_key_gets_the_same_answer_but_its_message(
    door: DoorName, streamed: bool
) -> None:
    async with accounts_stack(MODELS) as stack:
        limits = {"requests_per_minute": 60, "tokens_per_minute": 60_000}
        remembered, revoked, expired, past = (stack.books.team(**limits) for _ in range(4))
        for team in (remembered, expired):
            assert (await stack.ask(door, team.key, "default", streamed=streamed)).code == ""
        for team in (remembered, revoked):
            stack.books.directory.revoke_key(team.name, team.key_name)
        for team in (expired, past):
            change_key(stack, team, expires_at=1)
        right = stack.books.team().key
        keys = [
            *(team.key for team in (remembered, revoked, expired, past)),
            *("sk-live-unknown", right + "x", right[:-1], right.swapcase(), "x" * 257),
            *("' OR 1=1 --", "%s", "x" * 300),
        ]
        answers = [await stack.ask(door, key, "default", streamed=streamed) for key in keys]
        await stack.rests()

        told = [
            (
                answer.status,
                answer.code,
                answer.retryable,
                {k for k in answer.headers if k not in OWN},
            )
            for answer in answers
        ]
        assert told == [told[0]] * len(keys)
        assert told[0][0] == 401


async def test_a_key_revoked_a_moment_ago_is_told_no_more_by_its_credits() -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(requests_per_minute=60)

        async def ask(key: str) -> tuple[int, str, list[str]]:
            response = await stack.web.get(
                "/v1/credits", headers={"authorization": f"Bearer {key}"}
            )
            error = response.json().get("error", {})
            return response.status_code, error.get("code", ""), sorted(response.headers)

        assert (await ask(team.key))[0] == 200
        stack.books.directory.revoke_key(team.name, team.key_name)
        assert await ask(team.key) == await ask("sk-live-nobody's")


# -------------------------------------------------------------------------------- all together


async def test_a_thousand_calls_with_credit_for_a_hundred() -> None:
    async with accounts_stack(MODELS) as stack:
        # Each call uses its whole hold.
        request = document("output-only", max_tokens=8)
        team = stack.books.team(credit=100 * cost(0, 8, OUTPUT_ONLY))
        answers = await asyncio.gather(
            *(
                stack.ask("grpc", team.key, request, streamed=bool(number % 2), deadline=60)
                for number in range(1000)
            )
        )
        await stack.rests()

        codes = Counter(answer.code for answer in answers)
        assert codes[""] == 100
        assert codes.keys() <= {"", "insufficient_credits", "credits_held"}
        assert codes.total() == 1000
        assert stack.books.balance(team) == 0
        assert len(stack.upstream.records) == 100
        stack.books.nothing_is_open()
