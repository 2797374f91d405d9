"""The tokens of a text or a sound: the maximum for holds, and an estimate for charges.

    maximum    one token per byte of a text, in its longest Unicode normal form
    estimate   one token per four bytes

Tokenizers convert texts to a Unicode normal form, in which U+FDFA alone has 33 bytes.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatMessage, ChatMessageDelta

BYTES_PER_TOKEN: Final = 4
"""Bytes per token of English text. Other text has fewer, so the estimate favours the caller."""

LONG_TOKEN: Final = 16
"""Maximum bytes of a piece of a stream that counts as one token. Most such pieces are one token: an
English word and the space before it.

No ordinary text has this many bytes per token on average. Measured with cl100k_base,
o200k_base and Mistral's tekken: numbers and base64 1.0 to 1.7, JSON 2.3 to 2.8, English and code
3.5 to 4.7, Chinese and Japanese 3 to 6, German 6, Arabic 7, Hindi 9, JSON at 32 columns and more
10, Georgian 10, tables padded with spaces 12, and the longest words of Russian 12.4. The entries of
a vocabulary have 6.4 to 7.0 on average, and one in a hundred more than 16 to 19. Only runs of one
separator have more: dashes 27 to 40, spaces 64 to 127; the longest token has 128."""

LONG_PROSE: Final = 6
"""Letters per token, as `letters` counts them: the average of German. English, code, Arabic, Hindi,
Georgian, Chinese, and JSON and tables with any indentation have fewer."""

BYTES_PER_TOKEN_OF_SOUND: Final = 64
"""Bytes of base64 per token. The densest speech, at 6 kbit/s, has 1,000 bytes a second, for which
common models count at most 25 tokens."""

_MOST_LOOKUPS: Final = 131_072
"""Maximum characters whose growth is looked up, at about 0.3 µs each. A longer prompt that is not
normalized fits no model; its rest counts as the character that grows most."""


def about(size: int) -> int:
    """Return an estimate of the tokens of `size` bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


def letters(text: str) -> float:
    """Return the number of English letters that have about as many tokens as a text.

    A run of one separator counts as one letter, a letter of a script other than Latin as 1.5, and a
    Chinese, Japanese or Korean character as 2.5. A long text is extrapolated from its beginning.
    """
    part = text[:_MOST_LETTERS]
    size: float = len(part) - sum(run.end() - run.start() - 1 for run in _RUNS.finditer(part))
    if not part.isascii():
        others = len(part) - len(part.encode("ascii", "ignore"))
        size += others / 2 + len(_IDEOGRAPHS.findall(part))
    return size if len(part) == len(text) else size * len(text) / len(part)


_MOST_LETTERS: Final = 16_384
"""Maximum characters to count, at up to 0.1 µs each."""

_RUNS: Final = re.compile(r"(\W)\1+")
_IDEOGRAPHS: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def is_text(message: ChatMessageDelta | ChatMessage, role: str, text: str) -> bool:
    """Return whether a message has a role, a text and perhaps nulls, and nothing else.

    Its size proves it, because any other member would make it larger. If the role or the text is
    empty, it proves nothing, and the result is False.

    Args:
        message: The message.
        role: Its role.
        text: Its `content_text`.
    """
    if not (role and text):
        return False
    rest = message.ByteSize()
    for value in (role, text):
        size = len(value) if value.isascii() else len(value.encode())
        rest -= 1 + (size.bit_length() + 6) // 7 + size  # a tag, the length, the bytes
    return not rest or rest == len(message.null_fields) + 2 > 2


def of_sound(size: int) -> int:
    """Return the maximum tokens of `size` bytes of base64 of a sound or film."""
    return -(-size // BYTES_PER_TOKEN_OF_SOUND)


# --------------------------------------------------------------------------------- normal forms


def _gains() -> dict[str, int]:
    gains = {}
    # No character beyond plane 2 has a decomposition. Hangul syllables are skipped: normalization
    # decomposes and composes them again.
    for character in map(chr, range(0xA0, 0x30000)):
        if unicodedata.decomposition(character):
            forms = (unicodedata.normalize(form, character) for form in ("NFD", "NFKD"))
            gain = max(len(form.encode()) for form in forms) - len(character.encode())
            if gain > 0:
                gains[character] = gain
    return gains


_GAINS: Final = _gains()
"""The bytes that each character gains when it is decomposed."""

_LARGEST: Final = max(_GAINS, key=lambda character: _GAINS[character])

# One range for all characters beyond plane 0, because `re` would search a set one by one.
_GAINING: Final = re.compile(
    f"[{re.escape(''.join(c for c in _GAINS if c < chr(0x10000)))}{chr(0x10000)}-{chr(0x2FFFF)}]"
)


def gain(texts: Iterable[str]) -> int:
    """Return the maximum bytes that texts gain in any Unicode normal form.

    Composition never makes a text longer, so the decompositions of its characters are a bound. They
    are looked up, because CPython normalizes a long run of combining marks in quadratic time.
    """
    text = "".join([text for text in texts if not _is_normal(text)])
    if not text:
        return 0
    gained = 0
    for number, found in enumerate(_GAINING.finditer(text)):
        if number == _MOST_LOOKUPS:
            return gained + (len(text) - found.start()) * _GAINS[_LARGEST]
        gained += _GAINS.get(found[0], 0)
    return gained


def _is_normal(text: str) -> bool:
    # A text that is normal in NFKC is also normal in NFC.
    return text.isascii() or unicodedata.is_normalized("NFKC", text)


def unescaped(text: str) -> str:
    r"""Return JSON with its \uXXXX escapes as characters; other text unchanged.

    For JSON that is too large to parse, return a text that gains at least as many bytes.
    """
    if "\\u" not in text or "\\u" not in text.replace("\\\\", ""):
        return text
    if openai_json.count_values(text.encode()) > openai_json.MAX_VALUES:
        return _LARGEST * text.count("\\u")
    try:
        value = json.loads(text, parse_int=str, parse_float=str)
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
