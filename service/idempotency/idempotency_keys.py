"""Idempotency keys, digests of requests, and resume tokens. Pure.

API key, idempotency key -> claim_id       the id of the answer; another API key has others
method, parameters -> body_digest          what a repeated request must have in common
hold, count of messages -> token -> place  where a stream resumes
"""

import hashlib
import re
from typing import Final, NamedTuple

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service import errors

LONGEST: Final = 255
"""Maximum characters of a key."""

_KEY: Final = re.compile(rf"[ -~]{{1,{LONGEST}}}")
_TOKEN: Final = re.compile(r"([0-9A-Za-z_]{1,64})-([0-9]{1,9})")


class StreamPlace(NamedTuple):
    """A place in a stream."""

    hold_id: str
    """The hold of the call, which distinguishes its stream from that of another run."""
    position: int
    """The number of messages up to the place."""


def check(key: str) -> None:
    """Check an idempotency key.

    Raises:
        InvalidRequest: It is not one. A key that was sent twice arrives as an empty one.
    """
    if not _KEY.fullmatch(key):
        raise errors.InvalidRequest(
            f"Invalid 'Idempotency-Key': expected one value of 1 to {LONGEST} printable ASCII "
            "characters.",
            param="Idempotency-Key",
        )


def claim_id(key_id: int, key: str) -> str:
    """Return the id of the answer for an idempotency key of an API key."""
    return f"{key_id}:{hashlib.sha256(key.encode()).hexdigest()}"


def body_digest(params: ChatCompletionParams, *, streamed: bool) -> str:
    """Return the digest of a request, which is the same for both APIs.

    Args:
        params: The parameters. The digest ignores `stream`, as the service does.
        streamed: Whether the method is a streaming one.
    """
    try:
        canonical = openai_json.canonicalize_request(params)
    except openai_json.DecodeError:
        canonical = params  # the request will be rejected
    compared = ChatCompletionParams()
    compared.CopyFrom(canonical)
    compared.ClearField("stream")
    kind = b"stream:" if streamed else b"create:"
    return hashlib.sha256(kind + compared.SerializeToString(deterministic=True)).hexdigest()


def token(hold_id: str, count: int) -> str:
    """Return the resume token of a place in a stream."""
    return f"{hold_id}-{count}"


def place(token: str) -> StreamPlace:
    """Return the place of a resume token.

    Raises:
        InvalidRequest: It is not one.
    """
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise errors.InvalidRequest(
            "Invalid resume token (Last-Event-ID): expected that of the last received event.",
            param="Last-Event-ID",
        )
    return StreamPlace(found[1], int(found[2]))
