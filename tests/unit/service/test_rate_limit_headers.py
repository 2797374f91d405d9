import pytest

from service.ledger.rate_limits import Level
from service.rate_limit_headers import duration


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (20 * 10**6, "20ms"),
        (999 * 10**6, "999ms"),
        (999 * 10**6 + 1, "1s"),
        (1200 * 10**6, "1.2s"),
        (59_999 * 10**6, "59.999s"),
        (60 * 10**9, "1m0s"),
        (360 * 10**9, "6m0s"),
        (61_500 * 10**6, "1m1.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(nanoseconds: int, text: str) -> None:
    assert duration(Level(1, 0, nanoseconds)) == text
