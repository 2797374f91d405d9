"""Certificates for tests of TLS, as files.

authority = trustme.CA()
place = written(tmp_path, authority, "server", "localhost", "127.0.0.1")
{"CHAT_TLS_CERT_FILE": place.certificate, "CHAT_TLS_KEY_FILE": place.key}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The paths of a certificate and its key."""

    certificate: str
    key: str


def written(
    folder: Path, authority: trustme.CA, file: str, *names: str, expired: bool = False
) -> Files:
    """Issue a certificate and write it and its key.

    Args:
        folder: The folder of the files.
        authority: Issues it.
        file: The names of the files, without their ends.
        names: The names in the certificate: host names and IP addresses, or URIs.
        expired: Whether it has expired.
    """
    if any("://" in name for name in names):
        return _of_uris(folder, authority, file, names)
    leaf = authority.issue_cert(
        *names,
        common_name=file,
        not_before=LONG_AGO if expired else None,
        not_after=LONG_AGO.replace(year=2021) if expired else None,
    )
    files = Files(certificate=str(folder / f"{file}.pem"), key=str(folder / f"{file}.key"))
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    Path(files.key).write_bytes(leaf.private_key_pem.bytes())
    Path(files.certificate).write_bytes(chain)
    return files


def _of_uris(folder: Path, authority: trustme.CA, file: str, names: Sequence[str]) -> Files:
    """Issue a certificate with URIs, which trustme cannot."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signing = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    own = ec.generate_private_key(ec.SECP256R1())
    names_of = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(n) for n in names])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)]))
        .issuer_name(issuer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(LONG_AGO.replace(year=2999))
        .add_extension(names_of, critical=False)
        .sign(signing, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = Files(certificate=str(folder / f"{file}.pem"), key=str(folder / f"{file}.key"))
    Path(files.key).write_bytes(secret)
    Path(files.certificate).write_bytes(certificate.public_bytes(pem))
    return files


def written_authority(folder: Path, authority: trustme.CA, file: str) -> str:
    """Write the certificate of an authority and return its path."""
    path = folder / f"{file}.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)
