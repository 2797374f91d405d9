from datetime import datetime, timedelta

import pytest

from service import time_zones


def test_a_time_zone_has_a_name() -> None:
    zone = time_zones.named("Europe/Vienna")
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize(
    "name", ["", "Europe", "Europe/Nowhere", "../UTC", "/etc/localtime", "a\0b"]
)
def test_anything_else_is_none(name: str) -> None:
    assert time_zones.named(name) is None
