"""The files of TLS, by the settings that name them, and which of them belong together.

CHAT_TLS_CERT_FILE and CHAT_TLS_KEY_FILE     a listener has TLS
… and CHAT_TLS_CLIENT_CA_FILE                clients must have a certificate of these authorities
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file, and the setting that names it."""

    variable: str
    path: str
    """The path; "" if the setting is absent."""

    def __bool__(self) -> bool:
        return bool(self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A certificate and its private key."""

    certificate: File
    key: File

    def wrong(self) -> list[str]:
        """Return an error if only one of both is set."""
        pair = (self.certificate, self.key)
        return [
            f"{absent.variable} must be set together with {present.variable}; found only "
            f"{present.variable}"
            for absent, present in (pair, pair[::-1])
            if present and not absent
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFiles:
    """The files of a listener."""

    identity: Identity
    client_ca: File
    """The authorities of clients; absent if clients need no certificate."""

    @classmethod
    def of(cls, values: Mapping[str, Any], prefix: str) -> "ServerFiles":
        """Return the files of a listener.

        Args:
            values: The valid values of settings, by field, such as `admin_tls_cert_file`.
            prefix: The first words of the fields, such as "admin_tls".
        """
        return cls(
            identity=_identity(values, prefix), client_ca=_file(values, f"{prefix}_client_ca_file")
        )

    @property
    def is_on(self) -> bool:
        """Whether the listener has TLS."""
        return bool(self.identity.certificate)

    @property
    def named(self) -> File:
        """The file that stands for all in the log."""
        return self.identity.certificate

    def all(self) -> tuple[File, ...]:
        """Return all files, also absent ones."""
        return self.identity.certificate, self.identity.key, self.client_ca

    def wrong(self) -> list[str]:
        """Return the errors of files that do not belong together."""
        wrong = self.identity.wrong()
        if self.client_ca and not wrong and not self.is_on:
            names = f"{self.identity.certificate.variable} and {self.identity.key.variable}"
            wrong.append(
                f"{self.client_ca.variable} needs {names}, because a listener without TLS sees no "
                "certificates; found neither"
            )
        return wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientFiles:
    """The files of a client."""

    ca: File
    """The authorities of the server; absent for plaintext."""
    identity: Identity
    """The client's own certificate; absent if the server requires none."""

    @classmethod
    def of(cls, values: Mapping[str, Any], prefix: str) -> "ClientFiles":
        """Return the files of a client, as `ServerFiles.of`."""
        return cls(ca=_file(values, f"{prefix}_ca_file"), identity=_identity(values, prefix))

    @property
    def is_on(self) -> bool:
        """Whether the client uses TLS."""
        return bool(self.ca)

    @property
    def named(self) -> File:
        """The file that stands for all in the log."""
        return self.ca

    def all(self) -> tuple[File, ...]:
        """Return all files, also absent ones."""
        return self.ca, self.identity.certificate, self.identity.key

    def wrong(self) -> list[str]:
        """Return the errors of files that do not belong together."""
        wrong = self.identity.wrong()
        if self.identity.certificate and not wrong and not self.ca:
            wrong.append(
                f"{self.identity.certificate.variable} needs {self.ca.variable}, because a client "
                "uses TLS only if it knows the authorities of the server; found none"
            )
        return wrong


def _identity(values: Mapping[str, Any], prefix: str) -> Identity:
    return Identity(
        certificate=_file(values, f"{prefix}_cert_file"), key=_file(values, f"{prefix}_key_file")
    )


def _file(values: Mapping[str, Any], field: str) -> File:
    return File(variable=f"CHAT_{field.upper()}", path=values.get(field, ""))
