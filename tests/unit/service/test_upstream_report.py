from typing import get_args

import pytest

from service.upstream_report import CAUSES, OPERATORS, Cause, status_label


def test_every_cause_is_described() -> None:
    assert tuple(CAUSES) == get_args(Cause)
    assert CAUSES.keys() > OPERATORS


@pytest.mark.parametrize(
    ("status", "label"),
    [(0, ""), (-1, ""), (200, "200"), (404, "404"), (599, "5xx"), (999, "9xx"), (1000, "")],
)
def test_a_status_is_a_label_of_a_bounded_set(status: int, label: str) -> None:
    assert status_label(status) == label


def test_there_are_few_labels() -> None:
    assert len({status_label(status) for status in range(-10, 2000)}) < 80
