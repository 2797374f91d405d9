"""Time zones of the IANA database, by their names."""

from zoneinfo import ZoneInfo


def named(name: str) -> ZoneInfo | None:
    """Return the time zone with a name such as "Europe/Vienna"; None if this machine has none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a name, or the name of a directory
        return None
