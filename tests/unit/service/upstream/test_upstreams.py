from dataclasses import replace

import pytest

from service.telemetry import Telemetry
from service.upstream.client_limits import UpstreamBounds
from service.upstream.upstreams import Upstreams
from service.upstream_report import BREAKER_STATES
from tests.support.samples import MODEL, UPSTREAM

OTHER = replace(UPSTREAM, name="other")


def taken(upstreams: Upstreams) -> int:
    """Return the number of places at the upstream of `MODEL`."""
    places = upstreams.of(MODEL).bulkhead
    count = 0
    while places.take():
        count += 1
    for _ in range(count):
        places.leave()
    return count


@pytest.mark.parametrize(
    ("bounds", "own", "alone", "beside"),
    [
        (UpstreamBounds(connections=11), None, 11, 5),
        (UpstreamBounds(connections=1), None, 1, 1),
        (UpstreamBounds(connections=11, calls=7), None, 7, 7),
        (UpstreamBounds(connections=11, calls=7), 9, 9, 9),
    ],
)
def test_one_upstream_has_all_connections_and_several_have_half_each(
    bounds: UpstreamBounds, own: int | None, alone: int, beside: int
) -> None:
    upstream = replace(UPSTREAM, max_calls=own)
    upstreams = Upstreams(bounds, Telemetry())
    upstreams.use([upstream])
    assert taken(upstreams) == alone
    upstreams.use([OTHER, upstream])
    assert taken(upstreams) == beside
    upstreams.use([upstream])
    assert taken(upstreams) == alone


def test_an_upstream_can_have_no_waiting_room() -> None:
    upstreams = Upstreams(UpstreamBounds(), Telemetry())
    upstreams.use([UPSTREAM])
    assert upstreams.of(MODEL).bulkhead.has_room
    upstreams.use([replace(UPSTREAM, max_waiting=0)])
    assert not upstreams.of(MODEL).bulkhead.has_room


def test_an_upstream_is_remembered_until_its_name_or_address_changes() -> None:
    upstreams = Upstreams(UpstreamBounds(), Telemetry())
    upstreams.use([UPSTREAM])
    known = upstreams.of(MODEL)
    upstreams.use([replace(UPSTREAM, api_key="new"), OTHER])
    assert upstreams.of(MODEL) is known
    upstreams.use([replace(UPSTREAM, base_url="https://elsewhere.example/v1")])
    assert upstreams.of(MODEL) is not known


def test_the_metrics_have_the_upstreams_in_use() -> None:
    telemetry = Telemetry()
    upstreams = Upstreams(UpstreamBounds(failures=1), telemetry)

    def value(metric: str, name: str, state: str) -> float | None:
        labels = {"upstream": name, "state": state}
        return telemetry.registry.get_sample_value(metric, labels)

    upstreams.use([UPSTREAM, OTHER])
    known = upstreams.of(MODEL)
    assert known.bulkhead.take()
    known.breaker.end(known.breaker.enter(), "failed", 0.0)
    assert value("chat_upstream_calls", "primary", "running") == 1
    assert value("chat_upstream_calls", "primary", "waiting") == 0
    assert [value("chat_upstream_breaker_state", "primary", state) for state in BREAKER_STATES] == [
        0,
        1,
        0,
    ]
    upstreams.use([OTHER])
    assert value("chat_upstream_calls", "primary", "running") is None
    assert value("chat_upstream_breaker_state", "primary", "open") is None
    assert value("chat_upstream_breaker_state", "other", "closed") == 1
