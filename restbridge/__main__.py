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

Only this file of the bridge imports the service, and only for --standalone. The bridge then calls
the service's handlers without a socket; other clients use the gRPC port.
With workers, each has a bridge and a service.
"""

if __name__ == "__main__":
    from process.interrupts import end_at_once

    end_at_once()  # before the other imports, which take most of the start

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from process import command_line, descriptors, log
from process import settings as process_settings
from process.lifetime import Signals, remember_hang_ups, settle
from process.otel_settings import missing_extra
from process.settings import Listen, SettingsError, rows, usage, values_of
from process.tls import credentials as tls
from process.tls import plaintext
from process.tls.files import ClientFiles, ServerFiles
from process.variables import unknown_variables
from process.workers.arguments import ARGUMENTS, USAGE, parse
from process.workers.plan import Plan, PrepareError
from process.workers.ports import TakenError, hold_all, shareable, unshareable
from process.workers.worker import Worker
from restbridge.config import Settings
from restbridge.start_text import start_text

if TYPE_CHECKING:  # the bridge is deployed without the service
    from service.accounts.bootstrap_key import KeyFile
    from service.models import Catalogue

_STANDALONE: Final = "--standalone"
_KEY: Final = "CHAT_BOOTSTRAP_API_KEY"


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


class Standalone:
    """A bridge and a service in one process.

    Args:
        environment: The environment, with the settings of both.

    Raises:
        SettingsError: A setting of either is wrong.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        from service.config import Settings as ServiceSettings  # noqa: PLC0415 - the bridge is deployed without the service
        from service.config import listens, load  # noqa: PLC0415 - as above

        values, wrong = process_settings.parse(Settings, environment)
        of_service, _ = process_settings.parse(ServiceSettings, environment)
        wrong += unshareable(
            {**_listens(values), **listens(of_service)}, workers=values.get("workers", 1)
        )
        wrong += missing_extra(values)
        wrong += tls.wrong(ServerFiles.of(values, "bridge_tls"))
        self.environment = environment
        self._key = ""
        self.service: ServiceSettings
        self.catalogue: Catalogue
        try:
            self.service, self.catalogue = load(self.environment, simulates=True)
        except SettingsError as error:
            # A variable of both parts has one line.
            raise SettingsError(*dict.fromkeys((*wrong, *error.lines))) from None
        if wrong:
            raise SettingsError(*wrong)
        self.settings = Settings(**values)
        """The settings of the bridge."""

    async def serve(self, worker: Worker | None = None) -> None:
        """Run both until the first signal, then drain the bridge, then the service.

        Args:
            worker: This process as a worker, or None if it is the only one.

        Raises:
            ListenError: An address cannot be listened on.
        """
        from restbridge.server import ListenError  # noqa: PLC0415 - as in `serve`

        log.report_exceptions(asyncio.get_running_loop())
        with ExitStack() as held:
            if worker is None:
                try:
                    self._hold_ports(held)
                except TakenError as error:
                    raise ListenError(str(error)) from error
            await self._serve(worker)

    def _hold_ports(self, held: ExitStack) -> None:
        """Hold all ports before anything is written, as a supervisor does for its workers."""
        shared = self.listens()
        metrics = {
            "CHAT_METRICS_LISTEN": self.service.metrics_listen,
            "CHAT_BRIDGE_METRICS_LISTEN": self.settings.metrics_listen,
        }
        with ExitStack() as until_they_serve:
            used = {name: address for name, address in metrics.items() if address}
            ports = hold_all({**shared, **used}, until_they_serve, held, kept=shared)
        self.settings = replace(self.settings, listen=ports["CHAT_BRIDGE_LISTEN"])
        self.service = replace(self.service, listen=ports["CHAT_LISTEN"])
        if self.service.admin_token:
            self.service = replace(self.service, admin_listen=ports["CHAT_ADMIN_LISTEN"])

    def listens(self) -> dict[str, Listen]:
        """Return the addresses that workers share, by variable."""
        from service.config import listens  # noqa: PLC0415 - as in `__init__`

        return {"CHAT_BRIDGE_LISTEN": self.settings.listen, **listens(values_of(self.service))}

    async def _serve(self, worker: Worker | None) -> None:
        from restbridge.server import Bridge, ListenError  # noqa: PLC0415 - as in `serve`
        from service.reloading import Reloading  # noqa: PLC0415 - as above
        from service.server import Server  # noqa: PLC0415 - as above
        from service.start_error import StartError  # noqa: PLC0415 - as above

        signals = Signals(worker)
        server = Server(
            self.service,
            self.catalogue,
            shares_ports=True,
            key_file=self._key_file() if worker is None else None,
        )
        try:
            await server.start()
        except StartError as error:
            raise ListenError(str(error)) from error
        self._key = server.bootstrap_key
        bridge = Bridge(self.settings, channel=server.channel(), shares_port=True)

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
            self.show(self.settings.listen.dialable(bridge.port), server.address)
        log.event(
            "restbridge",
            "serving",
            address=bridge.address,
            metrics_port=bridge.metrics_port,
            service=server.address,
        )
        if worker is not None:
            worker.serving(server.registry, bridge.telemetry.registry)
        models = Reloading(server, self.service, self.environment)

        async def reload() -> None:
            await bridge.reload_tls()
            await models()

        await signals.drain("restbridge", stop, hurry, reload)

    def _key_file(self) -> "KeyFile":
        from service.accounts.bootstrap_key import KeyFile, path_of  # noqa: PLC0415 - as above

        return KeyFile(path_of(self.service.database_url, self.service.journal_directory))

    def prepare(self) -> Mapping[str, str]:
        """Return the variables that workers get: one key for all.

        Raises:
            PrepareError: The key cannot be kept.
        """
        from service.accounts.bootstrap_key import KeyFileError  # noqa: PLC0415 - as above

        try:
            self._key = self._key_file().use(self.service.bootstrap_api_key)
        except KeyFileError as error:
            raise PrepareError(str(error)) from error
        return {_KEY: self._key}

    def show(self, rest: Listen, grpc: str) -> None:
        """Print what a person needs: the addresses, the models, the key, and a curl command."""
        from service.start_lines import start_lines  # noqa: PLC0415 - as in `__init__`

        kept = "" if self.service.bootstrap_api_key else str(self._key_file().path)
        names = [model.name for model in self.catalogue if not model.is_pattern]
        text = start_text(
            rest,
            grpc=grpc,
            metrics=(self.settings.metrics_listen, self.service.metrics_listen),
            upstream=self.catalogue.upstream_description,
            key=self._key,
            kept_in=kept,
            pages=self.settings.pages,
            models=start_lines(self.catalogue),
            ca=self.settings.bridge_tls_cert_file,
            model=names[0] if names else "MODEL",
        )
        print(text, flush=True)  # noqa: T201 - asked for


def plan(settings: Settings, environment: Mapping[str, str], standalone: Standalone | None) -> Plan:
    """Return what a supervisor runs."""
    listens = _listens({"listen": settings.listen})
    metrics_listens = {"CHAT_BRIDGE_METRICS_LISTEN": settings.metrics_listen}
    longest_drain = settings.drain_delay + settings.drain_grace
    if standalone is not None:
        environment, service = standalone.environment, standalone.service
        listens = standalone.listens()
        # In the order of the registries of a worker.
        metrics_listens = {"CHAT_METRICS_LISTEN": service.metrics_listen, **metrics_listens}
        longest_drain += service.drain_grace

    def serving(ports: Mapping[str, int]) -> None:
        target = settings.service_target
        if standalone is not None:
            target = str(standalone.service.listen.dialable(ports["CHAT_LISTEN"]))
            standalone.show(settings.listen.dialable(ports["CHAT_BRIDGE_LISTEN"]), target)
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
        listens=shareable(listens),
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


def _listens(values: Mapping[str, Any]) -> dict[str, Listen]:
    """Return the addresses that workers of a bridge share, by variable, if they are valid."""
    return {"CHAT_BRIDGE_LISTEN": values["listen"]} if "listen" in values else {}


def _listeners(settings: Settings, both: Standalone | None) -> list[plaintext.Listener]:
    """Return the listeners for clients."""
    has_tls = ServerFiles.of(values_of(settings), "bridge_tls").is_on
    own = plaintext.Listener(
        setting="CHAT_BRIDGE_LISTEN",
        listen=settings.listen,
        certificate="CHAT_BRIDGE_TLS_CERT_FILE",
        has_tls=has_tls,
    )
    if both is None:
        return [own]
    from service.config import listeners  # noqa: PLC0415 - as in `Standalone`

    return [own, *listeners(both.service)]


def _settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings of a bridge without a service."""
    values, wrong = process_settings.parse(Settings, environment)
    wrong += missing_extra(values)
    wrong += unknown_variables(environment)
    wrong += tls.wrong(ServerFiles.of(values, "bridge_tls"), ClientFiles.of(values, "service_tls"))
    wrong += unshareable(_listens(values), workers=values.get("workers", 1))
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
        both = Standalone(asked.environment) if is_standalone else None
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
        plaintext.warn("restbridge", _listeners(settings, both))
    if worker is None and settings.workers > 1:
        from process.workers.supervisor import supervise  # noqa: PLC0415  - a worker does without

        return supervise(plan(settings, asked.environment, both))
    if both is None:
        return _run(partial(serve, allow_connections(settings), worker))
    of_service = both.service.upstream_max_connections + both.service.max_concurrent_calls
    both.settings = allow_connections(settings, others=of_service)
    return _run(partial(both.serve, worker))


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
