import ssl
import time
from pathlib import Path
from typing import Final

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from process.tls.credentials import (
    LARGEST_FILE,
    TlsError,
    of,
    server_context,
    wrong,
    wrong_authorities,
)
from process.tls.files import ClientFiles, File, ServerFiles
from tests.support.certificates import Files, written, written_authority

OURS: Final = trustme.CA()


@pytest.fixture
def good(tmp_path: Path) -> Files:
    return written(tmp_path, OURS, "good", "localhost")


def _server(certificate: str, key: str, ca: str = "") -> ServerFiles:
    names = {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": ca}
    return ServerFiles.of(names, "tls")


def _errors(files: ServerFiles | ClientFiles) -> list[str]:
    with pytest.raises(TlsError) as refused:
        of(files)
    assert wrong(files) == list(refused.value.lines)
    return list(refused.value.lines)


def test_files_that_work_are_read(tmp_path: Path, good: Files) -> None:
    ca = written_authority(tmp_path, OURS, "ca")
    found = of(_server(good.certificate, good.key, ca))

    assert found.certificate == Path(good.certificate).read_bytes()
    assert found.key == Path(good.key).read_bytes()
    assert found.authorities == Path(ca).read_bytes()
    assert found.expires == "3000-01-01T00:00:00Z"
    assert server_context(found).minimum_version is ssl.TLSVersion.TLSv1_2
    assert wrong(_server(good.certificate, good.key, ca)) == []


def test_a_client_needs_no_certificate_of_its_own(tmp_path: Path, good: Files) -> None:
    ca = written_authority(tmp_path, OURS, "ca")
    names = {"s_ca_file": ca, "s_cert_file": good.certificate, "s_key_file": good.key}

    assert of(ClientFiles.of({"s_ca_file": ca}, "s")).expires == ""
    assert of(ClientFiles.of(names, "s")).certificate


def test_the_key_of_another_certificate_is_an_error(tmp_path: Path, good: Files) -> None:
    other = written(tmp_path, OURS, "other", "localhost")
    assert _errors(_server(good.certificate, other.key)) == [
        "CHAT_TLS_KEY_FILE must be the key of CHAT_TLS_CERT_FILE; found the key of another "
        f"certificate in {other.key}"
    ]


@pytest.mark.parametrize("is_server", [True, False])
def test_an_expired_certificate_is_an_error(tmp_path: Path, is_server: bool) -> None:
    old = written(tmp_path, OURS, "old", "localhost", expired=True)
    ca = written_authority(tmp_path, OURS, "ca")
    names = {"tls_ca_file": ca, "tls_cert_file": old.certificate, "tls_key_file": old.key}
    files = _server(old.certificate, old.key) if is_server else ClientFiles.of(names, "tls")
    assert _errors(files) == [
        "CHAT_TLS_CERT_FILE must have a certificate that is valid; found one that has expired in "
        f"{old.certificate}"
    ]


def test_files_of_another_kind_are_named(good: Files) -> None:
    certificate, key, ca = _errors(_server(good.key, good.certificate, good.key))

    assert certificate.startswith("CHAT_TLS_CERT_FILE must have a certificate as PEM; found EC PRI")
    assert key.startswith("CHAT_TLS_KEY_FILE must have a private key as PEM; found CERTIFICATE in")
    assert ca.startswith("CHAT_TLS_CLIENT_CA_FILE must have a certificate as PEM; found EC PRIVATE")


def test_absent_empty_and_large_files_are_errors(tmp_path: Path, good: Files) -> None:
    empty, large = tmp_path / "empty", tmp_path / "large"
    empty.touch()
    large.write_bytes(bytes(LARGEST_FILE + 1))

    assert _errors(_server(str(tmp_path / "absent"), str(empty), str(large))) == [
        f"CHAT_TLS_CERT_FILE: cannot read {tmp_path / 'absent'}: No such file or directory",
        f"CHAT_TLS_KEY_FILE must have a private key as PEM; found no PEM block in {empty}",
        f"CHAT_TLS_CLIENT_CA_FILE must have up to {LARGEST_FILE} bytes; {large} has more",
    ]


def test_a_key_with_a_passphrase_is_an_error(tmp_path: Path, good: Files) -> None:
    locked = tmp_path / "locked.key"
    own = serialization.load_pem_private_key(Path(good.key).read_bytes(), None)
    locked.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    assert _errors(_server(good.certificate, str(locked))) == [
        f"CHAT_TLS_KEY_FILE must be without a passphrase; found one in {locked}"
    ]


def test_broken_contents_are_an_error(tmp_path: Path, good: Files) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    (line,) = _errors(_server(str(broken), good.key))
    assert line.startswith("CHAT_TLS_CERT_FILE and CHAT_TLS_KEY_FILE do not work")
    (line,) = _errors(_server(good.certificate, good.key, str(broken)))
    assert line.startswith("CHAT_TLS_CLIENT_CA_FILE must have certificates as PEM; found unreadab")


def test_only_expired_authorities_are_an_error(tmp_path: Path) -> None:
    ca = File(variable="A_CA", path=written_authority(tmp_path, OURS, "ca"))
    after = time.mktime((3001, 1, 1, 0, 0, 0, 0, 0, 0))

    assert wrong_authorities(ca) == []
    (line,) = wrong_authorities(ca, now=lambda: after)
    assert line.startswith("A_CA must have an authority that is valid; found only ones that have")
    assert wrong_authorities(File(variable="A_CA", path="")) == []
