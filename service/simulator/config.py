"""The settings of a simulator.

identity   seed, clock
responses  completion_tokens, time_to_first_token, inter_token_delay
requests   api_key, max_body_bytes
records    records_kept, record_bytes_kept
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True, frozen=True, slots=True)
class SimulatorConfig:
    """The settings of one simulator. By default, it responds without delays.

    Raises:
        ValueError: A number is out of range.
    """

    seed: int = 0
    """The seed of the texts: the same seed and the same request return the same bytes."""
    clock: Callable[[], float] | None = None
    """Returns `created` in seconds since 1970; None derives it from the request instead."""
    completion_tokens: int = 48
    """The length of a text without another limit, in tokens: 0 to 100,000."""
    time_to_first_token: float = 0.0
    """Seconds from the end of the request to the first byte of its response: 0 to 3,600."""
    inter_token_delay: float = 0.0
    """Seconds between two tokens; for a unary response, seconds per token: 0 to 3,600."""
    api_key: str | None = None
    """The required bearer key; None for no check."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Maximum size of a request body, in bytes; a larger one gets 413."""
    records_kept: int = 1024
    """Maximum number of recorded requests."""
    record_bytes_kept: int = 64 * 1024 * 1024
    """Maximum bytes of recorded request bodies; the oldest are dropped."""

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
