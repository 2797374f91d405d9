"""TLS of a gRPC listener, with certificates that can change while it serves.

    files -> Watched -> grpc.ServerCredentials -> each handshake asks for changed certificates

If the files name authorities of clients, every client must have a certificate of theirs.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

from typing import Any, cast

import grpc

from process import unix_sockets
from process.settings import Listen
from process.taken_ports import cannot_listen
from process.tls.credentials import Credentials
from process.tls.files import ServerFiles
from process.tls.watching import Watched
from service.start_error import StartError


class ListenerTls:
    """TLS of one listener.

    Args:
        files: Its files.

    Raises:
        TlsError: They cannot be used.
    """

    def __init__(self, files: ServerFiles) -> None:
        self.watched = Watched(files, logger="service")
        self.watched.changed = self._use
        self._requires = bool(files.client_ca)
        self._changed: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of the listener."""
        first = _configuration(self.watched.credentials)
        return grpc.dynamic_ssl_server_credentials(first, cast("Any", self._fetch), self._requires)

    def _use(self, credentials: Credentials) -> None:
        self._changed = _configuration(credentials)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return changed certificates once; gRPC calls this before each handshake, in a thread."""
        changed, self._changed = self._changed, None
        return changed


def bind(variable: str, server: Any, listen: Listen, tls: ListenerTls | None) -> int:
    """Have a gRPC server listen, and return its port.

    Args:
        variable: The setting with the address.
        server: The server.
        listen: The address.
        tls: Its TLS; None for plaintext.

    Raises:
        StartError: The address cannot be listened on.
    """
    try:
        with unix_sockets.placed(listen):
            if tls is None:
                return cast("int", server.add_insecure_port(str(listen)))
            return cast("int", server.add_secure_port(str(listen), tls.credentials()))
    except RuntimeError as error:  # gRPC does not report why
        raise StartError(cannot_listen(variable, listen)) from error
    except OSError as error:
        raise StartError(cannot_listen(variable, listen, error)) from error


def _configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key, credentials.certificate)], credentials.authorities or None
    )
