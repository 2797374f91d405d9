"""Reads the files of TLS and proves that they work, before anything uses them.

    files -> PEM -> a context -> a handshake in memory -> Credentials
                                                       -> TlsError: all that is wrong

The handshake finds a key of another certificate, a certificate that has expired, and one that is
not for servers (or for clients): whatever would make every handshake fail.
"""

import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from process.tls.files import ClientFiles, File, Identity, ServerFiles

LARGEST_FILE: Final = 1024 * 1024
"""Bytes of a file."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_CERTIFICATE: Final = b"CERTIFICATE"
_EXPIRED, _NOT_YET, _PURPOSE = 10, 9, 26
"""Codes of OpenSSL's verification (openssl-verification-options)."""


class TlsError(Exception):
    """Files cannot be used. The text has a line for each error.

    Args:
        lines: The errors.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """The contents of files that work, as PEM. `b""` for an absent file."""

    certificate: bytes
    """With the certificates of intermediate authorities after it."""
    key: bytes
    authorities: bytes
    """Those that the peer's certificate must be from."""
    expires: str
    """The time at which the certificate expires, as ISO 8601 in UTC; "" without a certificate."""


Now = Callable[[], float]
"""Returns seconds since the Unix epoch."""


def of(files: ServerFiles | ClientFiles, *, now: Now = time.time) -> Credentials:
    """Read the files of a listener or a client with TLS.

    Raises:
        TlsError: They cannot be used.
    """
    if isinstance(files, ServerFiles):
        return _read(files.identity, files.client_ca, is_server=True, now=now)
    return _read(files.identity, files.ca, is_server=False, now=now)


def wrong(*every: ServerFiles | ClientFiles) -> list[str]:
    """Return a line for each error in settings and files of TLS."""
    lines: list[str] = []
    for files in every:
        unfit = files.wrong()
        lines += unfit
        if files.is_on and not unfit:
            try:
                of(files)
            except TlsError as error:
                lines += error.lines
    return lines


def wrong_authorities(file: File, *, now: Now = time.time) -> list[str]:
    """Return the errors of a file of authorities; none if the setting is absent."""
    errors: list[str] = []
    content = _pem(file, _CERTIFICATE, errors) if file else b""
    return errors + (_unfit(file, content, now()) if content else [])


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the context of an HTTP/1.1 server, for TLS 1.2 and later, without client certificates.

    Raises:
        ssl.SSLError: The certificate and the key do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, credentials.certificate, credentials.key)
    return context


def _read(identity: Identity, authorities: File, *, is_server: bool, now: Now) -> Credentials:
    errors: list[str] = []
    certificate = key = trusted = b""
    expires = ""
    if identity.certificate:
        certificate = _pem(identity.certificate, _CERTIFICATE, errors)
        key = _pem(identity.key, b"PRIVATE KEY", errors)
        if not errors:
            with _named(identity, errors):
                expires = _proven(certificate, key, is_server=is_server)
    if authorities:
        trusted = _pem(authorities, _CERTIFICATE, errors)
        errors += _unfit(authorities, trusted, now()) if trusted else []
    if errors:
        raise TlsError(*errors)
    return Credentials(certificate=certificate, key=key, authorities=trusted, expires=expires)


def _pem(file: File, label: bytes, errors: list[str]) -> bytes:
    """Return the contents of a file that has a PEM block with a label that ends in `label`."""
    try:
        with Path(file.path).open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        errors.append(f"{file.variable}: cannot read {file.path}: {error.strerror}")
        return b""
    found = [match[1] for match in _PEM.finditer(content)]
    kind = label.decode().lower()
    if len(content) > LARGEST_FILE:
        errors.append(f"{file.variable} must have up to {LARGEST_FILE} bytes; {file.path} has more")
    elif not any(name.endswith(label) for name in found):
        names = ", ".join(sorted({name.decode() for name in found})) or "no PEM block"
        errors.append(f"{file.variable} must have a {kind} as PEM; found {names} in {file.path}")
    else:
        return content
    return b""


@contextmanager
def _named(identity: Identity, errors: list[str]) -> Iterator[None]:
    """Turn the errors of a proof into lines."""
    certificate, key = identity.certificate, identity.key
    place = f"in {certificate.path}"
    try:
        yield
    except _EncryptedError:
        errors.append(f"{key.variable} must be without a passphrase; found one in {key.path}")
    except ssl.SSLCertVerificationError as error:
        what = {
            _EXPIRED: "must have a certificate that is valid; found one that has expired",
            _NOT_YET: "must have a certificate that is valid; found one that is not valid yet",
            _PURPOSE: "must have a certificate for this purpose; found one for another "
            "(extended key usage)",
        }.get(error.verify_code, f"has a certificate that does not work: {error.verify_message}")
        errors.append(f"{certificate.variable} {what} {place}")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            errors.append(
                f"{key.variable} must be the key of {certificate.variable}; found the key of "
                f"another certificate in {key.path}"
            )
        else:
            errors.append(
                f"{certificate.variable} and {key.variable} do not work: "
                f"{error.reason or 'unreadable'} {place}"
            )


class _EncryptedError(Exception):
    """The key needs a passphrase."""


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    def encrypted() -> str:
        raise _EncryptedError

    with _path(certificate) as certificate_path, _path(key) as key_path:
        context.load_cert_chain(certificate_path, key_path, encrypted)


@contextmanager
def _path(content: bytes) -> Iterator[str]:
    """Yield a path from which `ssl` can read a content: on Linux of a file in memory."""
    if sys.platform == "linux":
        with open(os.memfd_create("pem"), "wb", buffering=0) as memory:
            memory.write(content)
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    with NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def _proven(certificate: bytes, key: bytes, *, is_server: bool) -> str:
    """Show the certificate to a peer that trusts it alone, and return when it expires."""
    shows = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    looks = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if is_server else ssl.PROTOCOL_TLS_SERVER)
    for context in (shows, looks):
        context.check_hostname = False
    shows.verify_mode = ssl.CERT_NONE
    _load(shows, certificate, key)
    if not is_server:
        _load(looks, certificate, key)  # a server needs a certificate; its client looks at none
    looks.verify_mode = ssl.CERT_REQUIRED
    looks.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    leaf, end = certificate.partition(b"-----END CERTIFICATE-----")[:2]
    looks.load_verify_locations(cadata=(leaf[leaf.index(b"-----BEGIN CERT") :] + end).decode())
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    shown = shows.wrap_bio(there, back, server_side=is_server)
    looked = looks.wrap_bio(back, there, server_side=not is_server)
    for _ in range(3):
        for side in (looked, shown):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found: Any = looked.getpeercert()
    return _iso(ssl.cert_time_to_seconds(found["notAfter"]))


def _unfit(file: File, content: bytes, now: float) -> list[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=content.decode("ascii", "replace"))
    except ssl.SSLError:
        return [
            f"{file.variable} must have certificates as PEM; found unreadable ones in {file.path}"
        ]
    # Certificates that are not marked as an authority's are missing here, and may be valid.
    ends: list[Any] = [found["notAfter"] for found in context.get_ca_certs()]
    if ends and all(ssl.cert_time_to_seconds(end) <= now for end in ends):
        last = _iso(max(map(ssl.cert_time_to_seconds, ends)))
        return [
            f"{file.variable} must have an authority that is valid; found only ones that have "
            f"expired, the last at {last}, in {file.path}"
        ]
    return []


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
