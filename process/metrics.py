"""The metrics that every process has, and the HTTP listener on which Prometheus reads them.

The listener is plaintext and takes no credentials: metrics contain no key, no token, no URL and no
text of a call. It can therefore listen where a scraper reaches it. It serves up to 16 connections
at a time, each for up to 10 seconds of silence, and closes further ones.
"""

import platform
import socket
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)

from process import unix_sockets
from process.command_line import version
from process.settings import Address, Listen, UnixAddress

MOST_CONNECTIONS: Final = 16
"""At a time; a scraper needs one."""

_LONGEST_SILENCE: Final = 10.0
"""Seconds."""

# A time of creation for each counter would double the number of series.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client's


def describe(registry: CollectorRegistry) -> None:
    """Add the versions of the program and the CPU time, memory and descriptors of the process."""
    info = Gauge(
        "chat_build_info",
        "The versions of the program, as labels. The value is 1.",
        ("version", "python_version", "grpc_version"),
        registry=registry,
    )
    info.labels(version(), platform.python_version(), metadata.version("grpcio")).set(1)
    ProcessCollector(registry=registry)


def serve(listen: Listen, registry: CollectorRegistry) -> tuple[int | None, Callable[[], None]]:
    """Serve a registry from a thread.

    Returns:
        The port, or None for a UNIX domain socket, and a blocking function that closes it.

    Raises:
        OSError: The address cannot be listened on.
    """
    with ExitStack() as stack:
        if isinstance(listen, UnixAddress):
            server: _Server = _UnixServer(stack.enter_context(unix_sockets.listening(listen)))
        else:
            server = _TcpServer(listen)
        held = stack.pop_all()
    server.set_app(make_wsgi_app(registry))
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        held.close()
        thread.join()

    return server.server_port or None, close


class _Handler(WSGIRequestHandler):
    timeout = _LONGEST_SILENCE

    def log_message(self, *_: Any) -> None:
        """Write no line for a scrape."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # A thread of a client that does not read must not delay the end of the process.
    block_on_close = False

    def __init__(self, address: Any, *, bind_and_activate: bool) -> None:
        self._places = BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, _Handler, bind_and_activate)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, *_: Any) -> None:
        """Ignore a client that leaves."""


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def __init__(self, listener: socket.socket) -> None:
        super().__init__("", bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        request, _ = super().get_request()
        return request, ("", 0)


class _TcpServer(_Server):
    def __init__(self, listen: Address) -> None:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.address_family, address = found[0][0], found[0][4]
        super().__init__(address, bind_and_activate=True)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's looks a name up
        self.server_name, self.server_port = "localhost", self.socket.getsockname()[1]
        self.setup_environ()
