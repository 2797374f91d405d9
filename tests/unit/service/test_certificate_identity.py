from collections.abc import Iterable, Mapping

import pytest

from service.certificate_identity import identity_of

SPIFFE, SUBJECT = b"spiffe://example/ns/a/sa/b", b"CN=billing,O=Example"


class Context:
    def __init__(self, properties: Mapping[str, Iterable[bytes]]) -> None:
        self._properties = properties

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._properties


@pytest.mark.parametrize(
    ("properties", "identity"),
    [
        ({}, ""),
        ({"transport_security_type": [b"ssl"]}, ""),
        ({"peer_spiffe_id": [SPIFFE], "x509_subject": [SUBJECT]}, SPIFFE.decode()),
        ({"x509_subject": [SUBJECT]}, SUBJECT.decode()),
        ({"x509_subject": []}, ""),
        ({"peer_spiffe_id": [SPIFFE, SPIFFE]}, ""),
    ],
)
def test_a_certificate_has_one_identity(
    properties: Mapping[str, Iterable[bytes]], identity: str
) -> None:
    assert identity_of(Context(properties)) == identity
