"""Budgets and groups: set by operators, seen and obeyed by callers, on both engines."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from chatcompletion.v1.credit_service_pb2 import GetCreditsRequest
from service.accounts.budget_rows import BudgetChange
from service.accounts.keys import Caller, SuspendedKey, digest
from service.accounts.verification import differences
from service.ledger.budgets import Window
from service.ledger.rows import Grant, Place, Placed, Refusal, Refused, Settle
from service.ledger.store import Store
from tests.support.accounts_admin import House, admin, bearer

NANO = 10**9
DAY, MONTH, TOTAL = (
    account_pb2.BUDGET_WINDOW_DAY,
    account_pb2.BUDGET_WINDOW_MONTH,
    account_pb2.BUDGET_WINDOW_TOTAL,
)


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with admin(database) as running:
        yield running


def budget(window: Any, limit: int, zone: str = "") -> account_pb2.Budget:
    return account_pb2.Budget(window=window, limit_nano_credits=limit, time_zone=zone)


def request(account: str, *budgets: account_pb2.Budget, **members: Any) -> pb.SetBudgetsRequest:
    return pb.SetBudgetsRequest(account=account, budgets=budgets, **members)


async def test_budgets_are_set_changed_shown_and_removed(house: House) -> None:
    house.directory.create_account("acme")
    house.directory.create_key("acme", "ci")
    berlin = budget(MONTH, 10 * NANO, "Europe/Berlin")
    made = await house.ask("SetBudgets", request("acme", berlin, budget(DAY, NANO)))
    assert [(one.window, one.limit_nano_credits, one.time_zone) for one in made.budgets] == [
        (DAY, NANO, "UTC"),
        (MONTH, 10 * NANO, "Europe/Berlin"),
    ]
    less = request("acme", budget(MONTH, 5 * NANO), removed_windows=[DAY])
    (month,) = (await house.ask("SetBudgets", less)).budgets
    assert (month.limit_nano_credits, month.time_zone) == (5 * NANO, "Europe/Berlin")
    assert month.remaining_nano_credits == 5 * NANO
    assert month.start_time.seconds < month.reset_time.seconds
    shown = await house.ask("GetAccount", pb.GetAccountRequest(account="acme"))
    assert list(shown.account.budgets) == [month]

    await house.ask("SetBudgets", request("acme", budget(TOTAL, 7), key_name="ci"))
    keys = await house.ask("ListApiKeys", pb.ListApiKeysRequest(account="acme"))
    assert not keys.api_keys[0].budgets[0].HasField("reset_time")
    acts = await house.ask("ListAuditEntries", pb.ListAuditEntriesRequest(account="acme"))
    assert [entry.method for entry in acts.entries] == ["SetBudgets"] * 3


_AMOUNT = "Must be an integer of nano-credits from 1 to 10^18."
_WINDOW = "Must be one of DAY, WEEK, MONTH and TOTAL."


@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        (request("acme"), "budgets", "Name a budget to set or a window to remove."),
        (request("acme", budget(DAY, 0)), "budgets[0].limit_nano_credits", _AMOUNT),
        (request("acme", budget(DAY, 10**18 + 1)), "budgets[0].limit_nano_credits", _AMOUNT),
        (request("acme", budget(0, 5)), "budgets[0].window", _WINDOW),
        (request("acme", budget(9, 5)), "budgets[0].window", _WINDOW),
        (request("acme", removed_windows=[0]), "removed_windows[0]", _WINDOW),
        (
            request("acme", budget(DAY, 5), removed_windows=[DAY]),
            "removed_windows[0]",
            "Must not be named twice.",
        ),
        (
            request("acme", budget(DAY, 5, "Europe/Berlni")),
            "budgets[0].time_zone",
            "Must be the name of a time zone, such as Europe/Berlin, but got 'Europe/Berlni'. "
            "Did you mean 'Europe/Berlin'?",
        ),
    ],
    ids=str,
)
async def test_what_is_no_budget(
    house: House, asked: pb.SetBudgetsRequest, param: str, message: str
) -> None:
    house.directory.create_account("acme")
    refused = await house.refusal("SetBudgets", asked)
    assert (refused.reason, refused.error.param) == ("INVALID_REQUEST", param)
    assert refused.message == message


# -------------------------------------------------------------------------------------- calls


def company(house: House) -> tuple[Caller, str]:
    """Create acme with ten credits, a group in it and a team in that. Return the team's caller."""
    directory = house.directory
    acme = directory.create_account("acme")
    directory.create_account("research", parent="acme")
    directory.create_account("search", parent="research")
    _, key = directory.create_key("search", "ci")
    grant = Grant(account_id=acme.id, amount=10 * NANO, idempotency_id="g")
    house.store.apply([grant])
    caller = directory.callers.find(digest(key))
    assert caller is not None
    return caller, key


def place(caller: Caller, name: str, amount: int) -> Place:
    return Place(
        hold_id=name,
        account_id=caller.account_id,
        key_id=caller.key_id,
        amount=amount,
        tokens=1,
        model="m",
        owner="tests",
        lease=60 * NANO,
        key_created_at=caller.key_created_at,
        parents=caller.parent_ids,
    )


def settle(caller: Caller, name: str, charge: int) -> Settle:
    return Settle(
        hold_id=name,
        account_id=caller.account_id,
        key_id=caller.key_id,
        charge=charge,
        prompt_tokens=1,
        completion_tokens=2,
        parents=caller.parent_ids,
    )


def refusal(store: Store, asked: Place) -> Refused:
    (outcome,) = store.apply([asked])
    assert isinstance(outcome, Refused)
    return outcome


async def test_every_account_above_a_key_limits_it(house: House) -> None:
    caller, key = company(house)
    assert [name for _, name in caller.parents] == ["research", "acme"]
    rows, store = house.directory.budgets, house.store
    rows.set("acme", changes=[BudgetChange(Window.MONTH, 900)])
    rows.set("research", changes=[BudgetChange(Window.DAY, 500, "Asia/Tokyo")])
    rows.set("search", "ci", changes=[BudgetChange(Window.TOTAL, 400)])
    (placed,) = store.apply([place(caller, "a", 300)])
    assert isinstance(placed, Placed)
    held = refusal(store, place(caller, "b", 101))
    assert (held.refusal, held.available) == (Refusal.BUDGET_HELD, 100)
    assert list(differences(store)) == []
    store.apply([settle(caller, "a", 250)])
    spent = refusal(store, place(caller, "b", 251))
    assert (spent.refusal, spent.available) == (Refusal.BUDGET, 150)
    assert spent.budget is not None
    assert (spent.budget.account_id, spent.budget.window) == (None, Window.TOTAL)
    assert list(differences(store)) == []

    seen = await house.credits.GetCredits(GetCreditsRequest(), metadata=bearer(key), timeout=20)
    assert [
        (one.account, one.key_name, one.budget.limit_nano_credits, one.budget.spent_nano_credits)
        for one in seen.budgets
    ] == [("search", "ci", 400, 250), ("research", "", 500, 250), ("acme", "", 900, 250)]
    assert (seen.account.payer, seen.account.parent) == ("acme", "research")
    assert seen.account.payer_available_nano_credits == 10 * NANO - 250


async def test_a_change_of_a_budget_keeps_its_counts(house: House) -> None:
    caller, _ = company(house)
    rows = house.directory.budgets
    rows.set("search", changes=[BudgetChange(Window.DAY, 500)])
    house.store.apply([place(caller, "a", 300), place(caller, "b", 100), settle(caller, "b", 90)])
    (day,) = rows.set("search", changes=[BudgetChange(Window.DAY, 700, "Asia/Tokyo")])
    assert (day.limit, day.spent, day.held, day.time_zone) == (700, 90, 300, "Asia/Tokyo")
    rows.set("search", removed=[Window.DAY])
    (day,) = rows.set("search", changes=[BudgetChange(Window.DAY, 50)])
    house.store.apply([settle(caller, "a", 300)])
    (day,) = rows.set("search", changes=[BudgetChange(Window.DAY, 50)])
    assert (day.spent, day.held) == (0, 0)
    assert list(differences(house.store)) == []


async def test_differences_find_a_budget_with_a_wrong_count(house: House) -> None:
    caller, _ = company(house)
    house.directory.budgets.set("research", changes=[BudgetChange(Window.DAY, 500)])
    house.store.apply([place(caller, "a", 300)])
    with house.store.writing() as connection:
        connection.exec_driver_sql("UPDATE holds SET windows = ';;;'")
    (difference,) = differences(house.store)
    assert (difference.account, difference.of) == ("research", "held of day")
    assert (difference.stored, difference.recomputed) == (300, 0)


# ------------------------------------------------------------------------------------- groups


async def test_the_account_at_the_top_pays_and_sees_all_usage(house: House) -> None:
    caller, _ = company(house)
    house.store.apply([place(caller, "a", 300), settle(caller, "a", 250)])
    for account, names in (("acme", ["search"]), ("research", ["search"]), ("search", ["search"])):
        used = await house.ask("ListUsage", pb.ListUsageRequest(account=account))
        assert [total.account for total in used.usage] == names
        entries = await house.ask("ListLedgerEntries", pb.ListLedgerEntriesRequest(account=account))
        charges = [one.amount_nano_credits for one in entries.entries if one.hold_id]
        assert charges == [-250]
    shown = await house.ask("GetAccount", pb.GetAccountRequest(account="search"))
    found = shown.account
    assert (found.balance_nano_credits, found.payer, found.parent) == (0, "acme", "research")
    assert found.payer_available_nano_credits == 10 * NANO - 250
    assert list(differences(house.store)) == []


async def test_a_group_takes_no_credit(house: House) -> None:
    company(house)
    members: dict[str, Any] = {"account": "search", "amount_nano_credits": 1, "idempotency_id": "i"}
    for asked in (pb.AddCreditRequest(**members), pb.DeductCreditRequest(**members)):
        method = asked.DESCRIPTOR.name.removesuffix("Request")
        refused = await house.refusal(method, asked)
        assert refused.message == "'search' is a group without credit of its own. 'acme' pays."


async def test_an_account_with_groups_stays(house: House) -> None:
    company(house)
    refused = await house.refusal("DeleteAccount", pb.DeleteAccountRequest(account="research"))
    assert refused.message == "The account has the group 'search'. Delete its groups first."
    for account in ("search", "research"):
        await house.ask("DeleteAccount", pb.DeleteAccountRequest(account=account))
    made = pb.CreateAccountRequest(name="new", parent="research")
    refused = await house.refusal("CreateAccount", made)
    assert refused.error.param == "parent"


async def test_at_most_four_accounts_are_above_each_other(house: House) -> None:
    company(house)
    last = await house.ask("CreateAccount", pb.CreateAccountRequest(name="web", parent="search"))
    assert (last.account.parent, last.account.payer) == ("search", "acme")
    refused = await house.refusal("CreateAccount", pb.CreateAccountRequest(name="x", parent="web"))
    assert (refused.reason, refused.error.param) == ("INVALID_REQUEST", "parent")
    refused = await house.refusal("CreateAccount", pb.CreateAccountRequest(name="x", parent="y"))
    assert refused.reason == "ACCOUNT_NOT_FOUND"


@pytest.mark.parametrize("account", ["acme", "research", "search"])
async def test_an_account_above_suspends_its_keys(house: House, account: str) -> None:
    caller, key = company(house)
    await house.ask("SuspendAccount", pb.SuspendAccountRequest(account=account))
    assert refusal(house.store, place(caller, "a", 1)).refusal is Refusal.SUSPENDED
    found = house.directory.callers.look_up(digest(key))
    assert isinstance(found, SuspendedKey)
    assert found.of_account


async def test_the_hold_of_a_groups_key_expires(house: House) -> None:
    caller, _ = company(house)
    house.directory.budgets.set("search", changes=[BudgetChange(Window.DAY, 500)])
    house.store.apply([place(caller, "a", 300)])
    with house.store.writing() as connection:
        connection.exec_driver_sql("UPDATE holds SET lease_until = 1")
    house.store.apply(house.store.expired())
    (day,) = house.directory.budgets.set("search", changes=[BudgetChange(Window.DAY, 500)])
    assert day.held == 0
    assert house.directory.account("acme").held == 0
