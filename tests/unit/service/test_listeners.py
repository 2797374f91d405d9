"""The inside of grpcio that the listeners extend: a new version may change it."""

from importlib.metadata import version
from inspect import signature

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

from service.listeners import options


def test_the_version_is_one_that_was_looked_into() -> None:
    assert version("grpcio").startswith("1.85.")


def test_what_is_extended_is_there() -> None:
    assert callable(cygrpc.AioServer._make_request_call_future)
    assert callable(cygrpc.AioServer._request_call)
    assert callable(cygrpc._ServicerContext)
    assert callable(cygrpc.get_working_loop)
    assert "interceptors" in signature(_server.Server.__init__).parameters
    assert issubclass(_server.Server, grpc.aio.Server)


def test_every_listener_has_the_options_against_strangers() -> None:
    found = dict(options(max_request_bytes=1, max_response_bytes=2, max_streams=3))

    assert found == {
        "grpc.so_reuseport": 0,
        "grpc.http2.hpack_table_size.decoder": 0,
        "grpc.max_metadata_size": 16_384,
        "grpc.absolute_max_metadata_size": 65_536,
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.max_connection_idle_ms": 900_000,
        "grpc.max_receive_message_length": 1,
        "grpc.max_send_message_length": 2,
        "grpc.max_concurrent_streams": 3,
    }
