"""`python -m service`: read the settings, serve until a signal, drain.

    python -m service                 the server
    python -m service --workers N     N servers on the same ports, and their supervisor
    python -m service COMMAND …       a command on its store, from `cli`

The console script chatcompletion-service does the same; chatcompletion-admin has only the commands.
SIGTERM drains as configured. SIGINT skips the drain delay. A second signal of either kind ends the
remaining calls immediately. SIGHUP reads the models file and the certificates again. Until the
process handles signals, SIGINT ends it like a program without a handler (130 in a shell). The exit
status is 0 after a drain, 1 if the service could not start, and 2 if a setting is wrong.
"""

if __name__ == "__main__":
    from process.interrupts import end_at_once

    end_at_once()  # before the other imports, which take most of the start

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from process import command_line, descriptors, log
from process.lifetime import Signals, remember_hang_ups, settle
from process.settings import SettingsError, rows, values_of
from process.tls import plaintext
from process.workers.arguments import ARGUMENTS, parse
from process.workers.plan import Plan
from process.workers.ports import shareable
from process.workers.worker import Worker
from service import cli, cli_arguments, handshake_reports
from service.config import Settings, listeners, listens, load
from service.models import Catalogue
from service.start_error import StartError
from service.start_lines import start_lines


async def serve(
    settings: Settings,
    catalogue: Catalogue,
    environment: Mapping[str, str],
    worker: Worker | None = None,
    *,
    reports_handshakes: bool = False,
) -> None:
    """Run a service until the first signal, then drain it.

    Args:
        settings: The settings.
        catalogue: The models.
        environment: The environment, with the keys of the upstreams.
        worker: This process as a worker, or None if it is the only one.
        reports_handshakes: What `handshake_reports.prepare` returned.

    Raises:
        StartError: An address cannot be listened on.
    """
    from service.reloading import Reloading  # noqa: PLC0415  (as below)
    from service.server import Server  # noqa: PLC0415  (commands do not need the server)

    log.report_exceptions(asyncio.get_running_loop())
    signals = Signals(worker)
    server = Server(settings, catalogue, shares_ports=worker is not None)
    with handshake_reports.reported(reports_handshakes):
        await server.start()
        settle()
        log.event(
            "service",
            "serving",
            address=server.address,
            metrics_port=server.metrics_port,
            upstream=catalogue.upstream_description,
            models=start_lines(catalogue),
        )
        if worker is not None:
            worker.serving(server.registry)
        reload = Reloading(server, settings, environment)
        await signals.drain("service", server.stop, server.hurry, reload)


def plan(settings: Settings, catalogue: Catalogue, environment: Mapping[str, str]) -> Plan:
    """Return what a supervisor runs."""

    def serving(ports: Mapping[str, int]) -> None:
        log.event(
            "service",
            "serving",
            address=str(settings.listen.dialable(ports["CHAT_LISTEN"])),
            metrics_port=ports.get("CHAT_METRICS_LISTEN"),
            upstream=catalogue.upstream_description,
            models=start_lines(catalogue),
            workers=settings.workers,
        )

    return Plan(
        logger="service",
        workers=settings.workers,
        environment=environment,
        listens=shareable(listens(values_of(settings))),
        metrics_listens={"CHAT_METRICS_LISTEN": settings.metrics_listen},
        longest_drain=settings.drain_delay + settings.drain_grace,
        serving=serving,
    )


def main() -> int:
    """Run the command and return its exit status."""
    os.environ.setdefault(*log.SILENT_GRPC)
    program, arguments = command_line.program("service", sys.argv[0]), sys.argv[1:]
    about = {*command_line.HELP, command_line.VERSION}
    if len(arguments) == 1 and about.issuperset(arguments):
        return cli.run(arguments, os.environ, program=program)
    if arguments and not arguments[0].startswith("-"):
        return cli.run(arguments, os.environ, program=program)
    asked = parse(arguments, os.environ, variable="CHAT_WORKERS")
    remember_hang_ups()
    worker = Worker.start(asked.position)
    try:
        if asked.others:
            variables = [row.name for row in rows(Settings)]
            known = {**dict.fromkeys(about, ""), **ARGUMENTS}
            error = command_line.unknown(asked.others, known, variables)
            raise SettingsError(f"{program}: {error}")
        settings, catalogue = load(asked.environment)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  (logging is not configured yet)
        return 2
    log.configure(
        settings.log_level,
        worker=worker.number if worker else None,
        style=settings.log_format,
    )
    if worker is None:
        plaintext.warn("service", listeners(settings))
    if worker is None and settings.workers > 1:
        from process.workers.supervisor import supervise  # noqa: PLC0415  (commands do without the supervisor)

        return supervise(plan(settings, catalogue, asked.environment))
    # Callers with a connection for each call need the most.
    descriptors.allow(settings.upstream_max_connections + settings.max_concurrent_calls)
    reports = handshake_reports.prepare(os.environ, listeners(settings))
    serving = partial(serve, settings, catalogue, asked.environment, worker)
    return _run(partial(serving, reports_handshakes=reports))


def admin() -> int:
    """Run a command without the server and return its exit status."""
    return cli.run(sys.argv[1:], os.environ, program=cli_arguments.ADMIN)


def _run(serving: Callable[[], Coroutine[Any, Any, None]]) -> int:
    import uvloop  # noqa: PLC0415  (commands and supervisors do without both)

    try:
        uvloop.run(serving())
    except StartError as error:
        print(error, file=sys.stderr)  # noqa: T201  (for the operator)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
