"""A health check for containers, as one command.

    127.0.0.1:50051 or unix:PATH    a service: `Check` of grpc.health.v1 returns SERVING
    http://127.0.0.1:8080/readyz    a bridge: the response has the status 200
    https://127.0.0.1:8080/readyz   the same with TLS; `--ca` makes the check of a service use TLS

The exit status is 0 if the target is healthy, 1 if not, and 2 if an argument is wrong.
"""

import argparse
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import grpc
from grpc_health.v1 import health, health_pb2

from process.command_line import CommandParser

SERVICE: Final = "127.0.0.1:50051"
"""The default target."""

_HTTP: Final = "http://"
_HTTPS: Final = "https://"
_UNIX: Final = "unix:"
_LONGEST_STATUS_LINE: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """The result of a check."""

    is_good: bool
    text: str
    """A status, or the reason of a failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeTls:
    """The files for a target with TLS, as PEM, and the name in its certificate; "" if absent."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials for gRPC.

        Raises:
            OSError: A file cannot be read.
        """
        ca, cert, key = (
            Path(file).read_bytes() if file else None for file in (self.ca, self.cert, self.key)
        )
        return grpc.ssl_channel_credentials(ca, key, cert)

    def context(self) -> ssl.SSLContext:
        """Return the context for HTTP. Without `ca`, the system's authorities are trusted.

        Raises:
            OSError: A file cannot be read, or has no certificate.
        """
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context


def check_grpc(target: str, name: str, timeout: float, tls: ProbeTls | None = None) -> Health:
    """Check the health of a name at a gRPC server, for up to `timeout` seconds.

    Raises:
        OSError: A file of TLS cannot be read.
    """
    options = [("grpc.ssl_target_name_override", tls.name)] if tls and tls.name else []
    with (
        grpc.secure_channel(target, tls.credentials(), options)
        if tls
        else grpc.insecure_channel(target)
    ) as channel:
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


def check_http(url: str, timeout: float, tls: ProbeTls | None = None) -> Health:
    """Send GET to an http:// or https:// URL and read the status line.

    Args:
        url: The URL.
        timeout: Maximum seconds for each step.
        tls: The files for https://.

    Raises:
        OSError: A file of TLS cannot be read.
    """
    parts = urlsplit(url)
    context = (tls or ProbeTls()).context() if parts.scheme == "https" else None
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        host, port = parts.hostname or "", parts.port or (443 if context else 80)
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, port), timeout))
            if context:
                name = (tls and tls.name) or host
                wrapped = context.wrap_socket(connection, server_hostname=name)
                connection = stack.enter_context(wrapped)
            connection.sendall(request.encode("ascii"))
            with connection.makefile("rb") as response:
                line = response.readline(_LONGEST_STATUS_LINE)
    except ssl.SSLCertVerificationError as error:
        return Health(is_good=False, text=error.verify_message)
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
    tls = ProbeTls(ca=asked.ca, cert=asked.cert, key=asked.key, name=asked.server_name)
    try:
        if target.startswith((_HTTP, _HTTPS)):
            health = check_http(target, asked.timeout, tls)
        else:
            health = check_grpc(target, asked.name, asked.timeout, tls if asked.ca else None)
    except OSError as error:
        health = Health(is_good=False, text=f"cannot use the files of TLS: {error.strerror}")
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
        help="host:port or unix:PATH of a service, or an http:// or https:// URL of a bridge; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--name", default="", help="a name of grpc.health.v1, such as liveness; default: readiness"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=2.0, help="in seconds, up to 60; default: %(default)g"
    )
    for option, help_ in (
        ("--ca", "a PEM file of authorities; with it, the check of a service uses TLS"),
        ("--cert", "a PEM file with a client certificate"),
        ("--key", "a PEM file with its private key"),
        ("--server-name", "the name in the certificate of the target; default: its host"),
    ):
        parser.add_argument(option, default="", help=help_)
    return parser


def _target(text: str) -> str:
    if text.startswith(_UNIX) and len(text) > len(_UNIX):
        return text
    try:
        if text.startswith(_HTTPS):
            return _HTTPS + _target(_HTTP + text.removeprefix(_HTTPS)).removeprefix(_HTTP)
        parts = urlsplit(text if text.startswith(_HTTP) else f"{_HTTP}{text}")
        is_valid = bool(parts.hostname) and text.isascii() and text.isprintable()
        if is_valid and (text.startswith(_HTTP) or (parts.port and not parts.path)):
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError("must be host:port, unix:PATH, or an http:// or https:// URL")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:
        raise argparse.ArgumentTypeError("must be a number of seconds up to 60")
    return seconds
