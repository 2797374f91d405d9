"""The systems under test, as an operator starts them: processes, pinned to one core.

    standalone      REST -> python -m restbridge --standalone
    service+bridge  REST -> python -m restbridge -> python -m service
    grpc            gRPC -> python -m service
    two-workers     REST -> python -m restbridge --standalone --workers 2, on every core
    four-workers    the same with 4
    echo-grpc       gRPC -> an echo: what gRPC alone costs
    echo-rest+grpc  REST -> a bare forwarder -> the echo
    litellm         REST -> litellm, of an environment of its own

Each has a directory for its store, its journal and its log, which goes to a file. Metrics are on.
The settings are the defaults, except for addresses and for limits that the loads would reach.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.load import kernel
from tests.load.clients import Request, Target, UnexpectedError, connected
from tests.load.upstream import INSTANT

ROOT: Final = Path(__file__).parents[2]
KEY: Final = "sk-live-benchmark-0123456789"
OURS: Final = ("standalone", "service+bridge", "grpc")
TWO_WORKERS: Final = "two-workers"
WORKERS: Final = {TWO_WORKERS: 2, "four-workers": 4}
"""Several processes with one store; they run on every core."""
ECHOES: Final = ("echo-grpc", "echo-rest+grpc")
"""gRPC without the product: the least that `grpc` and `service+bridge` can cost."""
ON_REQUEST: Final = (*WORKERS, *ECHOES)
"""Measured only if `--topology` names them."""
_SPEAK_GRPC: Final = frozenset({"grpc", "echo-grpc"})
LITELLM: Final = "litellm"
STORE: Final = "accounts.db"
"""The file of a system's accounts, in its directory."""

PEERS: Final = ROOT / ".venv-clients" / "litellm"
"""The environment of what this project is compared with; `make bench-peers` creates it."""

_NAMES: Final = (INSTANT, "paced-50", *(f"held-{ms}" for ms in (25, 50, 250, 750, 1500, 3000)))
MODELS: Final[Mapping[str, str]] = {name: name for name in _NAMES}
"""The names of the models of a system, and the names that its upstream knows."""

_MODULES: Final = {
    "standalone": (("restbridge", "--standalone"),),
    "service+bridge": (("service",), ("restbridge",)),
    "grpc": (("service",),),
    **{
        name: (("restbridge", "--standalone", "--workers", str(count)),)
        for name, count in WORKERS.items()
    },
    "echo-grpc": (("tests.load.echo", "service"),),
    "echo-rest+grpc": (("tests.load.echo", "service"), ("tests.load.echo", "bridge")),
}
_ALL_SERVE: Final = b'"workers":'
"""In the line that a supervisor logs when all its workers serve."""
_MOST: Final = "8000"  # concurrent calls and connections
_PATIENCE: Final = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A system that can be started.

    Args:
        label: Its name in tables.
        topology: One of `OURS`, `ON_REQUEST` or `LITELLM`.
        tree: The checkout whose code runs.
    """

    label: str
    topology: str
    tree: Path = ROOT


class System:
    """A running system.

    Args:
        plan: What runs.
        target: Where it takes requests.
        processes: The processes that were started.
        log: The file that they write to.
    """

    def __init__(
        self,
        plan: Plan,
        target: Target,
        processes: Sequence[subprocess.Popen[bytes]],
        log: Path,
    ) -> None:
        self.plan = plan
        self.target = target
        self.megabytes_at_rest = 0.0
        self.profiles: Sequence[tuple[int, Path]] = ()
        """The processes under a wrapper, and where each writes."""
        self._processes = processes
        self._log = log
        self._pids: list[int] = []

    async def ready(self) -> None:
        """Wait until every process of it answers requests.

        Raises:
            SystemExit: a process ended, or there is no answer for two minutes.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                async with asyncio.timeout(10), connected(self.target, 1) as (caller,):
                    await caller.ask(Request(model=INSTANT, streamed=False))
                if self.plan.topology not in WORKERS or _ALL_SERVE in self._log.read_bytes():
                    break
                raise UnexpectedError("some workers do not serve yet")
            except (OSError, UnexpectedError, TimeoutError) as error:
                ended = any(process.poll() is not None for process in self._processes)
                if ended or time.monotonic() > deadline:
                    raise SystemExit(
                        f"{self.plan.label} does not serve: {error}\n{self._last_lines()}"
                    ) from error
                await asyncio.sleep(0.1)
        self._pids = [p for process in self._processes for p in kernel.with_children(process.pid)]
        self.megabytes_at_rest = self.megabytes()

    def _last_lines(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def cpu_seconds(self) -> float:
        """Return the CPU time that its processes have used."""
        return kernel.cpu_seconds(self._pids)

    def megabytes(self) -> float:
        """Return the resident memory of its processes, in MB."""
        return kernel.resident_megabytes(self._pids)

    async def end(self) -> None:
        """End its processes as an operator does, so that the store has every charge.

        Raises:
            subprocess.TimeoutExpired: One does not end within two minutes.
        """
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            await asyncio.to_thread(process.wait, _PATIENCE)

    def stop(self) -> None:
        """End its processes; what they would save is not needed."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start(
    plan: Plan,
    upstream: int,
    directory: Path,
    cores: set[int],
    *,
    wrapper: Path | None = None,
    models: Mapping[str, str] = MODELS,
) -> System:
    """Start a system; return it before it is ready.

    Args:
        plan: What to start.
        upstream: The port of the upstream.
        directory: An empty directory for its files.
        cores: The cores that it runs on.
        wrapper: The script that runs its modules, such as `profiled.py`; only for ours.
        models: The names of its models, and the names that the upstream knows; only for ours.
    """
    address, service = (f"127.0.0.1:{kernel.free_port()}" for _ in range(2))
    commands: Sequence[Sequence[str]]
    if plan.topology == LITELLM:
        commands, environment = _litellm(address, upstream, directory)
    else:
        environment = _environment(plan.tree, upstream, directory, models) | {
            "CHAT_LISTEN": address if plan.topology in _SPEAK_GRPC else service,
            "CHAT_BRIDGE_LISTEN": address,
            "CHAT_SERVICE_TARGET": service,
        }
        commands = [
            (
                sys.executable,
                *(_wrapped(wrapper, directory, module) if wrapper else ("-m",)),
                *command,
            )
            for command in _MODULES[plan.topology]
            for module in command[:1]
        ]
    log = directory / "log"
    with kernel.on(cores), log.open("wb") as lines:
        processes = [
            subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=lines,
                start_new_session=True,
            )
            for command in commands
        ]
    target = Target(
        protocol="grpc" if plan.topology in _SPEAK_GRPC else "rest",
        address=address,
        key=KEY,
    )
    system = System(plan, target, processes, log)
    if wrapper:
        system.profiles = [
            (process.pid, _profile(directory, command[0]))
            for process, command in zip(processes, _MODULES[plan.topology], strict=True)
        ]
    return system


def _wrapped(wrapper: Path, directory: Path, module: str) -> tuple[str, str]:
    return str(wrapper), str(_profile(directory, module))


def _profile(directory: Path, module: str) -> Path:
    return directory / f"{module}.profile"


def start_upstream(cores: set[int]) -> tuple[subprocess.Popen[bytes], int]:
    """Start the upstream; return its process and its port."""
    with kernel.on(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.upstream"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
            stdout=subprocess.PIPE,
        )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def litellm_version() -> str:
    """Return the version of the LiteLLM that is installed."""
    (folder,) = PEERS.glob("lib/*/site-packages/litellm-*.dist-info")
    return folder.name.removesuffix(".dist-info").removeprefix("litellm-")


def _environment(
    tree: Path, upstream: int, directory: Path, models: Mapping[str, str]
) -> dict[str, str]:
    document = directory / "models.toml"
    document.write_text(
        f'[upstreams.instant]\nbase_url = "http://127.0.0.1:{upstream}"\n'
        + "".join(
            f'[models.{name}]\nupstream = "instant"\nupstream_model = "{of}"\n'
            "default_output_tokens = 1024\nmaximum_output_tokens = 8192\n"
            "input_price = 0.05\noutput_price = 0.10\n"
            for name, of in models.items()
        ),
        encoding="utf-8",
    )
    return _inherited() | {
        "PYTHONPATH": f"{tree}:{tree / 'protos'}",
        "CHAT_MODELS_FILE": str(document),
        "CHAT_DATABASE_URL": f"sqlite:///{directory / STORE}",
        "CHAT_JOURNAL_DIRECTORY": str(directory / "journal"),
        "CHAT_BOOTSTRAP_API_KEY": KEY,
        "CHAT_BOOTSTRAP_CREDIT": "1000000",
        "CHAT_METRICS_LISTEN": "127.0.0.1:0",
        "CHAT_BRIDGE_METRICS_LISTEN": "127.0.0.1:0",
        "CHAT_MAX_CONCURRENT_CALLS": _MOST,
        "CHAT_UPSTREAM_MAX_CONNECTIONS": _MOST,
        "CHAT_BRIDGE_MAX_CONCURRENCY": _MOST,
    }


def _inherited() -> dict[str, str]:
    """Return the environment without settings of ours and of the peers."""
    ours = ("CHAT_", "SIMPLISMART_", "LITELLM_", "OPENAI_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _litellm(
    address: str, upstream: int, directory: Path
) -> tuple[Sequence[Sequence[str]], dict[str, str]]:
    config = directory / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        + "".join(
            f"  - model_name: {name}\n    litellm_params:\n      model: openai/{name}\n"
            f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: none\n"
            for name in MODELS
        )
        + f"general_settings:\n  master_key: {KEY}\n"
        "litellm_settings:\n  telemetry: false\n",
        encoding="utf-8",
    )
    host, _, port = address.rpartition(":")
    command = (
        *(str(PEERS / "bin" / "litellm"), "--config", str(config)),
        *("--host", host, "--port", port),
    )
    # It would ask the network for a table of prices first.
    return [command], _inherited() | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
