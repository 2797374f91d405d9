"""A health check for containers, as one command.

    127.0.0.1:50051                a service: `Check` of grpc.health.v1 returns SERVING
    http://127.0.0.1:8080/readyz   a bridge: the response has the status 200

The exit status is 0 if the target is healthy, 1 if not, and 2 if an argument is wrong.
"""

import argparse
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import grpc
from grpc_health.v1 import health, health_pb2

from process.command_line import CommandParser

SERVICE: Final = "127.0.0.1:50051"
"""The default target."""

_HTTP: Final = "http://"
_LONGEST_STATUS_LINE: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """The result of a check."""

    is_good: bool
    text: str
    """A status, or the reason of a failure."""


def check_grpc(target: str, name: str, timeout: float) -> Health:
    """Check the health of a name at a gRPC server, for up to `timeout` seconds."""
    with grpc.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            response = channel.unary_unary(
                f"/{health.SERVICE_NAME}/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )(request, timeout=timeout)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else None
            return Health(is_good=False, text=code.name if code else "no answer")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    return Health(is_good=status == "SERVING", text=status)


def check_http(url: str, timeout: float) -> Health:
    """Send GET to an http:// URL and read the status line; each step takes up to `timeout` s."""
    parts = urlsplit(url)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        address = parts.hostname or "", parts.port or 80
        with socket.create_connection(address, timeout) as connection:
            connection.sendall(request.encode("ascii"))
            with connection.makefile("rb") as response:
                line = response.readline(_LONGEST_STATUS_LINE)
    except OSError as error:
        return Health(is_good=False, text=error.strerror or "no answer")
    _, _, status = line.decode("latin-1").strip().partition(" ")
    return Health(is_good=status.startswith("200"), text=status or "no HTTP response")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: The arguments after the program's name; None for those of the process.
    """
    try:
        asked = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as end:  # argparse has printed an error or the help
        return int(end.code or 0)
    target: str = asked.target
    if target.startswith(_HTTP):
        health = check_http(target, asked.timeout)
    else:
        health = check_grpc(target, asked.name, asked.timeout)
    print(health.text, file=sys.stdout if health.is_good else sys.stderr)
    return 0 if health.is_good else 1


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="chatcompletion-probe",
        description="Check the health of a service or a bridge, for containers.",
        epilog="docs/operations.md describes the health, docs/configuration.md the addresses.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        type=_target,
        default=SERVICE,
        help="host:port of a service, or an http:// URL of a bridge; default: %(default)s",
    )
    parser.add_argument(
        "--name", default="", help="a name of grpc.health.v1, such as liveness; default: readiness"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=2.0, help="in seconds, up to 60; default: %(default)g"
    )
    return parser


def _target(text: str) -> str:
    try:
        parts = urlsplit(text if text.startswith(_HTTP) else f"{_HTTP}{text}")
        is_valid = bool(parts.hostname) and text.isascii() and text.isprintable()
        if is_valid and (text.startswith(_HTTP) or (parts.port and not parts.path)):
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError("must be host:port or an http:// URL")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:
        raise argparse.ArgumentTypeError("must be a number of seconds up to 60")
    return seconds
