"""Signatures of webhooks, by Standard Webhooks 1.0.0: HMAC-SHA256 over id, time and body.

    secret "whsec_" + base64 -> key           "v1," + base64(HMAC(key, "id.time.body"))

During a rotation there are several secrets, and a signature for each.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
KEY_BYTES: Final = range(24, 65)
"""The lengths of keys."""


def key(secret: str) -> bytes:
    """Return the key of a secret.

    Raises:
        ValueError: It is not "whsec_" and the base64 of 24 to 64 bytes. The text has no secret.
    """
    if not secret.startswith(PREFIX):
        raise ValueError("not a secret of Standard Webhooks")
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not a secret of Standard Webhooks") from None
    if len(found) not in KEY_BYTES:
        raise ValueError("not a secret of Standard Webhooks")
    return found


def headers(keys: Sequence[bytes], event_id: str, body: bytes, now: int) -> dict[str, str]:
    """Return the headers of a request.

    Args:
        keys: The keys of the secrets, the newest first; without any, there is no signature.
        event_id: The id of the event, which is the same in every attempt.
        body: The body.
        now: The time of the attempt, in seconds since the Unix epoch.
    """
    found = {"webhook-id": event_id, "webhook-timestamp": str(now)}
    if keys:
        signed = f"{event_id}.{now}.".encode() + body
        found["webhook-signature"] = " ".join(_signature(each, signed) for each in keys)
    return found


def _signature(of: bytes, signed: bytes) -> str:
    digest = hmac.new(of, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
