"""Golden pairs: a document and its message.

    golden_requests.py     REQUESTS, and MISTYPED: members of a wrong type, and their paths
    golden_responses.py    COMPLETIONS, CHUNKS, ERRORS

Decoding the document returns the message, and encoding the message returns the document. The JSON
is in the form in which clients or upstreams send it, the message in protobuf's text format.
"""

from dataclasses import dataclass


@dataclass(kw_only=True, frozen=True, slots=True)
class Golden:
    """A document and its message, both as text, and the reason for the pair."""

    name: str
    why: str
    json: str
    message: str


@dataclass(kw_only=True, frozen=True, slots=True)
class MistypedGolden:
    """A request, the paths of its members of a wrong type, and whether they are out of range."""

    name: str
    json: str
    params: tuple[str, ...]
    out_of_range: bool = False
