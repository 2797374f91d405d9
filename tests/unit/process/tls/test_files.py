import pytest

from process.tls.files import ClientFiles, ServerFiles

CERTIFICATE, KEY, CA = (
    {"tls_cert_file": "c"},
    {"tls_key_file": "k"},
    {"tls_client_ca_file": "a"},
)


def test_without_files_there_is_no_tls() -> None:
    files = ServerFiles.of({}, "tls")

    assert not files.is_on
    assert files.wrong() == []


@pytest.mark.parametrize("values", [CERTIFICATE | KEY, CERTIFICATE | KEY | CA])
def test_a_listener_has_tls_with_a_certificate_and_its_key(values: dict[str, str]) -> None:
    files = ServerFiles.of(values, "tls")

    assert files.is_on
    assert files.wrong() == []
    assert [file.variable for file in files.all()] == [
        "CHAT_TLS_CERT_FILE",
        "CHAT_TLS_KEY_FILE",
        "CHAT_TLS_CLIENT_CA_FILE",
    ]


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        (CERTIFICATE, "CHAT_TLS_KEY_FILE must be set together with CHAT_TLS_CERT_FILE; found only"),
        (KEY | CA, "CHAT_TLS_CERT_FILE must be set together with CHAT_TLS_KEY_FILE; found only"),
        (CA, "CHAT_TLS_CLIENT_CA_FILE needs CHAT_TLS_CERT_FILE and CHAT_TLS_KEY_FILE"),
    ],
)
def test_a_part_of_the_files_of_a_listener_is_an_error(values: dict[str, str], wrong: str) -> None:
    (line,) = ServerFiles.of(values, "tls").wrong()
    assert line.startswith(wrong)


def test_a_client_uses_tls_if_it_knows_the_authorities() -> None:
    alone = ClientFiles.of({"s_ca_file": "a"}, "s")
    assert (alone.is_on, alone.wrong()) == (True, [])
    assert not ClientFiles.of({}, "s").is_on


def test_a_client_shows_no_certificate_without_tls() -> None:
    (line,) = ClientFiles.of({"s_cert_file": "c", "s_key_file": "k"}, "s").wrong()
    assert line.startswith("CHAT_S_CERT_FILE needs CHAT_S_CA_FILE")
