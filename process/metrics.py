"""The metrics that every process has, and the HTTP port on which Prometheus reads them."""

import platform
from collections.abc import Callable
from importlib import metadata

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from process.command_line import version
from process.settings import Address

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


def serve(listen: Address, registry: CollectorRegistry) -> tuple[int, Callable[[], None]]:
    """Serve a registry from a thread.

    Returns:
        The port, and a blocking function that closes it.

    Raises:
        OSError: The address cannot be listened on.
    """
    server, thread = start_http_server(listen.port, listen.host, registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, close
