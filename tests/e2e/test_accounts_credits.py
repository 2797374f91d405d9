"""The caller's own account: CreditService, and GET /v1/credits of the bridge."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from chatcompletion.v1 import credit_service_pb2 as pb
from process import settings as process_settings
from restbridge.config import Settings
from restbridge.server import Bridge
from service.accounts import keys
from service.accounts.reports import DAY, month_back
from service.ledger.rows import Grant, Place, Settle
from tests.support.accounts_admin import House, admin, bearer
from tests.support.grpc_client import failed
from tests.support.waiting import PATIENCE

CREDIT = 10**9


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with admin(database) as running:
        yield running


@asynccontextmanager
async def door(house: House) -> AsyncIterator[httpx.AsyncClient]:
    settings = process_settings.read(
        Settings,
        {
            "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
            "CHAT_SERVICE_TARGET": house.callers_address,
        },
    )
    bridge = Bridge(settings)
    await bridge.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{bridge.address}", trust_env=False, timeout=PATIENCE
        ) as client:
            yield client
    finally:
        bridge.hurry()
        await bridge.stop(delay=0, grace=0)


async def team(house: House, name: str = "acme", **limits: Any) -> str:
    """Create an account with one credit, of which a part is spent and a part is held."""
    owner = house.directory.create_account(name)
    view, key = house.directory.create_key(name, "ci", **limits)
    other, _ = house.directory.create_key(name, "other")
    await house.batches.submit(Grant(account_id=owner.id, amount=CREDIT, idempotency_id="first"))
    for hold_id, key_id, amount, settles in (
        (f"{name}-1", view.id, 300, True),
        (f"{name}-2", other.id, 50, True),
        (f"{name}-3", view.id, 1000, False),
    ):
        hold: dict[str, Any] = {"hold_id": hold_id, "account_id": owner.id, "key_id": key_id}
        await house.batches.submit(
            Place(**hold, amount=amount, tokens=3, model="m", owner="tests", lease=60 * 10**9)
        )
        if settles:
            await house.batches.submit(
                Settle(**hold, charge=amount, prompt_tokens=1, completion_tokens=2)
            )
    return key


async def test_a_caller_sees_its_account_its_key_and_its_own_usage(house: House) -> None:
    key = await team(house, requests_per_minute=60, models=("m",))
    answer = await house.credits.GetCredits(
        pb.GetCreditsRequest(), metadata=bearer(key), timeout=PATIENCE
    )

    assert answer.account.name == "acme"
    assert answer.account.balance_nano_credits == CREDIT - 350
    assert answer.account.held_nano_credits == 1000
    assert answer.account.available_nano_credits == CREDIT - 1350
    assert answer.api_key.limits.requests_per_minute == 60
    assert not answer.api_key.limits.HasField("tokens_per_minute")
    (total,) = answer.usage
    assert (total.key_name, total.model, total.requests) == ("ci", "m", 1)
    assert total.charged_nano_credits == 300
    assert key.encode() not in answer.SerializeToString()


async def test_who_has_no_key_sees_nothing(house: House) -> None:
    await team(house)
    for metadata in ((), bearer("sk-live-wrong"), bearer("' OR 1=1 --")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await house.credits.GetCredits(
                pb.GetCreditsRequest(), metadata=metadata, timeout=PATIENCE
            )
        assert failed(caught.value).reason == "INVALID_API_KEY"


async def test_a_key_that_was_revoked_since_it_was_looked_up_sees_nothing(house: House) -> None:
    await team(house)
    caller_key = house.directory.create_key("acme", "brief")[1]
    caller = house.directory.callers.find(keys.digest(caller_key))
    assert caller is not None
    assert house.directory.reports.statement(caller, since=0, most=10) is not None
    house.directory.revoke_key("acme", "brief")
    assert house.directory.reports.statement(caller, since=0, most=10) is None


async def test_credits_over_rest(house: House) -> None:
    key = await team(house, requests_per_minute=60, models=("m",))
    await team(house, "others")
    async with door(house) as client:
        response = await client.get(
            "/v1/credits", headers={"authorization": f"Bearer {key}", "x-request-id": "req_7"}
        )

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"] == "req_7"
    answer = response.json()
    start = answer["usage"][0]["start"]
    assert start * 10**9 % DAY == 0
    assert answer == {
        "object": "credits",
        "account": "acme",
        "key": "ci",
        "balance": "0.99999965",
        "balance_nano_credits": 999_999_650,
        "held": "0.000001",
        "held_nano_credits": 1000,
        "available": "0.99999865",
        "available_nano_credits": 999_998_650,
        "payer": None,
        "payer_available": None,
        "payer_available_nano_credits": None,
        "budgets": [],
        "limits": {
            "models": ["m"],
            "requests_per_minute": 60,
            "tokens_per_minute": None,
            "concurrency": None,
            "expires_at": None,
        },
        "usage": [
            {
                "start": start,
                "model": "m",
                "requests": 1,
                "prompt_tokens": 1,
                "completion_tokens": 2,
                "charged": "0.0000003",
                "charged_nano_credits": 300,
            }
        ],
    }


async def test_failures_over_rest_are_openais(house: House) -> None:
    async with door(house) as client:
        refused = await client.get("/v1/credits", headers={"authorization": "Bearer sk-wrong"})
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert (await client.post("/v1/credits", json={})).status_code == 405


def test_a_month_is_thirty_days_with_today() -> None:
    now = 1_790_000_000 * 10**9
    assert month_back(now) % DAY == 0
    assert (now - month_back(now)) // DAY == 29
