import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.models import Model
from service.upstream.choosing import ranked
from tests.support.examples import examples
from tests.support.samples import UPSTREAM, model

DRAWS = 2000


def source(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  (not for secrets)


def way(weight: int, order: int = 0) -> Model:
    return model(weight=weight, order=order, upstream=UPSTREAM)


def test_lower_orders_come_first() -> None:
    ways = [way(1, 2), way(1000, 1), way(1, 0), way(1000, 2), way(1, 1)]
    for seed in range(100):
        found = ranked(ways, source(seed).random)
        assert [each.order for each in found] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("value", [0.0, 0.5, 1 - 2**-53])
def test_any_random_number_will_do(value: float) -> None:
    ways = [way(1), way(1000)]
    assert sorted(map(id, ranked(ways, lambda: value))) == sorted(map(id, ways))


@examples(100)
@given(weights=st.lists(st.integers(1, 1000), min_size=1, max_size=16), seed=st.integers(0, 2**32))
def test_weights_are_kept(weights: list[int], seed: int) -> None:
    """The first upstream is drawn as often as the weights say, within five deviations."""
    ways = [way(weight) for weight in weights]
    draw = source(seed).random
    firsts = Counter(id(ranked(ways, draw)[0]) for _ in range(DRAWS))
    for each in ways:
        share = each.weight / sum(weights)
        deviation = (DRAWS * share * (1 - share)) ** 0.5
        assert abs(firsts[id(each)] - DRAWS * share) <= 5 * deviation + 1


@examples(100)
@given(
    ways=st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 9)), min_size=1, max_size=16),
    seed=st.integers(0, 2**32),
)
def test_every_upstream_is_tried_once(ways: list[tuple[int, int]], seed: int) -> None:
    models = [way(weight, order) for weight, order in ways]
    found = ranked(models, source(seed).random)
    assert sorted(map(id, found)) == sorted(map(id, models))
    assert [each.order for each in found] == sorted(each.order for each in models)
