"""Every test runs on asyncio's and uvloop's event loops, and on the transports of its fixture.

carrier     our transport, and httpx's own
ours        only our transport
"""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.faults.transport.carriers import HTTPXS, OURS, Carrier


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the event loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=[OURS, HTTPXS], ids=lambda carrier: carrier.name)
def carrier(request: pytest.FixtureRequest) -> Carrier:
    """Both transports, one after the other."""
    found: Carrier = request.param
    return found


@pytest.fixture
def ours() -> Carrier:
    """Our transport only, for behaviour that httpx's own lacks or does not guarantee."""
    return OURS
