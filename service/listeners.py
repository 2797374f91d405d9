"""The options that every gRPC listener of the service has: what one stranger can do to the others.

    server.py (callers)    ─┐
                            ├─► options(...) ─► grpc.aio.server
    admin.py  (operators)  ─┘

A listener adds the options that only it needs.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

Options: TypeAlias = Sequence[tuple[str, int]]
"""Names and values of channel arguments of grpc core."""

_SHARED: Final[Options] = (
    # Two processes on one port would share its calls; the second is refused instead.
    ("grpc.so_reuseport", 0),
    # grpc core keeps a header value that it cannot parse, with its error, in the HPACK table of the
    # connection. Later values under that name then fail with the same error, and behind a proxy
    # they are other callers'. Without a table, a bad value fails one call. Every call then carries
    # its headers in full, which costs some 250 bytes and 5 µs of CPU.
    ("grpc.http2.hpack_table_size.decoder", 0),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # A dead peer is found within 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 15 * 60 * 1000),
)


def options(*, max_request_bytes: int, max_response_bytes: int, max_streams: int) -> Options:
    """Return the options of a listener.

    Args:
        max_request_bytes: The largest message that is received.
        max_response_bytes: The largest message that is sent.
        max_streams: The most calls at a time on one connection; further calls wait at the client.
    """
    return (
        *_SHARED,
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", max_response_bytes),
        ("grpc.max_concurrent_streams", max_streams),
    )
