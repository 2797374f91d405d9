"""`python -m restbridge`: read the settings, serve until a signal, drain.

    python -m restbridge               the bridge, which calls a service in another process
    python -m restbridge --standalone  the bridge and the service in one process, for one machine
    … --workers N                      N such processes on the same ports, and their supervisor

The console scripts chatcompletion-bridge and chatcompletion-standalone do the same.

SIGTERM drains as configured. SIGINT skips the drain delay. A second signal of either kind ends the
remaining requests immediately. SIGHUP reads the certificates and, with --standalone, the models
file again. Until the process handles signals, SIGINT ends it like a program without a handler (130
in a shell). The exit status is 0 after a drain, 1 if an address cannot be listened on, and 2 if a
setting is wrong.

With workers, each has a bridge and, with --standalone, a service.
"""

if __name__ == "__main__":
    from process.interrupts import end_at_once

    end_at_once()  # before the other imports, which take most of the start

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from process import command_line, descriptors, log
from process import settings as process_settings
from process.lifetime import Signals, remember_hang_ups, settle
from process.otel_settings import missing_extra
from process.settings import SettingsError, rows, usage, values_of
from process.tls import credentials as tls
from process.tls import plaintext
from process.tls.files import ClientFiles, ServerFiles
from process.variables import unknown_variables
from process.workers.arguments import ARGUMENTS, USAGE, parse
from process.workers.plan import Plan
from process.workers.ports import shareable, unshareable
from process.workers.worker import Worker
from restbridge.config import Settings, listens

if TYPE_CHECKING:  # the bridge is deployed without the service
    from restbridge.standalone import Standalone

_STANDALONE: Final = "--standalone"


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
    await signals.drain(
        "restbridge", bridge.stop, bridge.hurry, bridge.reload_tls if bridge.has_tls else None
    )


def plan(
    settings: Settings, environment: Mapping[str, str], standalone: "Standalone | None"
) -> Plan:
    """Return what a supervisor runs."""
    shared = listens(values_of(settings))
    metrics_listens = {"CHAT_BRIDGE_METRICS_LISTEN": settings.metrics_listen}
    longest_drain = settings.drain_delay + settings.drain_grace
    if standalone is not None:
        environment, service = standalone.environment, standalone.service
        shared = standalone.listens()
        # In the order of the registries of a worker.
        metrics_listens = {"CHAT_METRICS_LISTEN": service.metrics_listen, **metrics_listens}
        longest_drain += service.drain_grace

    def serving(ports: Mapping[str, int]) -> None:
        target = settings.service_target
        if standalone is not None:
            target = str(standalone.service.listen.dialable(ports["CHAT_LISTEN"]))
            standalone.show(settings.listen.dialable(ports["CHAT_BRIDGE_LISTEN"]), target, ports)
        log.event(
            "restbridge",
            "serving",
            address=str(settings.listen.bound(ports["CHAT_BRIDGE_LISTEN"])),
            metrics_port=ports.get("CHAT_BRIDGE_METRICS_LISTEN"),
            service=target,
            workers=settings.workers,
        )

    return Plan(
        logger="restbridge",
        workers=settings.workers,
        environment=environment,
        listens=shareable(shared),
        metrics_listens=metrics_listens,
        longest_drain=longest_drain,
        prepare=standalone.prepare if standalone is not None else dict,
        serving=serving,
    )


def allow_connections(settings: Settings, *, others: int = 0) -> Settings:
    """Raise the process's limit of descriptors, and return the settings.

    If the system does not allow enough descriptors, the returned settings have fewer connections.

    Args:
        settings: The settings.
        others: The number of other connections that the process can have.
    """
    allowed = descriptors.allow(settings.max_connections + others) - others
    return replace(settings, max_connections=max(1, min(allowed, settings.max_connections)))


def _listener(settings: Settings) -> plaintext.Listener:
    """Return the listener for clients."""
    return plaintext.Listener(
        setting="CHAT_BRIDGE_LISTEN",
        listen=settings.listen,
        certificate="CHAT_BRIDGE_TLS_CERT_FILE",
        has_tls=ServerFiles.of(values_of(settings), "bridge_tls").is_on,
    )


def _settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings of a bridge without a service."""
    values, wrong = process_settings.parse(Settings, environment)
    wrong += missing_extra(values)
    wrong += unknown_variables(environment)
    wrong += tls.wrong(ServerFiles.of(values, "bridge_tls"), ClientFiles.of(values, "service_tls"))
    wrong += unshareable(listens(values), workers=values.get("workers", 1))
    if wrong:
        raise SettingsError(*wrong)
    return Settings(**values)


def main() -> int:
    """Run the command and return its exit status."""
    return _main(sys.argv[1:], usage_of=f"[{_STANDALONE}] {USAGE}")


def standalone() -> int:
    """Run the command of the bridge and the service in one process; return its exit status."""
    return _main([_STANDALONE, *sys.argv[1:]], usage_of=USAGE)


def _main(arguments: Sequence[str], *, usage_of: str) -> int:
    os.environ.setdefault(*log.SILENT_GRPC)
    program = command_line.program("restbridge", sys.argv[0])
    asked = parse(arguments, os.environ, variable="CHAT_BRIDGE_WORKERS")
    others = [other for other in asked.others if other != _STANDALONE]
    is_standalone = len(others) < len(asked.others)
    if len(others) == 1 and others[0] in command_line.HELP:
        command_line.show(f"{usage(f'{program} {usage_of}', _tables(is_standalone))}\n")
        return 0
    if others == [command_line.VERSION]:
        command_line.show(f"{command_line.version_line()}\n")
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
        both = _standalone(asked.environment) if is_standalone else None
        settings = both.settings if both else _settings(asked.environment)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        return 2
    log.configure(
        settings.log_level,
        worker=worker.number if worker else None,
        style=settings.log_format,
    )
    if worker is None:
        others_listen = both.listeners() if both else []
        plaintext.warn("restbridge", [_listener(settings), *others_listen])
    if worker is None and settings.workers > 1:
        from process.workers.supervisor import supervise  # noqa: PLC0415  - a worker does without

        return supervise(plan(settings, asked.environment, both))
    if both is None:
        return _run(partial(serve, allow_connections(settings), worker))
    of_service = both.service.upstream_max_connections + both.service.max_concurrent_calls
    both.settings = allow_connections(settings, others=of_service)
    both.report_handshakes(os.environ)
    return _run(partial(both.serve, worker))


def _tables(is_standalone: bool) -> tuple[type[Any], ...]:
    """Return the tables of the settings."""
    if not is_standalone:
        return (Settings,)
    from restbridge.standalone import TABLES  # noqa: PLC0415 - the bridge is deployed without the service

    return TABLES


def _standalone(environment: Mapping[str, str]) -> "Standalone":
    from restbridge.standalone import Standalone  # noqa: PLC0415 - as above

    return Standalone(environment)


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
