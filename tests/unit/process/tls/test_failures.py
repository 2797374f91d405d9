import ssl

import pytest

from process.tls.failures import why


def _error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("HTTP_REQUEST", "the client sent plaintext, not TLS"),
        ("TLSV1_ALERT_UNKNOWN_CA", "the client does not trust the certificate: unknown authority"),
        ("UNSUPPORTED_PROTOCOL", "the client only speaks versions below TLS 1.2"),
        ("SOMETHING_NEW", "something new"),
    ],
)
def test_a_reason_of_openssl_has_words(reason: str, words: str) -> None:
    assert why(_error(reason)) == words


def test_an_error_without_a_reason_has_words() -> None:
    assert why(ssl.SSLEOFError()) == "the client closed the connection within the handshake"
    assert why(ssl.SSLError(1, "too many")) == "too many"
