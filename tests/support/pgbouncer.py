"""A real PgBouncer in front of a PostgreSQL server, if it is installed.

with pgbouncer(server, "transaction", pool_size=3) as port:
    Store(server.tcp_url(database, port))

It does not run as root; tests that run as root start it as the user `postgres`.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from tests.support.postgres import Server, free_port

PoolMode = Literal["session", "transaction", "statement"]

_PLACES: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"
_WITHIN: Final = 10.0


def pgbouncer_program() -> str | None:
    """Return the path of the program, or None."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path=_PLACES)


@contextmanager
def pgbouncer(server: Server, mode: PoolMode, *, pool_size: int = 20) -> Iterator[int]:
    """Start a PgBouncer, and yield its port on the loopback interface.

    Args:
        server: The server behind it.
        mode: When a session is returned to the pool.
        pool_size: The maximum number of sessions of a database.

    Raises:
        FileNotFoundError: It is not installed.
        RuntimeError: It does not listen in time. The message ends with its log.
    """
    program = pgbouncer_program()
    if program is None:
        raise FileNotFoundError("pgbouncer")
    directory = Path(tempfile.mkdtemp(prefix="pgb"))
    port = free_port()
    (directory / "users").write_text('"tester" ""\n')
    settings = (
        "[databases]",
        f"* = host={server.directory} port={server.port}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = trust",
        f"auth_file = {directory}/users",
        f"pool_mode = {mode}",
        f"default_pool_size = {pool_size}",
        "server_login_retry = 1",
    )
    (directory / "ini").write_text("\n".join(settings))
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        owner = pwd.getpwnam(user)
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    log = (directory / "log").open("wb")
    try:
        process = subprocess.Popen(  # noqa: S603  (the program that the test asked for)
            [program, str(directory / "ini")], stdout=log, stderr=log, user=user, cwd=directory
        )
        try:
            _wait(process, port, directory / "log")
            yield port
        finally:
            process.kill()
            process.wait(_WITHIN)
    finally:
        log.close()
        shutil.rmtree(directory, ignore_errors=True)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.02)  # it does not signal when it is ready
    raise RuntimeError(f"PgBouncer does not listen: {log.read_text(errors='replace')[-2000:]}")
