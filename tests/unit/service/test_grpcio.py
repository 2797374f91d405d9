"""The private parts of grpcio that the listeners use, which a new version can change."""

from importlib.metadata import version
from inspect import signature

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server


def test_the_version_is_one_that_was_looked_into() -> None:
    assert version("grpcio").startswith("1.85.")


def test_what_is_extended_is_there() -> None:
    assert callable(cygrpc.AioServer._make_request_call_future)
    assert callable(cygrpc.AioServer._request_call)
    assert callable(cygrpc._ServicerContext)
    assert callable(cygrpc.get_working_loop)
    assert "interceptors" in signature(_server.Server.__init__).parameters
    assert issubclass(_server.Server, grpc.aio.Server)
