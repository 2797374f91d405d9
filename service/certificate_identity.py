"""The identity of a caller's certificate, which gRPC has verified.

a SPIFFE id (URI SAN)   spiffe://example/ns/default/sa/billing
otherwise the subject   CN=billing,O=Example     (RFC 2253)
"""

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

_SPIFFE: Final = "peer_spiffe_id"
_SUBJECT: Final = "x509_subject"


class Context(Protocol):
    """The part of a gRPC context that is used."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return the properties of the connection."""


def identity_of(context: Context) -> str:
    """Return the identity; "" if the connection has no certificate of a client."""
    properties = context.auth_context()
    for name in (_SPIFFE, _SUBJECT):
        values = tuple(properties.get(name, ()))
        if len(values) == 1:
            return values[0].decode(errors="replace")
    return ""
