"""What a simulator may be told when it is started.

who it is      seed, clock
how it answers completion_tokens, time_to_first_token, inter_token_delay
what it takes  api_key, max_body_bytes
what it keeps  records_kept, record_bytes_kept
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True, frozen=True, slots=True)
class SimulatorConfig:
    """The settings of one simulator; every default makes a quick and silent upstream.

    Raises:
        ValueError: a number is out of its range.
    """

    seed: int = 0
    """Chooses the texts: the same seed and the same request give the same bytes."""
    clock: Callable[[], float] | None = None
    """Gives `created` in seconds since 1970; None derives it from the request instead."""
    completion_tokens: int = 48
    """Length in tokens of a text that nothing else limits, 0 to 100,000."""
    time_to_first_token: float = 0.0
    """Seconds between the end of the request and the first byte of its answer, 0 to 3,600."""
    inter_token_delay: float = 0.0
    """Seconds between two tokens (of a unary answer: for each token), 0 to 3,600."""
    api_key: str | None = None
    """The bearer key that a caller has to show; None asks for none."""
    max_body_bytes: int = 32 * 1024 * 1024
    """The largest request body that is read; a larger one is answered with 413."""
    records_kept: int = 1024
    """How many of the last requests are remembered; 0 remembers none."""
    record_bytes_kept: int = 64 * 1024 * 1024
    """How many bytes of request bodies are remembered before the oldest is forgotten."""

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("completion_tokens", 0, 100_000),
            ("time_to_first_token", 0, 3600),
            ("inter_token_delay", 0, 3600),
            ("max_body_bytes", 1, 2**31),
            ("records_kept", 0, 1_000_000),
            ("record_bytes_kept", 0, 2**40),
        ):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"{name} is {value!r}: it has to be {lowest} to {highest}")
