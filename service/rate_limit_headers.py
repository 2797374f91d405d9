"""The state of a key's limits as metadata, with the names of OpenAI's headers.

x-ratelimit-limit-requests       x-ratelimit-limit-tokens        per minute
x-ratelimit-remaining-requests   x-ratelimit-remaining-tokens
x-ratelimit-reset-requests       x-ratelimit-reset-tokens        until the limit is full again
"""

from service.call import Headers
from service.ledger.rate_limits import Level


def headers(requests: Level | None, tokens: Level | None) -> Headers:
    """Return the headers for the limits of a key. None means no limit."""
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
    """Return the time until a limit is full again, in OpenAI's form: `6m0s`, `1.2s`, `20ms`."""
    milliseconds = -(-level.reset // 1_000_000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    seconds = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
