"""What a golden pair is: a document, and the message that it is.

    golden_requests.py     REQUESTS, and MISTYPED: members of a wrong type, and their paths
    golden_responses.py    COMPLETIONS, CHUNKS, ERRORS

JSON and message are the same in both directions. The JSON is as a client or an upstream sends it,
the message in protobuf's text format.
"""

from dataclasses import dataclass


@dataclass(kw_only=True, frozen=True, slots=True)
class Golden:
    """A document and its message, both as text, and why the pair is here."""

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
