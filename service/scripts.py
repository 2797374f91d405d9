"""The console scripts of the service. They import nothing that can be missing."""

from process.launch import launch


def service() -> int:
    """Run `chatcompletion-service`: the server and the commands."""
    return launch("service.__main__", "main", extra="service")


def admin() -> int:
    """Run `chatcompletion-admin`: the commands alone."""
    return launch("service.__main__", "admin", extra="admin")
