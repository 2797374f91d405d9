import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from process.probe import main

AUTHORITY: Final = trustme.CA()


@contextmanager
def health_server(
    *, is_serving: bool, listen: str = "127.0.0.1:0", tls: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Run a gRPC server that reports the readiness and, under `liveness`, SERVING."""
    servicer = health.HealthServicer()
    states = health_pb2.HealthCheckResponse
    servicer.set("", states.SERVING if is_serving else states.NOT_SERVING)
    servicer.set("liveness", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port(listen, tls) if tls else server.add_insecure_port(listen)
    server.start()
    try:
        yield listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def http_server(
    answer: bytes, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one connection, and keep what it sent."""
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with suppress(ssl.SSLError), ExitStack() as stack:
            stack.enter_context(connection)
            if tls:
                connection = stack.enter_context(tls.wrap_socket(connection, server_side=True))
            received.append(connection.recv(65536))
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}", received
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


@pytest.fixture
def authority(tmp_path: Path) -> str:
    """The file of the authority."""
    file = str(tmp_path / "ca.pem")
    AUTHORITY.cert_pem.write_to_path(file)
    return file


def test_a_service_at_a_socket_file(tmp_path: Path) -> None:
    with health_server(is_serving=True, listen=f"unix:{tmp_path}/service.sock") as target:
        assert main([target]) == 0


def test_a_service_with_tls_is_verified(
    authority: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = AUTHORITY.issue_cert("localhost")
    chain = b"".join(part.bytes() for part in mine.cert_chain_pems)
    tls = grpc.ssl_server_credentials([(mine.private_key_pem.bytes(), chain)])
    other = str(tmp_path / "other.pem")
    trustme.CA().cert_pem.write_to_path(other)
    with health_server(is_serving=True, tls=tls) as target:
        at_localhost = target.replace("127.0.0.1", "localhost")
        assert main([at_localhost, "--ca", authority]) == 0
        assert main([target, "--ca", authority, "--server-name", "localhost"]) == 0
        assert main([at_localhost, "--ca", other]) == 1
        assert main([at_localhost, "--timeout", "0.5"]) == 1
        assert main([target, "--ca", str(tmp_path / "absent.pem")]) == 1
    assert "cannot use the files of TLS: No such file" in capsys.readouterr().err


def test_a_service_that_requires_a_certificate_gets_one(authority: str, tmp_path: Path) -> None:
    mine, ours = AUTHORITY.issue_cert("localhost"), AUTHORITY.issue_cert("probe")
    chain = b"".join(part.bytes() for part in mine.cert_chain_pems)
    tls = grpc.ssl_server_credentials(
        [(mine.private_key_pem.bytes(), chain)],
        root_certificates=AUTHORITY.cert_pem.bytes(),
        require_client_auth=True,
    )
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(cert)
    ours.private_key_pem.write_to_path(key)
    with health_server(is_serving=True, tls=tls) as target:
        told = [target.replace("127.0.0.1", "localhost"), "--ca", authority]
        assert main([*told, "--cert", cert, "--key", key]) == 0
        assert main(told) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--server-name", "localhost"), 0, "200 OK"),
        ((), 1, "IP address mismatch, certificate is not valid for '127.0.0.1'."),
    ],
)
def test_a_bridge_with_tls_is_verified(
    arguments: tuple[str, ...],
    status: int,
    said: str,
    authority: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    with http_server(b"HTTP/1.1 200 OK\r\n\r\n", context) as (url, _):
        assert main([f"{url}/readyz", "--ca", authority, *arguments]) == status
    printed = capsys.readouterr()
    assert (printed.out or printed.err) == f"{said}\n"


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert main([f"http://127.0.0.1:{port}/healthz"]) == 1
    assert main([f"127.0.0.1:{port}", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere",),
        ("http://",),
        ("https://",),
        ("unix:",),
        ("host:port",),
        ("host:1/path",),
        ("--timeout", "0"),
        ("-x",),
    ],
)
def test_a_wrong_argument_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
