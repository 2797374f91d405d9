"""How many tokens a text or a sound is: at most, for holds, and about, for estimates.

    at most   a token for each byte of a text, in the normal form in which it has most of them
    about     a token for four bytes

Tokenizers bring texts into a Unicode normal form: by that, U+FDFA alone becomes 33 bytes.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from chatcompletion import openai_json

BYTES_PER_TOKEN: Final = 4
"""About as many as English text has; other text has fewer, which is in the caller's favour."""

LONG_TOKEN: Final = 16
"""Bytes up to which a piece of a stream is taken for one token, which it mostly is: a word of
English and the space before it.

No ordinary text has as many per token on average. Measured with the vocabularies cl100k_base,
o200k_base and Mistral's tekken: numbers and base64 1.0 to 1.7, JSON 2.3 to 2.8, English and code
3.5 to 4.7, Chinese and Japanese 3 to 6, German 6, Arabic 7, Hindi 9, JSON at 32 columns and more
10, Georgian 10, tables padded with spaces 12, and the longest words of Russian 12.4. The entries of
a vocabulary have 6.4 to 7.0 on average, and one in a hundred more than 16 to 19. Only runs of one
separator have more: dashes 27 to 40, spaces 64 to 127; the longest token has 128."""

LONG_PROSE: Final = 6
"""Letters, see `letters`: about as many as German has per token on average, and more than English,
code, Arabic, Hindi, Georgian, Chinese, and JSON and tables with any indentation."""

BYTES_PER_TOKEN_OF_SOUND: Final = 64
"""Of base64. The densest speech, at 6 kbit/s, is 1,000 of them a second, of which common models
make 25 tokens at the most."""

_MOST_LOOKUPS: Final = 131_072
"""Characters whose growth is looked up, at about 0.3 µs each. A prompt with more of them that is
not normalized fits into no model: what follows is counted as the character that grows most."""


def about(size: int) -> int:
    """Return about how many tokens so many bytes of text are."""
    return -(-size // BYTES_PER_TOKEN)


def letters(text: str) -> float:
    """Return about how many letters of English have as many tokens as a text.

    A run of one separator counts as a letter, a letter of another script as one and a half, and a
    character of Chinese, Japanese or Korean as two and a half. A long text is measured by its
    beginning.
    """
    part = text[:_MOST_LETTERS]
    size: float = len(part) - sum(run.end() - run.start() - 1 for run in _RUNS.finditer(part))
    if not part.isascii():
        others = len(part) - len(part.encode("ascii", "ignore"))
        size += others / 2 + len(_IDEOGRAPHS.findall(part))
    return size if len(part) == len(text) else size * len(text) / len(part)


_MOST_LETTERS: Final = 16_384
"""Characters, at up to 0.1 µs each."""

_RUNS: Final = re.compile(r"(\W)\1+")
_IDEOGRAPHS: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def of_sound(size: int) -> int:
    """Return the most tokens that so many bytes of base64 are, of a sound or a film."""
    return -(-size // BYTES_PER_TOKEN_OF_SOUND)


# --------------------------------------------------------------------------------- normal forms


def _gains() -> dict[str, int]:
    gains = {}
    # Beyond plane 2 no character is decomposed. Nor are the syllables of Hangul, here: their parts
    # stand together, so that they are always composed again.
    for character in map(chr, range(0xA0, 0x30000)):
        if unicodedata.decomposition(character):
            forms = (unicodedata.normalize(form, character) for form in ("NFD", "NFKD"))
            gain = max(len(form.encode()) for form in forms) - len(character.encode())
            if gain > 0:
                gains[character] = gain
    return gains


_GAINS: Final = _gains()
"""The bytes that a character gains where it is decomposed."""

_LARGEST: Final = max(_GAINS, key=lambda character: _GAINS[character])

# A range for all beyond plane 0: a set of single ones would be searched one by one.
_GAINING: Final = re.compile(
    f"[{re.escape(''.join(c for c in _GAINS if c < chr(0x10000)))}{chr(0x10000)}-{chr(0x2FFFF)}]"
)


def gain(texts: Iterable[str]) -> int:
    """Return how many bytes texts gain in a normal form at the most.

    Composition makes no text longer, so that the decompositions of the characters are a bound.
    They are looked up: CPython normalizes a long run of combining marks in quadratic time.
    """
    text = "".join(text for text in texts if not _is_normal(text))
    gained = 0
    for number, found in enumerate(_GAINING.finditer(text)):
        if number == _MOST_LOOKUPS:
            return gained + (len(text) - found.start()) * _GAINS[_LARGEST]
        gained += _GAINS.get(found[0], 0)
    return gained


def _is_normal(text: str) -> bool:
    # What is as NFKC leaves it is as NFC leaves it, too.
    return text.isascii() or unicodedata.is_normalized("NFKC", text)


def unescaped(text: str) -> str:
    r"""Return JSON with its \uXXXX as characters; itself where it has none or is not JSON.

    What is too large to be parsed here is answered with a text that gains no less.
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
