"""AccountService over sockets: authentication, rejected requests, and the store afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from process.settings import Address
from service.accounts import field_rules, guesses, keys
from service.accounts import page_tokens as pages_of_lists
from service.accounts.account_servicer import AccountServicer
from service.accounts.operations import FIELDS
from service.accounts.reports import DAY
from service.accounts.store_access import Access
from service.accounts.verification import differences
from service.admin import SERVICE, AdminServer
from service.ledger.rows import Grant, Place, Placed, Refusal, Refused, Settle
from service.start_error import StartError
from service.telemetry import Telemetry
from tests.support.accounts_admin import TOKEN, House, admin, bearer
from tests.support.outages import Outage, outage, outages
from tests.support.samples import call, serving

__all__ = ["outage"]

NO_CONTEXT: Any = None
"""A context that AccountService does not use."""

CREDIT = 10**9
HOSTILE = "a'; DROP TABLE accounts; --"
METHODS = [*pb.DESCRIPTOR.services_by_name["AccountService"].methods]
KINDS: dict[str, type[Message]] = {
    method.name: getattr(pb, method.input_type.name) for method in METHODS
}


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with admin(database) as running:
        yield running


async def account(house: House, name: str = "acme", credit: int = 0) -> Any:
    created = await house.ask("CreateAccount", pb.CreateAccountRequest(name=name))
    if credit:
        request = pb.AddCreditRequest(
            account=name, amount_nano_credits=credit, idempotency_id="first"
        )
        created = await house.ask("AddCredit", request)
    return created.account


async def key(house: House, name: str = "ci", *, account: str = "acme", **limits: Any) -> Any:
    request = pb.CreateApiKeyRequest(
        account=account, name=name, limits=account_pb2.KeyLimits(**limits)
    )
    return await house.ask("CreateApiKey", request)


async def charge(house: House, key_name: str, *amounts: int, account: str = "acme") -> None:
    (view,) = (found for found in house.directory.keys(account) if found.name == key_name)
    owner = house.directory.account(account).id
    for number, amount in enumerate(amounts):
        hold: dict[str, Any] = {
            "hold_id": f"{account}-{key_name}-{number}",
            "account_id": owner,
            "key_id": view.id,
        }
        placed = await house.batches.submit(
            Place(**hold, amount=amount, tokens=3, model="m", owner="tests", lease=60 * 10**9)
        )
        assert isinstance(placed, Placed)
        await house.batches.submit(
            Settle(**hold, charge=amount, prompt_tokens=1, completion_tokens=2)
        )


# --------------------------------------------------------------------------------- authentication


@pytest.mark.parametrize("method", KINDS)
async def test_each_rpc_wants_the_token_before_anything_else(
    house: House, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "BURST", 100)  # this test sends more wrong tokens than people do
    for metadata in (
        (),
        bearer(""),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer(TOKEN.upper()),
        bearer("' OR 1=1 --"),
        (("authorization", TOKEN),),
        (("authorization", f"Basic {TOKEN}"),),
        (*bearer(TOKEN), *bearer(TOKEN)),
    ):
        refused = await house.refusal(method, KINDS[method](), metadata)
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "INVALID_API_KEY",
        )
        assert refused.message == "The admin token is missing or wrong."
        assert TOKEN not in str(refused)


async def test_a_key_of_a_caller_is_not_the_token(house: House) -> None:
    await account(house)
    made = await key(house)
    refused = await house.refusal("ListAccounts", pb.ListAccountsRequest(), bearer(made.key_string))

    assert refused.reason == "INVALID_API_KEY"


async def test_health_is_told_to_anybody(house: House) -> None:
    stub: Any = health_pb2_grpc.HealthStub(house.channel)  # its types have no methods
    for name in ("", SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    house.server.set_serving(False)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_an_address_that_is_taken_is_told(house: House) -> None:
    host, _, port = house.server.address.rpartition(":")
    access = Access(house.batches)
    second = AdminServer(
        access, house.directory, Telemetry(), listen=Address(host, int(port)), token=TOKEN
    )
    with pytest.raises(StartError, match=port):
        await second.start()
    await second.stop()
    access.close()


# --------------------------------------------------------------------------------- what is refused


def test_each_request_has_its_rules() -> None:
    assert set(FIELDS) == set(KINDS.values())
    for request, fields in FIELDS.items():
        for field in fields:
            assert field.path.partition(".")[0] in request.DESCRIPTOR.fields_by_name
        named = {field.path.partition(".")[0] for field in fields}
        left = {field.name for field in request.DESCRIPTOR.fields} - named
        # `budget_requests` checks budgets.
        assert left <= {"page_token", "budgets", "removed_windows"}


@pytest.mark.parametrize(
    "method", [method for method, kind in KINDS.items() if any(f.required for f in FIELDS[kind])]
)
async def test_each_missing_field_is_named(house: House, method: str) -> None:
    required = tuple(field.path for field in FIELDS[KINDS[method]] if field.required)
    refused = await house.refusal(method, KINDS[method]())

    assert (refused.code, refused.http_status) == (grpc.StatusCode.INVALID_ARGUMENT, 422)
    assert refused.violations == required
    assert refused.error.code_text == "missing_required_parameter"


@pytest.mark.parametrize(
    ("method", "members", "path"),
    [
        ("CreateAccount", {"name": ""}, "name"),
        ("CreateAccount", {"name": " acme"}, "name"),
        ("CreateAccount", {"name": "a\nb"}, "name"),
        ("CreateAccount", {"name": "a" * 129}, "name"),
        ("ListAccounts", {"page_size": -1}, "page_size"),
        ("ListAccounts", {"page_token": "x"}, "page_token"),
        ("ListAccounts", {"page_token": "Ä" * 1000}, "page_token"),
        ("AddCredit", {"amount_nano_credits": 0}, "amount_nano_credits"),
        ("AddCredit", {"amount_nano_credits": -1}, "amount_nano_credits"),
        ("AddCredit", {"amount_nano_credits": 10**18 + 1}, "amount_nano_credits"),
        ("AddCredit", {"idempotency_id": ""}, "idempotency_id"),
        ("AddCredit", {"idempotency_id": "x" * 129}, "idempotency_id"),
        ("CreateApiKey", {"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ("CreateApiKey", {"limits": {"tokens_per_minute": -5}}, "limits.tokens_per_minute"),
        ("CreateApiKey", {"limits": {"concurrency": 10**9 + 1}}, "limits.concurrency"),
        ("CreateApiKey", {"limits": {"models": {}}}, "limits.models.names"),
        ("CreateApiKey", {"limits": {"models": {"names": ["a", "a"]}}}, "limits.models.names"),
        ("CreateApiKey", {"limits": {"models": {"names": [""]}}}, "limits.models.names"),
        ("CreateApiKey", {"limits": {"expire_time": {"seconds": 1}}}, "limits.expire_time"),
        ("CreateApiKey", {"limits": {"expire_time": {"seconds": 2**60}}}, "limits.expire_time"),
        (
            "CreateApiKey",
            {"limits": {"expire_time": {"seconds": 2**33, "nanos": 10**9}}},
            "limits.expire_time",
        ),
        ("DeductCredit", {"amount_nano_credits": 0}, "amount_nano_credits"),
        ("DeductCredit", {"amount_nano_credits": CREDIT + 1}, "amount_nano_credits"),
        ("UpdateApiKey", {}, "update_mask.paths"),
        ("UpdateApiKey", {"update_mask": {"paths": ["name"]}}, "update_mask.paths"),
        ("UpdateApiKey", {"update_mask": {"paths": ["models"] * 2}}, "update_mask.paths"),
        (
            "UpdateApiKey",
            {
                "limits": {"expire_time": {"seconds": 1}},
                "update_mask": {"paths": ["expire_time"]},
            },
            "limits.expire_time",
        ),
        ("RotateApiKey", {"grace_period": {"seconds": -1}}, "grace_period"),
        ("RotateApiKey", {"grace_period": {"seconds": 91 * 86_400}}, "grace_period"),
        ("FindApiKey", {"secret": "too short"}, "secret"),
        ("DeleteAccount", {"account": "acme"}, "account"),
        ("ListUsage", {"interval": 7}, "interval"),
        ("ListUsage", {"start_time": {"seconds": -1}}, "start_time"),
        ("ListUsage", {"end_time": {"seconds": 1, "nanos": -1}}, "end_time"),
        ("ListLedgerEntries", {"page_token": "AAAA"}, "page_token"),
    ],
)
async def test_a_wrong_field_is_named(
    house: House, method: str, members: dict[str, Any], path: str
) -> None:
    await account(house, credit=CREDIT)
    usual = {
        "account": "acme",
        "name": "ci",
        "amount_nano_credits": 1,
        "idempotency_id": "id",
    }
    names = KINDS[method].DESCRIPTOR.fields_by_name
    known = {name: value for name, value in usual.items() if name in names}
    refused = await house.refusal(method, KINDS[method](**{**known, **members}))

    assert refused.reason == "INVALID_REQUEST"
    assert refused.violations == (path,)
    assert refused.error.param == path


async def test_what_is_not_there_is_not_found(house: House) -> None:
    for method, kind in KINDS.items():
        if "account" not in kind.DESCRIPTOR.fields_by_name:
            continue
        members: dict[str, Any] = {"account": "nobody"}
        for field in FIELDS[kind][1:]:
            if field.required:
                members[field.path] = 1 if field.rule is field_rules.AMOUNT else "x"
        if "update_mask.paths" in members:
            members["update_mask"] = {"paths": ["models"]}
            del members["update_mask.paths"]
        if "removed_windows" in kind.DESCRIPTOR.fields_by_name:
            members["removed_windows"] = [account_pb2.BUDGET_WINDOW_DAY]
        refused = await house.refusal(method, kind(**members))
        assert (refused.code, refused.http_status) == (grpc.StatusCode.NOT_FOUND, 404)
        assert refused.reason == "ACCOUNT_NOT_FOUND"
        assert refused.message == "There is no account 'nobody'."
    await account(house)
    for method, request in (
        ("RevokeApiKey", pb.RevokeApiKeyRequest(account="acme", name="x")),
        (
            "UpdateApiKey",
            pb.UpdateApiKeyRequest(
                account="acme", name="x", update_mask=FieldMask(paths=["models"])
            ),
        ),
        ("ListUsage", pb.ListUsageRequest(account="acme", key_name="x")),
    ):
        refused = await house.refusal(method, request)
        assert (refused.http_status, refused.reason) == (404, "API_KEY_NOT_FOUND")


async def test_a_name_is_taken_once(house: House) -> None:
    await account(house)
    await key(house)
    for method, request in (
        ("CreateAccount", pb.CreateAccountRequest(name="acme")),
        ("CreateApiKey", pb.CreateApiKeyRequest(account="acme", name="ci")),
    ):
        refused = await house.refusal(method, request)
        assert (refused.code, refused.http_status) == (grpc.StatusCode.ALREADY_EXISTS, 409)
        assert not refused.retryable


@outages("sqlite-absent", "postgres-stopped")
async def test_the_store_being_away_is_told(outage: Outage) -> None:
    async with admin(outage.database) as house:
        await account(house)
        request = pb.GetAccountRequest(account="acme")
        async with outage.away(house.store):
            refused = await house.refusal("GetAccount", request)
        assert (await house.ask("GetAccount", request)).account.name == "acme"

    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert refused.retryable
    # The text of the driver is only for operators.
    assert str(sa.make_url(outage.database).database) not in str(refused)


# ------------------------------------------------------------------------------------ what it does


async def test_credit_is_added_once_for_each_id_however_many_ask(house: House) -> None:
    await account(house)
    requests = [
        pb.AddCreditRequest(
            account="acme", amount_nano_credits=CREDIT, idempotency_id=f"id-{number % 5}"
        )
        for number in range(50)
    ]
    answers = await asyncio.gather(*(house.ask("AddCredit", request) for request in requests))

    assert len({answer.entry.id for answer in answers}) == 5
    assert {answer.entry.kind for answer in answers} == {account_pb2.LEDGER_ENTRY_KIND_GRANT}
    found = await house.ask("GetAccount", pb.GetAccountRequest(account="acme"))
    assert found.account.balance_nano_credits == 5 * CREDIT
    assert [*differences(house.store)] == []


async def test_an_id_is_for_one_amount(house: House) -> None:
    await account(house, credit=CREDIT)
    request = pb.AddCreditRequest(account="acme", amount_nano_credits=7, idempotency_id="first")
    refused = await house.refusal("AddCredit", request)

    assert (refused.reason, refused.error.param) == ("ALREADY_EXISTS", "idempotency_id")
    assert house.directory.account("acme").balance == CREDIT


async def test_a_balance_has_a_largest_value(house: House) -> None:
    owner = await account(house)
    assert owner.balance_nano_credits == 0
    for number in range(4):
        request = pb.AddCreditRequest(
            account="acme", amount_nano_credits=10**18, idempotency_id=str(number)
        )
        await house.ask("AddCredit", request)
    request = pb.AddCreditRequest(account="acme", amount_nano_credits=10**18, idempotency_id="last")
    refused = await house.refusal("AddCredit", request)

    assert refused.violations == ("amount_nano_credits",)
    assert house.directory.account("acme").balance == 4 * 10**18


async def test_a_key_is_answered_once_and_stored_as_a_digest(house: House) -> None:
    await account(house)
    expires = Timestamp(seconds=int(time.time()) + 3600)
    models = account_pb2.AllowedModels(names=["b", "a"])
    made = await key(house, models=models, requests_per_minute=60, expire_time=expires)

    assert made.api_key.limits == account_pb2.KeyLimits(
        models=models, requests_per_minute=60, expire_time=expires
    )
    assert not made.api_key.HasField("revoke_time")
    caller = house.directory.callers.find(keys.digest(made.key_string))
    assert caller is not None
    assert (caller.account_name, caller.key_name) == ("acme", "ci")
    listed = await house.ask("ListApiKeys", pb.ListApiKeysRequest(account="acme"))
    assert [*listed.api_keys] == [made.api_key]
    assert made.key_string.encode() not in listed.SerializeToString()


async def test_a_revocation_takes_effect_at_once_and_once(house: House) -> None:
    await account(house, credit=CREDIT)
    made = await key(house)
    caller = house.directory.callers.find(keys.digest(made.key_string))
    assert caller is not None
    request = pb.RevokeApiKeyRequest(account="acme", name="ci")
    revoked = await house.ask("RevokeApiKey", request)

    # Also for a replica that has cached the key.
    place = Place(
        hold_id="late",
        account_id=caller.account_id,
        key_id=caller.key_id,
        amount=1,
        tokens=1,
        model="m",
        owner="tests",
        lease=1,
    )
    outcome = await house.batches.submit(place)
    assert isinstance(outcome, Refused)
    assert outcome.refusal is Refusal.KEY
    assert house.directory.callers.find(keys.digest(made.key_string)) is None
    assert await house.ask("RevokeApiKey", request) == revoked


async def test_the_audit_log_has_who_and_what_and_is_never_changed(house: House) -> None:
    await account(house, credit=CREDIT)
    await key(house)
    await house.refusal("DeleteAccount", pb.DeleteAccountRequest(account="acme"))

    listed = await house.ask("ListAuditEntries", pb.ListAuditEntriesRequest(account="acme"))
    assert [entry.method for entry in listed.entries] == [
        "CreateApiKey",
        "AddCredit",
        "CreateAccount",
    ]
    assert {entry.actor for entry in listed.entries} == {"rpc:127.0.0.1"}
    first = await house.ask("ListAuditEntries", pb.ListAuditEntriesRequest(page_size=2))
    more = pb.ListAuditEntriesRequest(page_size=2, page_token=first.next_page_token)
    rest = await house.ask("ListAuditEntries", more)
    assert [*first.entries, *rest.entries] == [*listed.entries]
    for statement in ("UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"):
        with (
            pytest.raises(sa.exc.DBAPIError, match="rows of audit are never changed"),
            house.store.engine.begin() as connection,
        ):
            connection.execute(sa.text(statement))


async def test_a_changed_limit_takes_effect_at_once(house: House) -> None:
    await account(house, credit=CREDIT)
    made = await key(house, concurrency=1, requests_per_minute=100)
    caller = house.directory.callers.find(keys.digest(made.key_string))
    assert caller is not None
    request = pb.UpdateApiKeyRequest(
        account="acme",
        name="ci",
        limits=account_pb2.KeyLimits(requests_per_minute=1),
        update_mask=FieldMask(paths=["requests_per_minute", "concurrency"]),
    )
    changed = await house.ask("UpdateApiKey", request)
    assert changed.api_key.limits == account_pb2.KeyLimits(requests_per_minute=1)

    # Also for a replica that has cached the key.
    outcomes = [
        await house.batches.submit(
            Place(
                hold_id=f"{number}",
                account_id=caller.account_id,
                key_id=caller.key_id,
                amount=1,
                tokens=1,
                model="m",
                owner="tests",
                lease=60 * 10**9,
            )
        )
        for number in range(2)
    ]
    assert isinstance(outcomes[0], Placed)
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].refusal is Refusal.REQUESTS


async def test_names_are_values_and_not_sql(house: House) -> None:
    house.directory.create_account(HOSTILE)
    house.directory.create_key(HOSTILE, HOSTILE)
    await house.ask(
        "AddCredit",
        pb.AddCreditRequest(account=HOSTILE, amount_nano_credits=1, idempotency_id=HOSTILE),
    )
    await house.ask("ListUsage", pb.ListUsageRequest(account=HOSTILE, key_name=HOSTILE))
    await house.ask("RevokeApiKey", pb.RevokeApiKeyRequest(account=HOSTILE, name=HOSTILE))
    listed = await house.ask("ListAccounts", pb.ListAccountsRequest())

    assert [found.name for found in listed.accounts] == [HOSTILE]
    refused = await house.refusal("GetAccount", pb.GetAccountRequest(account="' OR 1=1 --"))
    assert refused.reason == "ACCOUNT_NOT_FOUND"


async def test_a_new_name_is_plain_and_a_wrong_one_is_quoted(house: House) -> None:
    refused = await house.refusal("CreateAccount", pb.CreateAccountRequest(name="Acme"))
    assert (refused.reason, refused.error.param) == ("INVALID_REQUEST", "name")
    assert refused.message == (
        "Must be 1 to 128 characters of a-z, 0-9, '.', '_' and '-', with a letter or digit first, "
        "but got 'Acme'."
    )
    await account(house)
    request = pb.CreateApiKeyRequest(account="acme", name="a b")
    assert "but got 'a b'" in (await house.refusal("CreateApiKey", request)).message


async def test_a_key_is_limited_to_models_that_exist(database: str) -> None:
    async with admin(database, models=("gpt-4o", "local/*")) as house:
        await account(house)
        for number, names in enumerate((["gpt-4o"], ["local/a", "local/*"], ["*"])):
            await key(house, f"k{number}", models={"names": names})
        for method in ("CreateApiKey", "UpdateApiKey"):
            asked: dict[str, Any] = {"account": "acme", "name": "k0"}
            asked["limits"] = {"models": {"names": ["gpt-4o", "gpt4o"]}}
            if method == "UpdateApiKey":
                asked["update_mask"] = {"paths": ["models"]}
            refused = await house.refusal(method, getattr(pb, f"{method}Request")(**asked))
            assert refused.error.param == "limits.models.names"
            assert refused.message == (
                "There is no model 'gpt4o'. Did you mean 'gpt-4o'? The models are gpt-4o, local/*."
            )


async def pages(house: House, method: str, request: Any) -> list[Any]:
    """Return all pages of a list."""
    found: list[Any] = []
    while True:
        answer = await house.ask(method, request)
        found.append(answer)
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def test_pages_are_complete(house: House) -> None:
    names = [f"team-{number}" for number in range(7)]
    for name in names:
        await account(house, name)
    for size in (1, 3, 7, 8):
        answers = await pages(house, "ListAccounts", pb.ListAccountsRequest(page_size=size))
        assert [found.name for answer in answers for found in answer.accounts] == names
        assert len(answers) == -(-len(names) // size)
    await account(house)
    for number in range(5):
        await key(house, f"key-{number}")
    answers = await pages(house, "ListApiKeys", pb.ListApiKeysRequest(account="acme", page_size=2))
    found = [view.name for answer in answers for view in answer.api_keys]
    assert found == [f"key-{number}" for number in range(5)]


async def test_pages_of_the_ledger_stay_what_they_were_while_it_grows(house: House) -> None:
    await account(house, credit=CREDIT)
    await key(house)
    await charge(house, "ci", *range(1, 10))
    whole = await house.ask("ListLedgerEntries", pb.ListLedgerEntriesRequest(account="acme"))
    ids = [entry.id for entry in whole.entries]
    assert all(newer > older for newer, older in pairwise(ids))
    assert not whole.next_page_token

    request = pb.ListLedgerEntriesRequest(account="acme", page_size=3)
    seen: list[int] = []
    while True:
        answer = await house.ask("ListLedgerEntries", request)
        seen += [entry.id for entry in answer.entries]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
        more = Grant(
            account_id=house.directory.account("acme").id,
            amount=1,
            idempotency_id=f"meanwhile-{len(seen)}",
        )
        await house.batches.submit(more)
    assert seen == ids


async def test_a_page_token_is_good_for_its_list_only(house: House) -> None:
    await account(house, credit=CREDIT)
    await account(house, "other", credit=CREDIT)
    await key(house)
    await charge(house, "ci", 1, 2)
    request = pb.ListLedgerEntriesRequest(account="acme", page_size=1)
    token = (await house.ask("ListLedgerEntries", request)).next_page_token

    for method, elsewhere in (
        ("ListLedgerEntries", pb.ListLedgerEntriesRequest(account="other", page_token=token)),
        ("ListApiKeys", pb.ListApiKeysRequest(account="acme", page_token=token)),
        ("ListAccounts", pb.ListAccountsRequest(page_token=token)),
    ):
        refused = await house.refusal(method, elsewhere)
        assert refused.violations == ("page_token",)


async def test_the_ledger_tells_why_a_balance_changed(house: House) -> None:
    await account(house, credit=CREDIT)
    await key(house)
    await charge(house, "ci", 250)
    listed = await house.ask("ListLedgerEntries", pb.ListLedgerEntriesRequest(account="acme"))
    settlement, grant = listed.entries

    assert settlement.kind == account_pb2.LEDGER_ENTRY_KIND_SETTLEMENT
    assert (settlement.amount_nano_credits, settlement.key_name) == (-250, "ci")
    assert (settlement.prompt_tokens, settlement.completion_tokens) == (1, 2)
    assert not settlement.partial
    assert not settlement.idempotency_id
    assert grant.kind == account_pb2.LEDGER_ENTRY_KIND_GRANT
    assert (grant.amount_nano_credits, grant.idempotency_id) == (CREDIT, "first")
    assert (grant.key_name, grant.prompt_tokens, grant.partial) == ("", 0, False)


async def test_usage_is_summed_up_by_interval_key_and_model(house: House) -> None:
    await account(house, credit=CREDIT)
    await key(house)
    await key(house, "batch")
    await charge(house, "ci", 100, 250)
    await charge(house, "batch", 7)
    for interval, length in (
        (account_pb2.USAGE_INTERVAL_UNSPECIFIED, 86_400),
        (account_pb2.USAGE_INTERVAL_HOUR, 3600),
        (account_pb2.USAGE_INTERVAL_DAY, 86_400),
    ):
        answer = await house.ask(
            "ListUsage", pb.ListUsageRequest(account="acme", interval=interval)
        )
        assert all(total.start_time.seconds % length == 0 for total in answer.usage)
        charged: dict[str, int] = {}
        for total in answer.usage:  # two, unless an hour began in the meantime
            charged[total.key_name] = charged.get(total.key_name, 0) + total.charged_nano_credits
        assert charged == {"batch": 7, "ci": 350}
    narrow = pb.ListUsageRequest(account="acme", key_name="batch", model="m")
    (total,) = (await house.ask("ListUsage", narrow)).usage
    assert (total.model, total.requests, total.prompt_tokens) == ("m", 1, 1)
    for empty in (
        pb.ListUsageRequest(account="acme", model="other"),
        pb.ListUsageRequest(account="acme", start_time=Timestamp(seconds=int(time.time()) + 3600)),
        pb.ListUsageRequest(account="acme", start_time=Timestamp(), end_time=Timestamp(seconds=1)),
    ):
        assert not (await house.ask("ListUsage", empty)).usage


async def test_usage_of_all_accounts_is_listed_in_the_order_of_accounts(house: House) -> None:
    for number, name in enumerate(("zeta", "alpha")):
        await account(house, name, credit=CREDIT)
        for key_name in ("web", "ci"):
            await key(house, key_name, account=name)
            await charge(house, key_name, 10**number, account=name)
    begin = time.time_ns() // 10**9 - 7200
    start = Timestamp(seconds=begin)
    request = pb.ListUsageRequest(
        interval=account_pb2.USAGE_INTERVAL_RANGE, start_time=start, page_size=1
    )
    seen = []
    while True:
        answer = await house.ask("ListUsage", request)
        for total in answer.usage:
            assert total.start_time.seconds == begin - begin % 3600
            seen.append((total.account, total.key_name, total.charged_nano_credits))
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert seen == [
        ("zeta", "ci", 1),
        ("zeta", "web", 1),
        ("alpha", "ci", 10),
        ("alpha", "web", 10),
    ]
    narrowed: tuple[tuple[dict[str, Any], set[tuple[str, str]]], ...] = (
        ({"key_name": "ci"}, {("zeta", "ci"), ("alpha", "ci")}),
        ({"account": "zeta"}, {("zeta", "ci"), ("zeta", "web")}),
        ({"model": "other"}, set()),
    )
    for filters, expected in narrowed:
        narrow = await house.ask("ListUsage", pb.ListUsageRequest(**filters))
        assert {(total.account, total.key_name) for total in narrow.usage} == expected


async def test_pages_of_usage_are_complete_while_it_grows(house: House) -> None:
    await account(house, credit=CREDIT)
    names = ("batch", "ci", "m.ee", "z")
    for name in names:
        await key(house, name)
        await charge(house, name, 1, 2)
    for interval in (account_pb2.USAGE_INTERVAL_HOUR, account_pb2.USAGE_INTERVAL_DAY):
        request = pb.ListUsageRequest(account="acme", interval=interval, page_size=1)
        seen: list[str] = []
        while True:
            answer = await house.ask("ListUsage", request)
            seen += [total.key_name for total in answer.usage]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
            # A new total before the position neither hides nor repeats another.
            earlier = f"a{len(seen)}-{interval}"
            await key(house, earlier)
            await charge(house, earlier, 1)
        assert [name for name in seen if name in names] == [*names]


async def test_a_page_token_of_usage_keeps_the_range_of_the_first_page(house: House) -> None:
    await account(house, credit=CREDIT)
    for name in ("a", "b"):
        await key(house, name)
        await charge(house, name, 1)
    first = await house.ask("ListUsage", pb.ListUsageRequest(account="acme", page_size=1))
    # 30 days later, a new list would be empty.
    later = time.time_ns() + 30 * 86_400 * 10**9
    access = Access(house.batches)
    servicer = AccountServicer(access, house.directory, token=TOKEN, now=lambda: later)
    request = pb.ListUsageRequest(account="acme", page_size=1)
    with serving(call(authorization=f"Bearer {TOKEN}")):
        assert not (await servicer.ListUsage(request, NO_CONTEXT)).usage
        request.page_token = first.next_page_token
        second = await servicer.ListUsage(request, NO_CONTEXT)
    access.close()
    assert [total.key_name for total in second.usage] == ["b"]


async def test_a_page_token_of_usage_is_good_for_its_filters_only(house: House) -> None:
    await account(house, credit=CREDIT)
    for name in ("a", "b"):
        await key(house, name)
        await charge(house, name, 1)
    first = await house.ask("ListUsage", pb.ListUsageRequest(account="acme", page_size=1))
    others: tuple[dict[str, Any], ...] = (
        {"model": "m"},
        {"key_name": "a"},
        {"interval": 1},
        {"end_time": Timestamp()},
    )
    for members in others:
        request = pb.ListUsageRequest(account="acme", page_token=first.next_page_token, **members)
        assert (await house.refusal("ListUsage", request)).violations == ("page_token",)


@pytest.mark.parametrize("begin", [-(2**63), -1, 2**63 - 1])
async def test_a_page_token_of_usage_from_no_time_is_refused(house: House, begin: int) -> None:
    await account(house)
    of = f"usage/acme///{DAY}/None/None"
    token = pages_of_lists.encode(of, begin, 1, 0, "ci", "m")

    request = pb.ListUsageRequest(account="acme", page_token=token)
    assert (await house.refusal("ListUsage", request)).violations == ("page_token",)


async def test_queries_that_wait_are_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.accounts.store_access.MOST_READING", 0)
    access = Access(house.batches)
    server = AdminServer(
        access, house.directory, Telemetry(), listen=Address("127.0.0.1", 0), token=TOKEN
    )
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        busy = replace(house, accounts=type(house.accounts)(channel))
        refused = await busy.refusal("ListAccounts", pb.ListAccountsRequest())
    assert (refused.reason, refused.retryable) == ("OVERLOADED", True)
    await server.stop()
    access.close()
