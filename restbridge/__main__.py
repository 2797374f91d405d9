"""`python -m restbridge`: read the settings, serve until a signal, drain.

    python -m restbridge               the bridge, which calls a service in another process
    python -m restbridge --standalone  the bridge and the service in one process, for one machine
    … --workers N                      N such processes on the same ports, and their supervisor

The console scripts chatcompletion-bridge and chatcompletion-standalone do the same.

SIGTERM drains as configured. SIGINT skips the drain delay. A second signal of either kind ends the
remaining requests immediately. With --standalone, SIGHUP reads the models file again; without, it
changes nothing. The exit status is 0 after a drain, 1 if an address cannot be listened on, and 2 if
a setting is wrong.

Only this file of the bridge imports the service, and only for --standalone. The bridge then calls
the service's handlers without a socket; other clients use the gRPC port.
With workers, each has a bridge and a service.
"""

import asyncio
import json
import os
import resource
import secrets
import shlex
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from process import command_line, log
from process import settings as process_settings
from process.lifetime import Signals, remember_hang_ups, settle
from process.settings import Address, SettingsError, rows, usage
from process.variables import unknown_variables
from process.workers.arguments import ARGUMENTS, USAGE, parse
from process.workers.plan import Plan
from process.workers.worker import Worker
from restbridge.config import Settings

if TYPE_CHECKING:  # the bridge is deployed without the service
    from service.config import Settings as ServiceSettings
    from service.models import Catalogue

_STANDALONE: Final = "--standalone"
_KEY: Final = "CHAT_BOOTSTRAP_API_KEY"
_KEY_BYTES: Final = 32
_FILES_BESIDES: Final = 128
# Descriptors in addition to client connections: the channel, the metrics, the process's own.


async def serve(settings: Settings, worker: Worker | None = None) -> None:
    """Run a bridge until the first signal, then drain it.

    Args:
        settings: The settings.
        worker: This process as a worker, or None if it is the only one.

    Raises:
        ListenError: An address cannot be listened on.
    """
    from restbridge.server import Bridge  # noqa: PLC0415 - a supervisor does without

    log.report_exceptions(asyncio.get_running_loop())
    signals = Signals(worker)
    bridge = Bridge(settings, shares_port=worker is not None)
    await bridge.start()
    settle()
    log.event(
        "restbridge",
        "serving",
        address=bridge.address,
        metrics_port=bridge.metrics_port,
        service=settings.service_target,
    )
    if worker is not None:
        worker.serving(bridge.telemetry.registry)
    await signals.drain("restbridge", bridge.stop, bridge.hurry)


class Standalone:
    """A bridge and a service in one process.

    Args:
        environment: The environment, with the settings of both.

    Raises:
        SettingsError: A setting of either is wrong.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        from service.config import load  # noqa: PLC0415 - the bridge is deployed without the service

        values, wrong = process_settings.parse(Settings, environment)
        self.key = environment.get(_KEY) or f"sk-live-{secrets.token_urlsafe(_KEY_BYTES)}"
        self.environment = {**environment, _KEY: self.key}
        self.service: ServiceSettings
        self.catalogue: Catalogue
        try:
            self.service, self.catalogue = load(self.environment, simulates=True)
        except SettingsError as error:
            # A variable of both parts has one line.
            raise SettingsError(*dict.fromkeys((*wrong, *error.lines))) from None
        if wrong:
            raise SettingsError(*wrong)
        self.settings = allow_connections(Settings(**values))
        """The settings of the bridge."""

    async def serve(self, worker: Worker | None = None) -> None:
        """Run both until the first signal, then drain the bridge, then the service.

        Args:
            worker: This process as a worker, or None if it is the only one.

        Raises:
            ListenError: An address cannot be listened on.
        """
        from restbridge.server import Bridge, ListenError  # noqa: PLC0415 - as in `serve`
        from service.reloading import Reloading  # noqa: PLC0415 - as above
        from service.server import Server, StartError  # noqa: PLC0415 - as above

        log.report_exceptions(asyncio.get_running_loop())
        signals = Signals(worker)
        shares = worker is not None
        server = Server(self.service, self.catalogue, shares_ports=shares)
        try:
            await server.start()
        except StartError as error:
            raise ListenError(str(error)) from error
        bridge = Bridge(self.settings, channel=server.channel(), shares_port=shares)

        async def stop(*, delay: float | None) -> None:
            # One delay is enough: both serve during the bridge's.
            await bridge.stop(delay=delay)
            await server.stop(delay=0)

        def hurry() -> None:
            bridge.hurry()
            server.hurry()

        try:
            await bridge.start()
        except ListenError:
            await server.stop(delay=0)
            raise
        settle()
        if worker is None:
            self.tell(self.settings.listen.dialable(bridge.port), server.address)
        log.event(
            "restbridge",
            "serving",
            address=bridge.address,
            metrics_port=bridge.metrics_port,
            service=server.address,
        )
        if worker is not None:
            worker.serving(server.registry, bridge.telemetry.registry)
        reload = Reloading(server, self.service, self.environment)
        await signals.drain("restbridge", stop, hurry, reload)

    def tell(self, rest: Address, grpc: str) -> None:
        """Print what a person needs: the addresses, the models, the key, and a curl command."""
        from service.start_lines import start_lines  # noqa: PLC0415 - as in `__init__`

        lines = {
            "REST": f"http://{rest}/v1",
            "gRPC": grpc,
            "metrics": _metrics(self.settings.metrics_listen, self.service.metrics_listen),
            "upstream": self.catalogue.upstream_description,
            "API key": self.key,
        }
        print("\n".join(f"{name:<9} {value}" for name, value in lines.items()))  # noqa: T201 - asked for
        print("\n".join(f"model {line}" for line in start_lines(self.catalogue)))  # noqa: T201 - asked for
        print(f"\nexport CHAT_KEY={shlex.quote(self.key)}")  # noqa: T201 - asked for
        names = [model.name for model in self.catalogue if not model.is_pattern]
        model = names[0] if names else "MODEL"
        print(_curl(rest, self.key, model=model), flush=True)  # noqa: T201 - asked for


def plan(settings: Settings, environment: Mapping[str, str], standalone: Standalone | None) -> Plan:
    """Return what a supervisor runs."""
    listens = {"CHAT_BRIDGE_LISTEN": settings.listen}
    metrics_listens = {"CHAT_BRIDGE_METRICS_LISTEN": settings.metrics_listen}
    longest_drain = settings.drain_delay + settings.drain_grace
    if standalone is not None:
        environment, service = standalone.environment, standalone.service
        listens["CHAT_LISTEN"] = service.listen
        if service.admin_token:
            listens["CHAT_ADMIN_LISTEN"] = service.admin_listen
        # In the order of the registries of a worker.
        metrics_listens = {"CHAT_METRICS_LISTEN": service.metrics_listen, **metrics_listens}
        longest_drain += service.drain_grace

    def serving(ports: Mapping[str, int]) -> None:
        target = settings.service_target
        if standalone is not None:
            target = str(standalone.service.listen.dialable(ports["CHAT_LISTEN"]))
            standalone.tell(settings.listen.dialable(ports["CHAT_BRIDGE_LISTEN"]), target)
        log.event(
            "restbridge",
            "serving",
            address=str(Address(settings.listen.host, ports["CHAT_BRIDGE_LISTEN"])),
            metrics_port=ports.get("CHAT_BRIDGE_METRICS_LISTEN"),
            service=target,
            workers=settings.workers,
        )

    return Plan(
        logger="restbridge",
        workers=settings.workers,
        environment=environment,
        listens=listens,
        metrics_listens=metrics_listens,
        longest_drain=longest_drain,
        serving=serving,
    )


def _metrics(*listens: Address | None) -> str:
    return ", ".join(f"http://{listen}/metrics" for listen in listens if listen) or "none"


def _curl(rest: Address, key: str, *, model: str) -> str:
    messages = [{"role": "user", "content": "Hello!"}]
    body = json.dumps({"model": model, "messages": messages, "stream": True})
    words = (
        *("curl", "-N", f"http://{rest}/v1/chat/completions"),
        *("-H", f"authorization: Bearer {key}", "-H", "content-type: application/json"),
        *("-d", body),
    )
    return f"\n{shlex.join(words)}\n"


def allow_connections(settings: Settings) -> Settings:
    """Raise the process's limit of descriptors, and return the settings.

    If the system does not allow enough descriptors, the returned settings have fewer connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _FILES_BESIDES
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted:
        return settings
    return replace(settings, max_connections=max(1, soft - _FILES_BESIDES))


def _settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings of a bridge without a service."""
    values, wrong = process_settings.parse(Settings, environment)
    wrong += unknown_variables(environment)
    if wrong:
        raise SettingsError(*wrong)
    return allow_connections(Settings(**values))


def main() -> int:
    """Run the command and return its exit status."""
    return _main(sys.argv[1:], usage_of=f"[{_STANDALONE}] {USAGE}")


def standalone() -> int:
    """Run the command of the bridge and the service in one process; return its exit status."""
    return _main([_STANDALONE, *sys.argv[1:]], usage_of=USAGE)


def _main(arguments: Sequence[str], *, usage_of: str) -> int:
    program = command_line.program("restbridge", sys.argv[0])
    asked = parse(arguments, os.environ, variable="CHAT_BRIDGE_WORKERS")
    others = [other for other in asked.others if other != _STANDALONE]
    is_standalone = len(others) < len(asked.others)
    if len(others) == 1 and others[0] in command_line.HELP:
        print(usage(f"{program} {usage_of}", _tables(is_standalone)))  # noqa: T201 - asked for
        return 0
    if others == [command_line.VERSION]:
        print(command_line.version_line())  # noqa: T201 - asked for
        return 0
    remember_hang_ups()
    worker = Worker.start(asked.position)
    try:
        if others:
            about = (_STANDALONE, *command_line.HELP, command_line.VERSION)
            variables = [row.name for table in _tables(is_standalone) for row in rows(table)]
            known = {**dict.fromkeys(about, ""), **ARGUMENTS}
            error = command_line.unknown(others, known, variables)
            raise SettingsError(f"{program}: {error}")
        both = Standalone(asked.environment) if is_standalone else None
        settings = both.settings if both else _settings(asked.environment)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        return 2
    log.configure(settings.log_level, worker=worker.number if worker else None)
    if worker is None and settings.workers > 1:
        from process.workers.supervisor import supervise  # noqa: PLC0415  - a worker does without

        return supervise(plan(settings, asked.environment, both))
    return _run(partial(both.serve, worker) if both else partial(serve, settings, worker))


def _tables(is_standalone: bool) -> tuple[type[Any], ...]:
    """Return the tables of the settings."""
    if not is_standalone:
        return (Settings,)
    from service.config import Settings as ServiceSettings  # noqa: PLC0415 - as in `Standalone`

    return Settings, ServiceSettings


def _run(serving: Callable[[], Coroutine[Any, Any, None]]) -> int:
    import uvloop  # noqa: PLC0415 - a supervisor does without both

    from restbridge.server import ListenError  # noqa: PLC0415

    try:
        uvloop.run(serving())
    except ListenError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
