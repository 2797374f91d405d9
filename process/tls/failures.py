"""Why a TLS handshake failed, in words for the log."""

import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_PLAINTEXT: Final = "the client sent plaintext, not TLS"
_NOT_ACCEPTED: Final = "CERTIFICATE_VERIFY_FAILED"
_UNTRUSTED: Final = "the client does not trust the certificate"

_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "HTTP_REQUEST": _PLAINTEXT,
        "HTTPS_PROXY_REQUEST": _PLAINTEXT,
        "WRONG_VERSION_NUMBER": _PLAINTEXT,
        "RECORD_LAYER_FAILURE": _PLAINTEXT,
        "UNSUPPORTED_PROTOCOL": "the client only speaks versions below TLS 1.2",
        "NO_SHARED_CIPHER": "the client shares no cipher",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no certificate",
        _NOT_ACCEPTED: "the client's certificate is not accepted",
        "TLSV1_ALERT_UNKNOWN_CA": f"{_UNTRUSTED}: unknown authority",
        "SSLV3_ALERT_BAD_CERTIFICATE": f"{_UNTRUSTED}: bad certificate, such as for another host",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_UNTRUSTED}: it has expired",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN": f"{_UNTRUSTED}: certificate unknown",
        "TLSV1_ALERT_INTERNAL_ERROR": "the client failed (alert: internal error)",
    }
)
"""The words for OpenSSL's reasons. An alert is the client's own report."""


def why(error: ssl.SSLError) -> str:
    """Return why a handshake failed at a server."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return "the client closed the connection within the handshake"
    reason: str = getattr(error, "reason", None) or ""  # absent if OpenSSL did not raise it
    return in_words(reason) if reason else str(error)


def in_words(reason: str, detail: str = "") -> str:
    """Return one of OpenSSL's reasons in words.

    Args:
        reason: The reason, such as `NO_SHARED_CIPHER`.
        detail: Why a certificate is not accepted, as OpenSSL says it.
    """
    words = _REASONS.get(reason, reason.replace("_", " ").lower())
    return f"{words}: {detail}" if detail and reason == _NOT_ACCEPTED else words
