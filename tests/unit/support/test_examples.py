"""The number of examples, by environment."""

import pytest

from tests.support.examples import number


@pytest.mark.parametrize(
    ("environ", "most", "tried"),
    [
        ({}, 3_500, 350),
        ({}, 100, 20),
        ({}, 7, 7),
        ({"CI": ""}, 3_500, 350),
        ({"EXAMPLES": "few"}, 3_500, 350),
        ({"CI": "true"}, 3_500, 3_500),
        ({"EXAMPLES": "all"}, 3_500, 3_500),
    ],
)
def test_a_tenth_is_tried_where_not_all_are(environ: dict[str, str], most: int, tried: int) -> None:
    assert number(most, environ) == tried
