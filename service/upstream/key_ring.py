"""The keys of an upstream: which one a request gets. Pure: the time is passed in.

Requests take turns with the keys. A key that the upstream refused is set aside for a while. If all
of them are, the one whose time ends first is used, so that callers get the upstream's own refusal.
"""

from collections.abc import Sequence


class KeyRing:
    """The keys of one upstream.

    Args:
        pause: Seconds for which a refused key is set aside.
    """

    def __init__(self, *, pause: float) -> None:
        self._pause = pause
        self._turn = 0
        self._back: dict[str, float] = {}
        """When each key that is set aside comes back."""

    def usable(self, keys: Sequence[str], now: float) -> bool:
        """Return whether one of the keys is not set aside."""
        return not self._back or any(self._back.get(key, now) <= now for key in keys)

    def choose(self, keys: Sequence[str], now: float) -> str:
        """Return the key of the next request.

        Args:
            keys: All keys of the upstream, at least one.
            now: The time in seconds.
        """
        self._turn += 1
        count = len(keys)
        for step in range(count):
            key = keys[(self._turn + step) % count]
            if self._back.get(key, now) <= now:
                return key
        return min(keys, key=self._back.__getitem__)

    def set_aside(self, key: str, now: float) -> bool:
        """Set a refused key aside. Return whether it was in use until now."""
        was_in_use = self._back.get(key, now) <= now
        self._back = {each: back for each, back in self._back.items() if back > now}
        self._back[key] = now + self._pause
        return was_in_use
