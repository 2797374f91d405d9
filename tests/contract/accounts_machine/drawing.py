"""Operations, drawn from random bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hypothesis import strategies as st

from service.ledger.decisions import LARGEST_BALANCE
from service.ledger.rows import (
    Expire,
    Grant,
    Key,
    Operation,
    Place,
    Release,
    Settle,
)
from tests.contract.accounts_machine.budget_books import Fact
from tests.contract.accounts_machine.cast import (
    KEYS,
    LONGEST_LEASE,
    MODELS,
    PAYERS,
    PROCESSES,
    parents,
)

LARGEST_BATCH: Final = 48


@dataclass(slots=True)
class Process:
    """The memory of a process: its open holds."""

    name: str
    holds: list[Place] = field(default_factory=list)


OPERATION_BYTES: Final = 4


def batches() -> st.SearchStrategy[bytes]:
    """Batches, with four bytes per operation: the kind, the object, the amount, and an extra."""
    return st.integers(1, LARGEST_BATCH).flatmap(
        lambda size: st.binary(min_size=size * OPERATION_BYTES, max_size=size * OPERATION_BYTES)
    )


@dataclass(slots=True)
class Drawing:
    """Draws operations on what there is.

    Args:
        keys: Returns the keys.
        facts: Returns the holds there ever were.
    """

    _keys: Callable[[], Mapping[int, Key]]
    _facts: Callable[[], Mapping[str, Fact]]
    processes: list[Process] = field(
        default_factory=lambda: [Process(f"process {number}") for number in range(PROCESSES)]
    )
    sent: list[Operation] = field(default_factory=list)
    placed: int = 0

    def operation(self, what: int, which: int, much: int, more: int) -> Operation:
        """Draw an operation from four bytes."""
        process = self.processes[which % PROCESSES]
        facts = list(self._facts().values())
        any_number = much << 8 | more
        operation: Operation
        match what % 16:
            case 0 | 1 | 2 | 3 | 4 | 5:
                operation = self._a_place(process, which, much, more)
                process.holds.append(operation)
            case 6 | 7 | 8 if process.holds:
                place = process.holds.pop(which % len(process.holds))
                operation = _settlement(place, much, more)
            case 9 | 10 if process.holds:
                operation = _release(process.holds.pop(which % len(process.holds)))
            case 11 if facts:
                # The reaper expires a hold whose lease has possibly not ended.
                operation = _expire(facts[any_number % len(facts)].place)
            case 12 if more % 4 == 0:
                place = self._a_place(process, which, much, more)
                operation = _settlement(place, much, which)
            case 12 if facts:
                # A settlement from a journal, of any hold in any state.
                operation = _settlement(facts[any_number % len(facts)].place, which, more)
            case 13 | 14 if self.sent:
                operation = self.sent[any_number % len(self.sent)]
            case _:
                operation = _a_grant(which, much, more)
        return operation

    def _a_place(self, process: Process, which: int, much: int, more: int) -> Place:
        self.placed += 1
        # Sometimes a key that does not exist, or a key of another account.
        key_id = 1 + (which >> 2) % (len(KEYS) + (more % 8 == 0))
        key = self._keys().get(key_id)
        account_id = 1 + more % 2 if key is None or more % 16 == 1 else key.account_id
        limit = (key.tokens_per_minute if key else None) or 1_000
        return Place(
            hold_id=f"hold {self.placed}",
            account_id=account_id,
            key_id=key_id,
            amount=(0, much, much * 4, much * 16)[more >> 6],
            tokens=(much % 4, limit * (much % 8) // 8, limit, limit + 1)[(more >> 4) % 4],
            model=MODELS[which % 2],
            owner=process.name,
            parents=parents(account_id),
            lease=LONGEST_LEASE * (1 + much % 8) // 8,
            # Sometimes the caller sent a secret from before the last rotation.
            key_rotated_at=None if key is None or more % 4 == 3 else key.rotated_at,
        )


def _settlement(place: Place, much: int, more: int) -> Settle:
    """Draw a charge from 0 to twice the hold, mostly a small part of it."""
    return Settle(
        hold_id=place.hold_id,
        account_id=place.account_id,
        key_id=place.key_id,
        charge=place.amount * (much if more % 3 == 0 else much // 16) // 128,
        prompt_tokens=place.tokens * more // 256,
        completion_tokens=much % 4,
        partial=much % 2 == 1,
        estimated=more % 2 == 1,
        prices_from=None if much % 3 == 0 else more,
        place=place,
        parents=place.parents,
    )


def _release(place: Place) -> Release:
    return Release(
        hold_id=place.hold_id,
        account_id=place.account_id,
        key_id=place.key_id,
        parents=place.parents,
    )


def _expire(place: Place) -> Expire:
    return Expire(
        hold_id=place.hold_id,
        account_id=place.account_id,
        key_id=place.key_id,
        parents=place.parents,
    )


def _a_grant(which: int, much: int, more: int) -> Grant:
    """Draw a grant, possibly negative, mostly to an existing account, often with a used id."""
    amount = LARGEST_BALANCE if much == 255 else (much - 64) * 8
    account_id = (*PAYERS, *PAYERS, *range(1, 6))[which % 9]
    return Grant(account_id=account_id, amount=amount, idempotency_id=f"{more % 64}")
