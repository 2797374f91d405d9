"""The console script of the client. It imports nothing that can be missing."""

from process.launch import launch


def chat() -> int:
    """Run `chatcompletion-chat`."""
    return launch("chat.__main__", "main", extra="chat")
