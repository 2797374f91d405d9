"""The errors of a session, which a new session can avoid."""

import pytest
from psycopg import errors

from service.ledger.postgres import is_of_session


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", True),  # connection failure
        ("08P01", True),  # of a proxy that lost its server
        ("25006", True),  # read-only
        ("26000", True),  # no such prepared statement
        ("57P01", True),  # administrator
        ("57P02", True),  # crash
        ("57P03", True),  # not yet
        ("57P05", True),  # idle
        ("25P02", False),  # the transaction failed before
        ("23505", False),  # unique
        ("22003", False),  # out of range
        ("40P01", False),  # deadlock
        ("53100", False),  # disk full
        ("55P03", False),  # lock timeout
        ("57014", False),  # statement timeout
    ],
)
def test_errors_of_the_session(state: str, expected: bool) -> None:
    assert is_of_session(errors.lookup(state)()) is expected


def test_an_error_without_a_state_is_not() -> None:
    assert is_of_session(errors.Error("the connection is closed")) is False
