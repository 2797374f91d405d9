import base64
import time
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.webhooks import signatures
from tests.support import canaries

OLD = canaries.secret("whsec_" + base64.b64encode(b"o" * 24).decode())
NEW = canaries.secret("whsec_" + base64.b64encode(b"n" * 64).decode())
BODY = '{"name":"ü"}'.encode()


def headers(*secrets: str, now: int | None = None) -> dict[str, Any]:
    keys = [signatures.key(secret) for secret in secrets]
    return signatures.headers(keys, "id-1", BODY, int(time.time()) if now is None else now)


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_the_official_library_verifies_each_signature_of_a_rotation(secret: str) -> None:
    sent = headers(NEW, OLD)
    assert Webhook(secret).verify(BODY, sent) == {"name": "ü"}
    assert sent["webhook-id"] == "id-1"


def test_the_official_library_refuses_what_was_changed() -> None:
    verifier = Webhook(NEW)
    for sent, body in (
        (headers(NEW), BODY + b" "),
        ({**headers(NEW), "webhook-id": "id-2"}, BODY),
        (headers(OLD), BODY),
        (headers(NEW, now=1), BODY),
    ):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(body, sent)


def test_without_a_secret_there_is_no_signature() -> None:
    assert headers(now=5) == {"webhook-id": "id-1", "webhook-timestamp": "5"}


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_abc", "whsec_" + "A" * 28, "whsec_" + "A" * 92, "A" * 32, "whsec_ä" * 9],
)
def test_other_secrets_are_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^not a secret of Standard Webhooks$"):
        signatures.key(secret)
