import resource
from dataclasses import replace

import pytest

from process.settings import read
from restbridge import __main__ as command
from restbridge.config import Settings

SETTINGS = replace(read(Settings, {}), max_connections=1000)


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1024, 4096, 1128, 1000),
        (4096, 4096, None, 1000),
        (256, 512, 512, 384),
        (1024, resource.RLIM_INFINITY, 1128, 1000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 1000),
    ],
)
def test_connections_are_bounded_by_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, connections: int
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert command.allow_connections(SETTINGS).max_connections == connections
    assert limits == ([] if raised is None else [(raised, hard)])


@pytest.mark.parametrize(("hard", "connections"), [(4096, 1000), (1400, 772), (300, 1)])
def test_a_service_in_the_process_needs_descriptors_too(
    monkeypatch: pytest.MonkeyPatch, hard: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert command.allow_connections(SETTINGS, others=500).max_connections == connections
