import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from process.probe import main


@contextmanager
def health_server(*, is_serving: bool) -> Iterator[str]:
    """Run a gRPC server that reports the readiness and, under `liveness`, SERVING."""
    servicer = health.HealthServicer()
    states = health_pb2.HealthCheckResponse
    servicer.set("", states.SERVING if is_serving else states.NOT_SERVING)
    servicer.set("liveness", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def http_server(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one connection, and keep what it sent."""
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            received.append(connection.recv(65536))
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        thread.join()


def test_a_service_that_serves_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    with health_server(is_serving=True) as target:
        assert main([target]) == 0
    assert capsys.readouterr().out == "SERVING\n"


def test_a_service_that_drains_is_alive_but_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with health_server(is_serving=False) as target:
        assert main([target]) == 1
        assert main([target, "--name", "liveness"]) == 0
        assert main([target, "--name", "none"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("SERVING\n", "NOT_SERVING\nNOT_FOUND\n")


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0, "200 OK"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 1, "503 Service Unavailable"),
        (b"", 1, "no HTTP response"),
        (b"\xff\n", 1, "no HTTP response"),
    ],
)
def test_a_bridge_is_healthy_with_200_alone(
    answer: bytes, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_server(answer) as (url, received):
        assert main([f"{url}/readyz?a=b"]) == status
    printed = capsys.readouterr()
    assert (printed.out or printed.err) == f"{said}\n"
    assert received[0].startswith(b"GET /readyz?a=b HTTP/1.1\r\nHost: 127.0.0.1:")


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert main([f"http://127.0.0.1:{port}/healthz"]) == 1
    assert main([f"127.0.0.1:{port}", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments",
    [("nowhere",), ("http://",), ("host:port",), ("host:1/path",), ("--timeout", "0"), ("-x",)],
)
def test_a_wrong_argument_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
