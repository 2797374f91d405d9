"""The HTTP port on which Prometheus reads the metrics of a process."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server

from process.settings import Address


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
