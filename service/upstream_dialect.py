"""How an upstream differs from OpenAI's API, as configuration: the dialect of a model.

    [upstreams.NAME] and [models.NAME] -> `dialect_document` -> Dialect

A model has the dialect of its upstream, except for the members that its own entry sets. Each
default suits most upstreams.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

StreamEnd = Literal["lenient", "strict"]
STREAM_ENDS: Final[tuple[StreamEnd, ...]] = ("lenient", "strict")
"""What completes a stream. Lenient: `[DONE]`, or the finish_reason of each choice that began and a
clean end of the body. Strict: `[DONE]` after each finish_reason."""

StreamOptions = Literal["auto", "never"]
STREAM_OPTIONS: Final[tuple[StreamOptions, ...]] = ("auto", "never")
"""Whether streams are requested with `stream_options`: until the upstream refuses it, or never."""

CachedTokens = Literal["inside", "outside"]
CACHED_TOKENS: Final[tuple[CachedTokens, ...]] = ("inside", "outside")
"""Whether `prompt_tokens` contains the tokens of the prompt cache (OpenAI) or not (Anthropic)."""

KEEPALIVE: Final = 1.5
"""The default of `keepalive`. Servers on gunicorn close idle connections after 2 seconds; those on
uvicorn, such as vLLM, on Node.js and on llama.cpp after 5. A request that is sent at that moment
fails, so the service closes first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The dialect of a model."""

    stream_end: StreamEnd = "lenient"
    """The rule that decides whether a stream is complete."""
    stream_options: StreamOptions = "auto"
    """Whether streams are requested with `stream_options`."""
    keepalive: float = KEEPALIVE
    """Seconds for which an idle connection is kept; 0 closes each after its response."""
    first_byte_timeout: float | None = None
    """Maximum seconds before the first event of a stream; None for the setting of the service."""
    idle_timeout: float | None = None
    """Maximum seconds of silence within a response; None for the setting of the service."""
    finish_reasons: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The finish_reason that callers get for one of the upstream."""
    hides_cost: bool | None = None
    """Whether the costs in the upstream's usage are removed; None if the model has a price."""
    cached_tokens: CachedTokens = "inside"
    """Whether `prompt_tokens` contains the tokens that were read from or written to the cache."""
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    """Headers that are added to each request, or replace the service's own of the same name."""
    query: str = field(default="", repr=False)
    """The query of each request, encoded, without its question mark."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """The values of headers that come from environment variables."""


OPENAI: Final = Dialect()
"""The dialect without any difference."""
