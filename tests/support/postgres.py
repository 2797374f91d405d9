"""A real PostgreSQL server, if its binaries are installed.

    initdb -> postgres -k a socket directory, -p a free port -> databases for tests -> stop, remove
    pg_basebackup of another server -> the same, as its hot standby -> promote

The server does not run as root; tests that run as root start it as the user `postgres`.
"""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support.canaries import DATABASE_PASSWORD

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
_MEMORY = "/dev/shm"  # noqa: S108  (a new directory is created there)
_WITHIN = 30.0
_PORTS = range(20_000, 32_000)
"""Below the ephemeral ports of Linux and macOS, which begin at 32768 and 49152."""


class Server:
    """A running server. Its superuser is `tester` and needs no password.

    Args:
        binaries: The directory of `initdb` and `postgres`.
        directory: The directory of its files.
        options: More settings, as `name=value`.
        primary: The running server of which this one is a hot standby; None for a primary.
    """

    def __init__(
        self,
        binaries: Path,
        directory: Path,
        options: Sequence[str] = (),
        primary: "Server | None" = None,
    ) -> None:
        self._binaries = binaries
        self._data = directory / "data"
        self._options = options
        self.directory = directory
        self.port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(directory, account.pw_uid, account.pw_gid)
        self._numbers = count(1)
        self._free: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if primary is None:
            self._run("initdb", "-D", self._data, "-U", "tester", "-A", "trust", "-N", "-E", "UTF8")
        else:
            source = ("-h", primary.directory, "-p", str(primary.port), "-U", "tester")
            # -R makes the copy follow its primary.
            copy = ("-D", self._data, "-R", "-c", "fast", "--no-sync")
            self._run("pg_basebackup", *source, *copy)

    def _command(self, program: str, *arguments: str | Path) -> list[str | Path]:
        return [self._binaries / program, *arguments]

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(  # noqa: S603  (the server's own programs)
            self._command(program, *arguments),
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self.directory,
        )

    def start(self) -> None:
        """Start it and wait until it responds. Start it again if it exits.

        Raises:
            RuntimeError: It did not respond in time. The message ends with its log.
        """
        deadline = time.monotonic() + _WITHIN
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                # The first start, or a crashed predecessor still occupied its resources.
                self._process = self._launch()
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)  # the server does not signal when it is ready
        log = (self.directory / "log").read_text(errors="replace")
        raise RuntimeError(f"no answer within {_WITHIN:g} s: {log[-2000:]}")

    def _launch(self) -> subprocess.Popen[bytes]:
        options = [f"-c{option}" for option in self._options]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603  (the server's own programs)
                self._command(
                    "postgres",
                    *("-D", self._data, "-k", self.directory, "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", *options),
                ),
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.directory,
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT is `fast`, SIGQUIT is `immediate`, which is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_WITHIN)
            self._process = None

    def set(self, setting: str, value: str) -> None:
        """Change a setting of the server, also for the sessions that it has."""
        with self.connect("postgres") as connection:
            connection.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby a primary."""
        with self.connect("postgres") as connection:
            connection.execute("SELECT pg_promote()")

    def sessions(self, database: str) -> int:
        """Return the number of client sessions in a database, without those of tests."""
        with self.connect("postgres") as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (database,)
            ).fetchone()
        assert found is not None
        return int(str(found[0]))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Make it neither respond nor close its connections, for the block."""
        stopped: list[int] = []

        def stop(process: int) -> None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(process, signal.SIGSTOP)
                stopped.append(process)

        with self.connect("postgres") as connection:
            try:
                stop(self.process)  # first, because it starts the others
                for (backend,) in connection.execute(
                    "SELECT pid FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ):
                    stop(int(str(backend)))
                yield
            finally:
                for process in stopped:
                    os.kill(process, signal.SIGCONT)

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        """Connect to a database directly, with autocommit."""
        return psycopg.connect(
            host=str(self.directory),
            port=self.port,
            user="tester",
            dbname=database,
            autocommit=True,
            connect_timeout=5,
            options="-c default_transaction_read_only=off",
        )

    def database(self) -> str:
        """Create an empty database and return its name."""
        name = f"accounts_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Yield the name of an empty database.

        The database is emptied and reused, which takes a tenth of the time of creating one and
        leaves one database on disk instead of hundreds.
        """
        name = self._free.pop() if self._free else self.database()
        yield name
        with self.connect(name) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        self._free.append(name)

    def url(self, database: str) -> str:
        """Return the address of a database, over the local socket."""
        return f"postgresql://tester:{DATABASE_PASSWORD}@/{database}?host={self.directory}&port={self.port}"

    def tcp_url(self, database: str, port: int | None = None) -> str:
        """Return the address of a database over TCP, or through a proxy on `port`."""
        return f"postgresql://tester:{DATABASE_PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    @property
    def process(self) -> int:
        """The id of the server's main process."""
        assert self._process is not None
        return self._process.pid


def binaries() -> Path | None:
    """Return the directory of the server's programs, or None."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    for place in _PLACES:
        for path in sorted(Path("/").glob(place.lstrip("/")), reverse=True):
            if (path / "initdb").exists():
                return path
    return None


@contextmanager
def running(
    options: Sequence[str] = (), *, in_memory: bool = False, primary: Server | None = None
) -> Iterator[Server]:
    """Start a server. The end of the block removes it.

    Args:
        options: More settings, as `name=value`.
        primary: The server that this one is a hot standby of.
        in_memory: Whether to keep its files in memory if possible, so that its writes do not delay
            other tests.

    Raises:
        FileNotFoundError: Its binaries are not installed.
    """
    path = binaries()
    if path is None:
        raise FileNotFoundError("PostgreSQL's initdb")
    # The path of a socket must be short; the paths of pytest's directories are too long.
    place = _MEMORY if in_memory and os.access(_MEMORY, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="pg", dir=place))
    try:
        server = Server(path, directory, options, primary)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # its data is not needed any more
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """Return a free port that is not an ephemeral port.

    While a server is stopped, a client that keeps trying to connect could otherwise get the
    server's port as its own, connect to itself, and block the restart of the server.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
