"""The budgets that a request sets and removes, checked.

SetBudgetsRequest -> [BudgetChange, …], [Window, …]
"""

from collections.abc import Iterator, Sequence
from typing import Final

from chatcompletion.v1 import account_pb2
from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts import field_rules
from service.accounts.budget_rows import BudgetChange
from service.accounts.messages import WINDOWS
from service.errors import InvalidRequest, Violation
from service.ledger.budgets import Window

_ALLOWED: Final = "one of DAY, WEEK, MONTH and TOTAL"


def changes(request: pb.SetBudgetsRequest) -> tuple[Sequence[BudgetChange], Sequence[Window]]:
    """Return the budgets to set, and the windows whose budgets are removed.

    Raises:
        InvalidRequest: There are none, a window is named twice, or a value is not allowed.
    """
    found = [*_violations(request)]
    if found:
        raise InvalidRequest.of(found)
    return (
        [
            BudgetChange(
                window=WINDOWS[budget.window],
                limit=budget.limit_nano_credits,
                time_zone=budget.time_zone,
            )
            for budget in request.budgets
        ],
        [WINDOWS[window] for window in request.removed_windows],
    )


def _violations(request: pb.SetBudgetsRequest) -> Iterator[Violation]:
    if not request.budgets and not request.removed_windows:
        yield Violation(param="budgets", message="Name a budget to set or a window to remove.")
    windows: set[account_pb2.BudgetWindow.ValueType] = set()
    named = [(f"budgets[{n}].window", one.window) for n, one in enumerate(request.budgets)]
    named += [(f"removed_windows[{n}]", one) for n, one in enumerate(request.removed_windows)]
    for path, window in named:
        if window not in WINDOWS:
            yield Violation(param=path, message=f"Must be {_ALLOWED}.")
        elif window in windows:
            yield Violation(param=path, message="Must not be named twice.")
        windows.add(window)
    for number, budget in enumerate(request.budgets):
        if not field_rules.AMOUNT.accepts(budget.limit_nano_credits):
            path = f"budgets[{number}].limit_nano_credits"
            yield Violation(param=path, message=f"Must be {field_rules.AMOUNT.allowed}.")
        zone = budget.time_zone
        if zone and not field_rules.TIME_ZONE.accepts(zone):
            path = f"budgets[{number}].time_zone"
            yield Violation(param=path, message=f"Must {field_rules.no_time_zone(zone)}")
