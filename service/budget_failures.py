"""The failures of calls that a budget rejects.

Refused(BUDGET) -> BUDGET_EXCEEDED        Refused(BUDGET_HELD) -> CREDITS_HELD

The message, the metadata and the member `budget` of the error object name the budget and its reset.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chatcompletion.credit_amounts import members, to_text
from chatcompletion.default_messages import quoted
from service import errors
from service.accounts.keys import Caller
from service.ledger.budgets import Window, local_time
from service.ledger.rows import Exceeded

_ADJECTIVES: Final[Mapping[Window, str]] = {
    Window.DAY: "daily",
    Window.WEEK: "weekly",
    Window.MONTH: "monthly",
    Window.TOTAL: "total",
}


def exceeded(caller: Caller, budget: Exceeded, amount: int, less: str) -> errors.Failure:
    """Return the failure of a call that a spent budget rejects.

    Args:
        caller: The caller.
        budget: The budget.
        amount: The maximum cost of the call.
        less: Advice to ask for less, such as ", or set max_tokens to at most 5"; "" for none.
    """
    left = max(budget.limit - budget.spent, 0)
    start = (
        f"Budget exceeded: this request can cost up to {to_text(amount)}, but "
        f"{_name(caller, budget)} is {to_text(budget.limit)}, of which {to_text(left)} is left"
    )
    if budget.end is None:
        failure = errors.BudgetExceeded(f"{start}. Ask the operator for a larger budget{less}.")
    else:
        reset = local_time(budget.end, budget.time_zone)
        failure = errors.BudgetExceeded(
            f"{start} until {reset}. Wait until then, ask the operator for a larger budget{less}."
        )
    return _described(failure, caller, budget, left)


def held(caller: Caller, budget: Exceeded, amount: int, less: str) -> errors.Failure:
    """Return the failure of a call that a budget would cover, if other calls held none of it.

    The arguments are those of `exceeded`.
    """
    left = max(budget.limit - budget.spent - budget.held, 0)
    failure = errors.CreditsHeld(
        f"Budget reached for now: this request can cost up to {to_text(amount)}, but of "
        f"{_name(caller, budget)} ({to_text(budget.limit)}), only {to_text(left)} is neither spent "
        f"nor reserved for requests in progress. Try again shortly{less}."
    )
    return _described(failure, caller, budget, left)


def _name(caller: Caller, budget: Exceeded) -> str:
    adjective = _ADJECTIVES[budget.window]
    if budget.account_id is None:
        return f"the {adjective} budget of this API key"
    return f"the {adjective} budget of the account {quoted(_account(caller, budget))}"


def _account(caller: Caller, budget: Exceeded) -> str:
    return dict(caller.parents).get(budget.account_id or 0, caller.account_name)


def _described(
    failure: errors.Failure, caller: Caller, budget: Exceeded, left: int
) -> errors.Failure:
    described: dict[str, Any] = {
        "scope": "api_key" if budget.account_id is None else "account",
        "account": _account(caller, budget),
        "window": budget.window.value,
        "time_zone": budget.time_zone,
        **members("limit", budget.limit),
        **members("remaining", left),
        "reset_time": None if budget.end is None else local_time(budget.end, budget.time_zone),
    }
    failure.members = {"budget": msgspec.json.encode(described).decode()}
    failure.metadata = {
        f"budget_{name}": str(value)
        for name, value in described.items()
        if value is not None and name not in ("limit", "remaining")
    }
    return failure
