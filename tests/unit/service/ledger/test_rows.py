"""The fields of the rows equal the columns of the tables."""

from typing import Any, get_args

import pytest
import sqlalchemy as sa
from msgspec.structs import fields

from service.ledger import rows, schema
from service.ledger.decisions import decide
from service.ledger.rows import Changes, EntryKind, HoldState, Rows


@pytest.mark.parametrize(
    ("row", "table", "others"),
    [
        (rows.Account, schema.accounts, {"name", "created_at", "deleted_at"}),
        (
            rows.Key,
            schema.api_keys,
            {"name", "digest", "former_digest", "secret_prefix", "identity"},
        ),
        (rows.Hold, schema.holds, set()),
        (rows.Entry, schema.ledger, {"id"}),
    ],
)
def test_each_member_is_a_column(row: type[Any], table: sa.Table, others: set[str]) -> None:
    assert {field.name for field in fields(row)} | others == set(table.columns.keys())


def test_each_operation_and_outcome_is_a_value() -> None:
    for kind in (*get_args(rows.Operation), *get_args(rows.Outcome)):
        value = kind(**{field.name: 0 for field in fields(kind)})
        with pytest.raises(AttributeError):
            setattr(value, fields(kind)[0].name, 1)
        assert hash(value) == hash(kind(**{field.name: 0 for field in fields(kind)}))


@pytest.mark.parametrize("kind", get_args(rows.Operation))
def test_each_operation_is_decided_even_where_nothing_exists(kind: type[Any]) -> None:
    operation = kind(**{field.name: 1 for field in fields(kind)})
    empty = Rows()
    outcomes, changes = decide(empty, [operation], 1)
    assert len(outcomes) == 1
    assert isinstance(outcomes[0], get_args(rows.Outcome))
    assert (empty, changes) == (Rows(), Changes())


def test_stored_numbers_keep_their_meaning() -> None:
    assert {state.name: state.value for state in HoldState} == {
        "OPEN": 0,
        "SETTLED": 1,
        "RELEASED": 2,
        "EXPIRED": 3,
    }
    assert {kind.name: kind.value for kind in EntryKind} == {
        "GRANT": 0,
        "SETTLE": 1,
        "ADJUST": 2,
        "DEDUCT": 3,
    }
