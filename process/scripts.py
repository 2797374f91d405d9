"""The console script that both deployables share. It imports nothing that can be missing."""

from process.launch import launch


def probe() -> int:
    """Run `chatcompletion-probe`: a health check for containers."""
    return launch("process.probe", "main", extra="process")
