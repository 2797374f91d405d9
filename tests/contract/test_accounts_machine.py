"""No sequence of operations breaks an account. `accounts_machine` has the machine."""

from typing import Final

import pytest

from tests.contract.accounts_machine import machine

STEPS: Final = 200_000


@pytest.mark.time_limit(300)
def test_no_sequence_of_operations_breaks_an_account() -> None:
    machine.run(STEPS)
