"""The parts of a reported usage that have prices of their own.

    usage -> parts_of -> Parts        cached, written, audio and image tokens of the prompt,
                                      reasoning and audio tokens of the completion
    usage -> prompt_of -> int         all prompt tokens, where the dialect counts cached ones apart

Upstreams name cached tokens differently:

    read from the cache                            written to the cache
    prompt_tokens_details.cached_tokens (OpenAI)   prompt_tokens_details.cache_write_tokens
    cache_read_input_tokens (Anthropic)            cache_creation_input_tokens
    prompt_cache_hit_tokens (DeepSeek)
    cached_tokens (Moonshot)

A count that is missing, negative or not an integer is 0. `metering.price` takes no more tokens as
special than there are.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from chatcompletion.v1.chat_completion_pb2 import Usage

_READ: Final = ("cache_read_input_tokens", "prompt_cache_hit_tokens", "cached_tokens")
_WRITTEN: Final = ("cache_creation_input_tokens",)
_LONGEST: Final = 18
"""Digits that always fit into 64 bits."""


class Parts(NamedTuple):
    """Numbers of tokens."""

    cached: int = 0
    written: int = 0
    audio: int = 0
    image: int = 0
    reasoning: int = 0
    spoken: int = 0
    """Audio tokens of the completion."""


NO_PARTS: Final = Parts()


def parts_of(usage: Usage) -> Parts:
    """Return the parts of a usage."""
    extra = usage.extra_json
    of_prompt = usage.HasField("prompt_tokens_details")
    of_completion = usage.HasField("completion_tokens_details")
    if not (of_prompt or of_completion or extra):
        return NO_PARTS
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return Parts(
        cached=max(prompt.cached_tokens, 0) or _first(extra, _READ),
        written=max(prompt.cache_write_tokens, 0) or _first(extra, _WRITTEN),
        audio=max(prompt.audio_tokens, 0),
        image=max(prompt.image_tokens, 0),
        reasoning=max(completion.reasoning_tokens, 0),
        spoken=max(completion.audio_tokens, 0),
    )


def prompt_of(usage: Usage, *, cached_outside: bool) -> int:
    """Return all tokens of the prompt.

    Args:
        usage: The usage, with `prompt_tokens`.
        cached_outside: Whether `prompt_tokens` lacks the tokens of the cache.
    """
    if not cached_outside or usage.prompt_tokens < 0:
        return usage.prompt_tokens
    parts = parts_of(usage)
    return usage.prompt_tokens + parts.cached + parts.written


def _first(extra: Mapping[str, str], names: tuple[str, ...]) -> int:
    for name in names:
        text = extra.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= _LONGEST:
            return int(text)
    return 0
