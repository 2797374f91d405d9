"""The console scripts of the bridge. They import nothing that can be missing."""

from process.launch import launch


def bridge() -> int:
    """Run `chatcompletion-bridge`: the bridge."""
    return launch("restbridge.__main__", "main", extra="restbridge")


def standalone() -> int:
    """Run `chatcompletion-standalone`: the bridge and the service in one process."""
    return launch("restbridge.__main__", "standalone", extra="standalone")
