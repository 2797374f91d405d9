"""Calls without a hold check the key like others: models, one model, credits.

key                          gRPC and REST
expired before its first use 401
expires after a lookup       401, when the cached lookup expires
has only a token limit       x-ratelimit-*-tokens on every response
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import pytest
import sqlalchemy as sa

from chatcompletion.v1 import credit_service_pb2, model_service_pb2
from chatcompletion.v1.credit_service_pb2_grpc import CreditServiceStub
from chatcompletion.v1.model_service_pb2_grpc import ModelServiceStub
from service.ledger.schema import api_keys
from tests.support.accounts_admin import bearer
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, DoorName
from tests.support.books import Team
from tests.support.grpc_client import failed
from tests.support.waiting import PATIENCE

Told = tuple[int, dict[str, str]]
"""The HTTP status, also over gRPC, and headers or metadata."""

PATHS: Final = {"models": "/v1/models", "model": "/v1/models/default", "credits": "/v1/credits"}
PAST: Final = 1
"""Nanoseconds since the Unix epoch."""


@pytest.fixture(autouse=True)
def limits_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no call give up the state of its limits because the machine is busy."""
    monkeypatch.setattr("service.authentication.LOOK_WITHIN", PATIENCE)


async def _ask_grpc(channel: Any, metadata: Any, what: str) -> Told:
    models: Any = ModelServiceStub(channel)
    credits_: Any = CreditServiceStub(channel)
    asked: dict[str, Callable[..., Any]] = {
        "models": lambda **how: models.ListModels(model_service_pb2.ListModelsRequest(), **how),
        "model": lambda **how: models.GetModel(
            model_service_pb2.GetModelRequest(model="default"), **how
        ),
        "credits": lambda **how: credits_.GetCredits(credit_service_pb2.GetCreditsRequest(), **how),
    }
    call = asked[what](metadata=metadata, timeout=PATIENCE)
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return failed(error).http_status, {}
    return 200, dict(await call.initial_metadata())


async def ask(stack: AccountsStack, door: DoorName, team: Team, what: str) -> Told:
    """Make a call without a hold."""
    if door == "grpc":
        return await _ask_grpc(stack.channel, bearer(team.key), what)
    headers = {"authorization": f"Bearer {team.key}"}
    response = await stack.web.get(PATHS[what], headers=headers)
    return response.status_code, dict(response.headers)


def _expire(stack: AccountsStack, team: Team) -> None:
    with stack.books.store.writing() as connection:
        connection.execute(
            sa.update(api_keys).where(api_keys.c.id == team.key_id).values(expires_at=PAST)
        )


@pytest.mark.parametrize("door", DOORS)
async def test_a_key_that_expired_before_its_first_use_is_no_key(door: DoorName) -> None:
    async with accounts_stack() as stack:
        for what in PATHS:
            assert (await ask(stack, door, stack.books.team(), what))[0] == 200
            expired = stack.books.team(expires_at=PAST)
            assert (await ask(stack, door, expired, what))[0] == 401


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("what", PATHS)
async def test_a_key_that_expires_after_a_lookup_is_soon_no_key(
    door: DoorName, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.authentication.REMEMBERED", 0.05)
    async with accounts_stack() as stack:
        team = stack.books.team()
        assert (await ask(stack, door, team, what))[0] == 200
        _expire(stack, team)
        await _comes_to(401, lambda: ask(stack, door, team, what))


async def test_credits_know_at_once_that_a_key_expired() -> None:
    async with accounts_stack() as stack:
        team = stack.books.team()
        assert (await ask(stack, "grpc", team, "models"))[0] == 200
        _expire(stack, team)
        assert (await ask(stack, "grpc", team, "models"))[0] == 200  # from the cache
        assert (await ask(stack, "grpc", team, "credits"))[0] == 401


async def _comes_to(status: int, asking: Callable[[], Awaitable[Told]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await asking())[0] != status:
            pass


@pytest.mark.parametrize("door", DOORS)
async def test_a_limit_of_tokens_alone_is_told_on_answers_without_a_hold(door: DoorName) -> None:
    expected = {
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "6000",
        "x-ratelimit-reset-tokens": "0ms",
    }
    async with accounts_stack() as stack:
        team = stack.books.team(tokens_per_minute=6000)
        for what in PATHS:
            _, headers = await ask(stack, door, team, what)
            assert _limits(headers) == expected
        for request in ({"model": "no-such"}, {"model": "default", "temperature": 9}):
            answer = await stack.ask(door, team.key, {"messages": [], **request})
            assert answer.status in (404, 422)
            assert _limits(answer.headers) == expected


def _limits(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in headers if name.startswith("x-ratelimit-")}
