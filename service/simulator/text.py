"""The simulator's tokens and its prose.

    "Two words, one." -> "Two" " words" "," " one" "."

A token is a word of at most 12 characters with the space before it, up to 3 marks, or white space.
Joining the tokens of a text gives the text back. The prose is made of such tokens, chosen by the
bytes of a hash: a request always gets the same words.
"""

import re
from functools import cache
from hashlib import blake2b

INTRODUCTION = "This is the built-in simulator; no model was called."
"""How each free text begins, so that nobody takes it for a model's."""

COUNTED_EXACTLY = 16 * 1024
"""Characters of one text that are split to count them; beyond, four are taken for one token."""

_TOKEN = re.compile(r" ?\w{1,12}|\s{1,12}|[^\w\s]{1,3}")

_STEMS = (
    "amber answer autumn basket beacon bridge candle canvas cedar circle copper corner delta "
    "distant ember evening fabric falcon field forest garden gentle granite harbor hollow island "
    "juniper kettle lantern letter maple marble meadow mirror morning narrow ocean olive orchard "
    "paper pebble pillar quiet ribbon river saffron shadow signal silver simple spiral stone "
    "summer thread timber tunnel valley velvet violet walnut willow window winter yellow"
)
# 256 entries each, so that a byte of a hash chooses without further arithmetic.
_WORDS = tuple(f" {stem}" for stem in _STEMS.split()) * 4
_CAPITALISED = tuple(" " + word[1:].capitalize() for word in _WORDS)
_WORDS_OF_A_SENTENCE = 9
_BYTES_OF_A_BLOCK = 7 * _WORDS_OF_A_SENTENCE


def split(text: str) -> list[str]:
    """Split a text into tokens, whose concatenation is the text."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens a text counts; bounded work for a text of any length."""
    if len(text) <= COUNTED_EXACTLY:
        return len(_TOKEN.findall(text))
    rest = len(text) - COUNTED_EXACTLY
    return len(_TOKEN.findall(text[:COUNTED_EXACTLY])) + (rest + 3) // 4


def digest(*parts: bytes) -> bytes:
    """Sixteen bytes that stand for the parts, each told from its neighbours by its length."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.digest()


def prose(key: bytes, length: int) -> list[str]:
    """Return the introduction and then sentences chosen by `key`, cut at `length` tokens."""
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
    """`length` different words (at most 64), as the tokens that were not chosen."""
    start = key[0]
    return [_WORDS[(start + step * 5) % 64] for step in range(length)]


@cache
def _introduction() -> tuple[str, ...]:
    return tuple(split(INTRODUCTION))
