import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

import process.metrics  # noqa: F401  (switches times of creation off)
from process.distribution import Distribution

BUCKETS = (0.01, 0.5, 1.0, 30.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", 'b"\n']), st.sampled_from([*BUCKETS, 0.0, 0.3, 31.0, -1.0]))
    )
)
def test_it_is_exposed_as_a_histogram_of_prometheus_client(
    observed: list[tuple[str, float]],
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    cheap = Distribution("x_seconds", "Seconds.", ("model",), registry=ours, buckets=BUCKETS)
    usual = Histogram("x_seconds", "Seconds.", ("model",), registry=theirs, buckets=BUCKETS)
    for label, value in observed:
        cheap.observe((label,), value)
        usual.labels(label).observe(value)

    assert generate_latest(ours) == generate_latest(theirs)


def test_without_buckets_it_has_a_count_and_a_sum() -> None:
    registry = CollectorRegistry()
    amounts = Distribution("amount", "Amounts.", (), registry=registry, buckets=())
    amounts.observe((), 2.0)
    amounts.observe((), 3.0)

    assert registry.get_sample_value("amount_count") == 2
    assert registry.get_sample_value("amount_sum") == 5


def test_a_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    Distribution("x", "X.", (), registry=registry, buckets=())
    with pytest.raises(ValueError, match="Duplicated"):
        Distribution("x", "X.", (), registry=registry, buckets=())
