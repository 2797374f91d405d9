"""In which order a call tries the upstreams of its model. Pure: randomness is passed in.

order      the upstreams with the lowest order come first, those with the next are for fallback
weight     among upstreams of the same order, each comes first as often as its weight says
"""

import math
from collections.abc import Callable, Sequence

from service.models import Model


def ranked(ways: Sequence[Model], random: Callable[[], float]) -> list[Model]:
    """Return the upstreams of a model in the order in which a call tries them.

    Args:
        ways: The model at each of its upstreams.
        random: Returns a number from 0 to 1, below 1.
    """
    # The first of several exponential clocks rings with a probability in proportion to its rate.
    return sorted(ways, key=lambda way: (way.order, -math.log(1.0 - random()) / way.weight))
