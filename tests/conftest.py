"""The fixtures of all test folders, and the plugins for time limits and a clean tree.

database    an address, once for each engine
postgres    a server for all tests of a process; each makes a database of its own in it
own_server  a server for the tests of one module, which can stop it and change its settings
via         each connection from a bridge to a service: a socket, or in-process

Where PostgreSQL's binaries are absent the tests that need it are skipped, but not in CI.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Server, binaries, running
from tests.support.running_bridge import VIAS, Via

pytest_plugins = (
    "tests.support.shown_secrets",
    "tests.support.side_by_side",
    "tests.support.speed",
    "tests.support.time_limit",
    "tests.support.tree",
)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for all tests of a process; each makes a database of its own in it."""
    yield from _server()


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Yield a server that a test can harm if it repairs it."""
    yield from _server()


def _server() -> Iterator[Server]:
    if binaries() is None and not os.environ.get("CI"):
        pytest.skip("PostgreSQL's binaries are not installed")
    # fsync only matters for a crash of the machine, not of the server.
    with running(["fsync=off", "max_connections=100"], in_memory=True) as server:
        yield server


@pytest.fixture(params=VIAS)
def via(request: pytest.FixtureRequest) -> Via:
    """Return each connection from a bridge to a service."""
    way: Via = request.param
    return way


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the address of an empty database, for each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/accounts.db"
    else:
        server: Server = request.getfixturevalue("postgres")
        with server.lent() as name:
            yield server.url(name)
