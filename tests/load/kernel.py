"""Processes and the machine, as the kernel reports them: CPU time, memory, cores, versions."""

import contextlib
import os
import platform
import resource
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

PACKAGES: Final = ("grpcio", "protobuf", "uvloop", "httpx", "uvicorn", "msgspec", "sqlalchemy")
"""The packages whose versions a report states."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of processes, the kernel's part included, in seconds.

    The kernel counts nanoseconds, and threads that have ended, too: see clock_getcpuclockid(3).
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def resident_megabytes(pids: Iterable[int]) -> float:
    """Return the resident memory of processes in MB, pages that they share counted for each."""
    return sum(int(_read(f"/proc/{pid}/statm").split()[1]) for pid in pids) * _PAGE / 1e6


def with_children(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for thread in os.listdir(f"/proc/{pid}/task"):
        for child in _read(f"/proc/{pid}/task/{thread}/children").split():
            found += with_children(int(child))
    return found


def cores() -> tuple[set[int], set[int]]:
    """Return the core of what is measured, and those of the load and the upstream.

    Raises:
        SystemExit: this process can use one core only.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit("the benchmark needs two cores: one for what it measures, one for load")
    return {first}, set(others)


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Let the processes that are started within run on these cores only."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


def allow_descriptors() -> None:
    """Raise the limit of open files to its maximum. Processes started later inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def machine(directory: Path) -> dict[str, str]:
    """Return what a figure depends on besides the code.

    Args:
        directory: Where the stores are.
    """
    cpu = next((v for k, v in _fields("/proc/cpuinfo") if k == "model name"), platform.machine())
    return {
        "CPU": f"{cpu}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _file_system(directory),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "Python": f"{sys.version.split()[0]} ({platform.python_implementation()})",
        **{package: version(package) for package in PACKAGES},
    }


def _file_system(directory: Path) -> str:
    mounts = [line.split()[1:3] for line in _read("/proc/mounts").splitlines()]
    above = [mount for mount in mounts if directory.resolve().is_relative_to(mount[0])]
    return max(above, key=lambda mount: len(mount[0]))[1]


def _fields(path: str) -> Iterator[tuple[str, str]]:
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
