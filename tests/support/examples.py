"""How many examples a property is tried with.

    in CI, or with EXAMPLES=all     as many as the test says
    elsewhere                       a tenth of them, at least 20

The examples are the same in each run, and no time of a machine takes any away.
"""

import os
from collections.abc import Mapping
from typing import Final

from hypothesis import HealthCheck, settings

_SHARE: Final = 10
_FEWEST: Final = 20


def examples(most: int) -> settings:
    """Return the settings of a property that is tried with `most` examples where all are tried."""
    return settings(
        max_examples=number(most, os.environ),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def number(most: int, environ: Mapping[str, str]) -> int:
    """Return how many of `most` examples are tried in this environment."""
    if environ.get("CI") or environ.get("EXAMPLES") == "all":
        return most
    return min(most, max(most // _SHARE, _FEWEST))
