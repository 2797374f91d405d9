"""The number of examples of a property test.

    in CI, or with EXAMPLES=all     as many as the test requests
    elsewhere                       a tenth of them, at least 20

The examples are the same in each run and do not depend on the speed of the machine.
"""

import os
from collections.abc import Mapping
from typing import Final

from hypothesis import HealthCheck, settings

_SHARE: Final = 10
_FEWEST: Final = 20


def examples(most: int) -> settings:
    """Return the settings of a property test that has `most` examples in CI."""
    return settings(
        max_examples=number(most, os.environ),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def number(most: int, environ: Mapping[str, str]) -> int:
    """Return the number of examples, out of `most`, in this environment."""
    if environ.get("CI") or environ.get("EXAMPLES") == "all":
        return most
    return min(most, max(most // _SHARE, _FEWEST))
