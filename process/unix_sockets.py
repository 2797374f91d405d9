"""UNIX domain sockets to listen on: the file of a dead process is replaced, a live one's never.

    lock the folder -> connect   accepted   a process listens: EADDRINUSE
                                 refused    the file is stale: remove it
                    -> bind      -> mode 0660: the user and the group of the process can connect

The lock keeps processes that start together from removing each other's files. Nobody else can
connect between the bind and the change of the mode, because the file begins with the mode 0600.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from process.settings import Listen, UnixAddress

MODE: Final = 0o660
"""The mode of the file of a socket."""

_PRIVATE: Final = 0o177
"""The umask while a socket is bound."""


@contextmanager
def placed(listen: Listen) -> Iterator[None]:
    """Make way for a socket that is bound within the context. Do nothing for a TCP address.

    Raises:
        OSError: A process listens at the path, the path is no socket, or its folder is unusable.
    """
    if not isinstance(listen, UnixAddress):
        yield
        return
    folder = os.open(Path(listen.path).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if is_stale(listen):
            Path(listen.path).unlink()
        before = os.umask(_PRIVATE)
        try:
            yield
        finally:
            os.umask(before)
        Path(listen.path).chmod(MODE)
    finally:
        os.close(folder)


def is_stale(listen: UnixAddress) -> bool:
    """Return whether a dead process left the file of the socket; False if there is no file.

    Raises:
        OSError: A process listens at the path, or the path is no socket.
    """
    try:
        if not stat.S_ISSOCK(Path(listen.path).stat().st_mode):
            raise FileExistsError(errno.EEXIST, "The file is not a socket")
    except FileNotFoundError:
        return False
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
        client.setblocking(False)
        try:
            client.connect(listen.path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:  # a process listens, and its queue is full
            pass
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@contextmanager
def listening(listen: UnixAddress) -> Iterator[socket.socket]:
    """Listen within the context. Then remove the file, unless another process has replaced it.

    Raises:
        OSError: A process listens at the path, or the path is unusable.
    """
    path = Path(listen.path)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        with placed(listen):
            listener.bind(listen.path)
            listener.listen()
        ours = path.stat().st_ino
        try:
            yield listener
        finally:
            with suppress(OSError):
                if path.stat().st_ino == ours:
                    path.unlink()
