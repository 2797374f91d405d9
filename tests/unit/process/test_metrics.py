import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from prometheus_client import CollectorRegistry, Counter

from process.metrics import MOST_CONNECTIONS, serve
from process.settings import Address, UnixAddress

_open = build_opener(ProxyHandler({})).open


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("seen", "Seen.", registry=registry).inc(3)
    return registry


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_metrics_are_served(stack: ExitStack, host: str) -> None:
    port, close = serve(Address(host, 0), _registry())
    stack.callback(close)
    with _open(f"http://{host}:{port}/metrics", timeout=10) as response:
        assert b"seen_total 3.0" in response.read()


def test_a_unix_domain_socket_has_no_port(stack: ExitStack, tmp_path: Path) -> None:
    place = UnixAddress(str(tmp_path / "m.sock"))
    port, close = serve(place, _registry())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place.path)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    close()

    assert port is None
    assert b"seen_total 3.0" in answer
    assert not Path(place.path).exists()


def test_connections_are_bounded(stack: ExitStack) -> None:
    port, close = serve(Address("127.0.0.1", 0), _registry())
    stack.callback(close)
    clients = [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        for _ in range(MOST_CONNECTIONS + 1)
    ]

    # The connections are accepted in their order, and only the last one is closed.
    assert clients.pop().recv(1) == b""
    clients[0].sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert clients[0].recv(12) == b"HTTP/1.0 200"
