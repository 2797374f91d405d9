"""The simulator's tokens and its prose.

    "Two words, one." -> "Two" " words" "," " one" "."

A token is a word of at most 12 characters with the space before it, up to 3 marks, or white space.
The concatenation of the tokens of a text is the text. Prose consists of such tokens, selected by
the bytes of a hash, so that a request always gets the same words.
"""

import re
from functools import cache
from hashlib import blake2b

INTRODUCTION = "This is the built-in simulator; no model was called."
"""The beginning of each free text, which identifies it as simulated."""

COUNTED_EXACTLY = 16 * 1024
"""Maximum characters of a text that are split; of the rest, four count as one token."""

_TOKEN = re.compile(r" ?\w{1,12}|\s{1,12}|[^\w\s]{1,3}")

_STEMS = (
    "amber answer autumn basket beacon bridge candle canvas cedar circle copper corner delta "
    "distant ember evening fabric falcon field forest garden gentle granite harbor hollow island "
    "juniper kettle lantern letter maple marble meadow mirror morning narrow ocean olive orchard "
    "paper pebble pillar quiet ribbon river saffron shadow signal silver simple spiral stone "
    "summer thread timber tunnel valley velvet violet walnut willow window winter yellow"
)
# 256 entries each, so that a byte of a hash is an index.
_WORDS = tuple(f" {stem}" for stem in _STEMS.split()) * 4
_CAPITALISED = tuple(" " + word[1:].capitalize() for word in _WORDS)
_WORDS_OF_A_SENTENCE = 9
_BYTES_OF_A_BLOCK = 7 * _WORDS_OF_A_SENTENCE


def split(text: str) -> list[str]:
    """Split a text into tokens. Their concatenation is the text."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """Return the number of tokens of a text. The work is bounded for any length."""
    if len(text) <= COUNTED_EXACTLY:
        return len(_TOKEN.findall(text))
    rest = len(text) - COUNTED_EXACTLY
    return len(_TOKEN.findall(text[:COUNTED_EXACTLY])) + (rest + 3) // 4


def digest(*parts: bytes) -> bytes:
    """Return a 16-byte digest of the parts, which includes their lengths."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.digest()


def prose(key: bytes, length: int) -> list[str]:
    """Return the introduction and sentences selected by `key`, cut at `length` tokens."""
    tokens = list(_introduction())
    block = 0
    while len(tokens) < length:
        chosen = blake2b(key + block.to_bytes(8, "big"), digest_size=_BYTES_OF_A_BLOCK).digest()
        for start in range(0, _BYTES_OF_A_BLOCK, _WORDS_OF_A_SENTENCE):
            tokens.append(_CAPITALISED[chosen[start]])
            tokens += [_WORDS[b] for b in chosen[start + 1 : start + _WORDS_OF_A_SENTENCE]]
            tokens.append(".")
            if len(tokens) >= length:
                break
        block += 1
    del tokens[length:]
    return tokens


def alternatives(key: bytes, length: int) -> list[str]:
    """Return `length` (at most 64) different words, as alternatives to a token."""
    start = key[0]
    return [_WORDS[(start + step * 5) % 64] for step in range(length)]


@cache
def _introduction() -> tuple[str, ...]:
    return tuple(split(INTRODUCTION))
