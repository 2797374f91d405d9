"""Reads the files of TLS again when they change, and at SIGHUP: all of them or nothing.

    SIGHUP, or every 10 s: a file has another time, size or inode
        -> Credentials   `tls reloaded`
        -> TlsError      `tls not reloaded`, and the old ones stay

Connections that exist keep the certificates of their handshakes.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from process import log
from process.tls import credentials as tls
from process.tls.credentials import Credentials, TlsError
from process.tls.files import ClientFiles, ServerFiles

INTERVAL: Final = 10.0
"""Seconds between two looks at the files."""

_Signature: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Watched:
    """The files of one listener or client.

    Args:
        files: The files.
        logger: The name of the logger.

    Raises:
        TlsError: They cannot be used.
    """

    def __init__(self, files: ServerFiles | ClientFiles, *, logger: str) -> None:
        self._log = logging.getLogger(logger)
        self._files = files
        # Before the files are read, so that no change is missed.
        self._seen = self._signature()
        self.credentials = tls.of(files)
        """The contents of the files when they last worked."""
        self.changed: Callable[[Credentials], None] = lambda _: None
        """Called with new credentials, on the event loop."""

    async def look(self, *, asked: bool) -> None:
        """Read the files again if they have changed or somebody asked for it. Log the result."""
        seen = await asyncio.to_thread(self._signature)
        if seen == self._seen and not asked:
            return
        self._seen = seen
        file = self._files.named
        try:
            found = await asyncio.to_thread(tls.of, self._files)
        except TlsError as error:
            members = log.fields(setting=file.variable, file=file.path, errors=list(error.lines))
            self._log.error("tls not reloaded", extra=members)
            return
        self.credentials = found
        self.changed(found)
        members = log.fields(setting=file.variable, file=file.path, expires=found.expires or None)
        self._log.info("tls reloaded", extra=members)

    def _signature(self) -> _Signature:
        return tuple(_stat(file.path) for file in self._files.all() if file)


class TlsReloading:
    """Reloads all files of a process.

    Args:
        watched: The files of each listener and client.
        interval: Seconds between two looks at the files.
    """

    def __init__(self, watched: Sequence[Watched], *, interval: float = INTERVAL) -> None:
        self._watched = watched
        self._interval = interval

    async def __call__(self) -> None:
        """Read all files again."""
        for each in self._watched:
            await each.look(asked=True)

    async def run(self) -> NoReturn:
        """Reload files that have changed, until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            for each in self._watched:
                await each.look(asked=False)


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
