"""The bridge and the service in one process, for one machine.

The bridge calls the service's handlers without a socket; other clients use the gRPC port. Only this
file of the bridge imports the service, and only `--standalone` imports this file.
"""

import asyncio
from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from process import log
from process import settings as process_settings
from process.lifetime import Signals, settle
from process.otel_settings import missing_extra
from process.settings import Listen, SettingsError, values_of
from process.tls import credentials as tls
from process.tls import plaintext
from process.tls.files import ServerFiles
from process.workers.plan import PrepareError
from process.workers.ports import TakenError, hold_all, unshareable
from process.workers.worker import Worker
from restbridge.config import Settings, listens
from restbridge.start_text import start_text
from service import handshake_reports
from service.accounts.bootstrap_key import KeyFile, KeyFileError, path_of
from service.config import Settings as ServiceSettings
from service.config import listeners as service_listeners
from service.config import listens as service_listens
from service.config import load
from service.start_lines import start_lines

_KEY: Final = "CHAT_BOOTSTRAP_API_KEY"
_METRICS: Final = "CHAT_METRICS_LISTEN"
_BRIDGE_METRICS: Final = "CHAT_BRIDGE_METRICS_LISTEN"

TABLES: Final[tuple[type[Any], ...]] = (Settings, ServiceSettings)
"""The tables of the settings of both."""


class Standalone:
    """A bridge and a service in one process.

    Args:
        environment: The environment, with the settings of both.

    Raises:
        SettingsError: A setting of either is wrong.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        values, wrong = process_settings.parse(Settings, environment)
        of_service, _ = process_settings.parse(ServiceSettings, environment)
        wrong += unshareable(
            {**listens(values), **service_listens(of_service)}, workers=values.get("workers", 1)
        )
        wrong += missing_extra(values)
        wrong += tls.wrong(ServerFiles.of(values, "bridge_tls"))
        self.environment = environment
        self._key = ""
        self._reports_handshakes = False
        try:
            self.service, self.catalogue = load(self.environment, simulates=True)
        except SettingsError as error:
            # A variable of both parts has one line.
            raise SettingsError(*dict.fromkeys((*wrong, *error.lines))) from None
        if wrong:
            raise SettingsError(*wrong)
        self.settings = Settings(**values)
        """The settings of the bridge."""

    def report_handshakes(self, environment: MutableMapping[str, str]) -> None:
        """Have `serve` log failed TLS handshakes of gRPC. Call it before anything imports grpc.

        Args:
            environment: The environment of the process.
        """
        self._reports_handshakes = handshake_reports.prepare(environment, self.listeners())

    async def serve(self, worker: Worker | None = None) -> None:
        """Run both until the first signal, then drain the bridge, then the service.

        Args:
            worker: This process as a worker, or None if it is the only one.

        Raises:
            ListenError: An address cannot be listened on.
        """
        from restbridge.server import ListenError  # noqa: PLC0415 - a supervisor does without

        log.report_exceptions(asyncio.get_running_loop())
        with ExitStack() as held:
            if worker is None:
                try:
                    self._hold_ports(held)
                except TakenError as error:
                    raise ListenError(str(error)) from error
            with handshake_reports.reported(self._reports_handshakes):
                await self._serve(worker)

    def _hold_ports(self, held: ExitStack) -> None:
        """Hold all ports before anything is written, as a supervisor does for its workers."""
        shared = self.listens()
        metrics = {
            _METRICS: self.service.metrics_listen,
            _BRIDGE_METRICS: self.settings.metrics_listen,
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
        return {**listens(values_of(self.settings)), **service_listens(values_of(self.service))}

    def listeners(self) -> list[plaintext.Listener]:
        """Return the service's listeners for clients."""
        return service_listeners(self.service)

    async def _serve(self, worker: Worker | None) -> None:
        from restbridge.server import Bridge, ListenError  # noqa: PLC0415 - as above
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
            ports = {_METRICS: server.metrics_port, _BRIDGE_METRICS: bridge.metrics_port}
            self.show(self.settings.listen.dialable(bridge.port), server.address, ports)
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

    def _key_file(self) -> KeyFile:
        return KeyFile(path_of(self.service.database_url, self.service.journal_directory))

    def prepare(self) -> Mapping[str, str]:
        """Return the variables that workers get: one key for all.

        Raises:
            PrepareError: The key cannot be kept.
        """
        try:
            self._key = self._key_file().use(self.service.bootstrap_api_key)
        except KeyFileError as error:
            raise PrepareError(str(error)) from error
        return {_KEY: self._key}

    def show(self, rest: Listen, grpc: str, ports: Mapping[str, int | None]) -> None:
        """Print what a person needs: the addresses, the models, the key, and a curl command.

        Args:
            rest: The address of the HTTP listener, for clients on this machine.
            grpc: The address of the gRPC listener.
            ports: The ports of the metrics, by variable.
        """
        kept = "" if self.service.bootstrap_api_key else str(self._key_file().path)
        names = [model.name for model in self.catalogue if not model.is_pattern]
        text = start_text(
            rest,
            grpc=grpc,
            metrics=[
                listen.bound(ports.get(name) or 0)
                for name, listen in (
                    (_BRIDGE_METRICS, self.settings.metrics_listen),
                    (_METRICS, self.service.metrics_listen),
                )
                if listen
            ],
            upstream=self.catalogue.upstream_description,
            key=self._key,
            kept_in=kept,
            pages=self.settings.pages,
            models=start_lines(self.catalogue),
            ca=self.settings.bridge_tls_cert_file,
            model=names[0] if names else "MODEL",
        )
        print(text, flush=True)  # noqa: T201 - asked for
