"""JSON with the faults that other readers accept, made valid. Pure; time grows with the bytes.

bytes that are not UTF-8                        U+FFFD, as the WHATWG's decoder has it
NaN, Infinity and -Infinity, outside strings    null
"""

import re
from typing import Final

# A string, also one that does not end: each byte is looked at once, whatever an upstream sends.
_STRING_OR_NO_NUMBER: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|-?(?:NaN|Infinity)', re.DOTALL)


def mended(data: bytes) -> bytes | None:
    """Return a document without these faults, or None if it has none of them."""
    text = data.decode("utf-8", "replace").encode()
    text = _STRING_OR_NO_NUMBER.sub(_mended, text)
    return None if text == data else text


def _mended(found: re.Match[bytes]) -> bytes:
    return found[0] if found[0].startswith(b'"') else b"null"
