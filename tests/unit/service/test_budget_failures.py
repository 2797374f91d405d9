"""How calls that a budget rejects are reported."""

import json
from typing import Any

import pytest
from google.rpc import error_details_pb2

from service import budget_failures, errors
from service.accounts.keys import Caller
from service.ledger.budgets import Window
from service.ledger.rows import Exceeded
from tests.support.samples import details

NANO = 10**9
CALLER = Caller(
    account_id=3,
    account_name="search",
    key_id=1,
    key_name="ci",
    parents=((2, "research"), (1, "acme")),
)


def budget(**values: Any) -> Exceeded:
    plain: dict[str, Any] = {
        "account_id": None,
        "window": Window.MONTH,
        "time_zone": "Europe/Berlin",
        "limit": 10 * NANO,
        "spent": 9 * NANO,
        "held": NANO // 2,
        "end": 1_796_079_600 * NANO,
    }
    return Exceeded(**{**plain, **values})


def test_a_spent_budget_is_named_with_its_reset() -> None:
    less = ", or set max_tokens to at most 7"
    failure = budget_failures.exceeded(CALLER, budget(), 2 * NANO, less)
    assert failure.message == (
        "Budget exceeded: this request can cost up to 2, but the monthly budget of this API key is "
        "10, of which 1 is left until 2026-12-01T00:00:00+01:00. Wait until then, ask the operator "
        "for a larger budget, or set max_tokens to at most 7."
    )
    assert (failure.reason, failure.retryable) == ("BUDGET_EXCEEDED", False)


def test_a_budget_without_a_reset_is_not_worth_waiting_for() -> None:
    total = budget(window=Window.TOTAL, end=None)
    failure = budget_failures.exceeded(CALLER, total, 2 * NANO, "")
    assert failure.message == (
        "Budget exceeded: this request can cost up to 2, but the total budget of this API key is "
        "10, of which 1 is left. Ask the operator for a larger budget."
    )
    assert "budget_reset_time" not in failure.metadata


def test_a_budget_that_is_held_is_worth_waiting_for() -> None:
    failure = budget_failures.held(CALLER, budget(), NANO, "")
    assert failure.message == (
        "Budget reached for now: this request can cost up to 1, but of the monthly budget of this "
        "API key (10), only 0.5 is neither spent nor reserved for requests in progress. Try again "
        "shortly."
    )
    assert (failure.reason, failure.retryable) == ("CREDITS_HELD", True)


@pytest.mark.parametrize(("account_id", "name"), [(3, "search"), (2, "research"), (1, "acme")])
def test_the_account_of_a_budget_is_named(account_id: int, name: str) -> None:
    of = budget(account_id=account_id, window=Window.DAY)
    for failure in (
        budget_failures.exceeded(CALLER, of, 2 * NANO, ""),
        budget_failures.held(CALLER, of, NANO, ""),
    ):
        assert f"the daily budget of the account '{name}'" in failure.message
        assert failure.metadata["budget_account"] == name
        assert failure.metadata["budget_scope"] == "account"


def test_programs_can_read_the_budget() -> None:
    failure = budget_failures.exceeded(CALLER, budget(), 2 * NANO, "")
    found = details(errors.status(failure, "req_1"))
    info = found[error_details_pb2.ErrorInfo]
    assert dict(info.metadata) == {
        "retryable": "false",
        "request_id": "req_1",
        "budget_scope": "api_key",
        "budget_account": "search",
        "budget_window": "month",
        "budget_time_zone": "Europe/Berlin",
        "budget_limit_nano_credits": "10000000000",
        "budget_remaining_nano_credits": "1000000000",
        "budget_reset_time": "2026-12-01T00:00:00+01:00",
    }
    assert json.loads(errors.error_object(failure).extra_json["budget"]) == {
        "scope": "api_key",
        "account": "search",
        "window": "month",
        "time_zone": "Europe/Berlin",
        "limit": "10",
        "limit_nano_credits": 10_000_000_000,
        "remaining": "1",
        "remaining_nano_credits": 1_000_000_000,
        "reset_time": "2026-12-01T00:00:00+01:00",
    }


def test_a_long_name_leaves_the_status_small() -> None:
    caller = Caller(account_id=1, account_name="\N{GRINNING FACE}" * 128, key_id=1, key_name="ci")
    failure = budget_failures.exceeded(caller, budget(account_id=1), 2 * NANO, "")
    ((_, packed), *_) = errors.status(failure, "req_1").trailing_metadata
    assert len(packed) < 4096
