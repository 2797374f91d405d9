"""The metadata that report how much of a key's limits is left: OpenAI's headers, by name.

x-ratelimit-limit-requests       x-ratelimit-limit-tokens        per minute
x-ratelimit-remaining-requests   x-ratelimit-remaining-tokens
x-ratelimit-reset-requests       x-ratelimit-reset-tokens        until the limit is full again
"""

from service.call import Headers
from service.ledger.rates import Level


def headers(requests: Level | None, tokens: Level | None) -> Headers:
    """Return the headers of the limits that a key has; None is no limit."""
    found: list[tuple[str, str]] = []
    for name, level in (("requests", requests), ("tokens", tokens)):
        if level is not None:
            found += [
                (f"x-ratelimit-limit-{name}", str(level.limit)),
                (f"x-ratelimit-remaining-{name}", str(level.remaining)),
                (f"x-ratelimit-reset-{name}", duration(level)),
            ]
    return tuple(found)


def duration(level: Level) -> str:
    """Return the time until a limit is full again as OpenAI writes it: `6m0s`, `1.2s`, `20ms`."""
    milliseconds = -(-level.reset // 1_000_000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    seconds = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
