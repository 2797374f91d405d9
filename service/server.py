"""The service as a process: build the parts, start, drain.

start  simulator, if it is an upstream -> gRPC -> metrics -> health SERVING
stop   health NOT_SERVING -> accept calls for the drain delay -> stop accepting
       -> grace for calls in flight -> end the rest with DRAINING -> close the upstream -> flush

gRPC sends GOAWAY, which moves callers to other replicas, only when the server stops. From then on,
it cancels each call that arrives on an open connection. Before the server stops, the service
therefore delays new calls until no more arrive. It also delays the ends of complete calls, because
their callers could call again. After the GOAWAY, these calls end, the new ones with DRAINING, so
that retries use another connection. gRPC still cancels a call that crosses the GOAWAY on the wire.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health, health_pb2_grpc
from prometheus_client import CollectorRegistry

from chatcompletion.v1 import (
    chat_completion_service_pb2,
    chat_completion_service_pb2_grpc,
    credit_service_pb2,
    credit_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from process import metrics
from process.in_process import InProcessChannel
from process.otel_settings import cannot_export
from process.settings import values_of
from process.taken_ports import cannot_listen
from process.tls.credentials import TlsError
from process.tls.files import ServerFiles
from process.tls.watching import TlsReloading, Watched
from process.workers.ports import TakenError, hold_all
from service import load_reports, reflection
from service.accounts.bootstrap_key import KeyFile
from service.accounts.credit_servicer import CreditServicer
from service.accounts.store_access import Access
from service.admin import AdminServer
from service.call import MOST_BYTES, Calls
from service.config import Settings, listens
from service.health import NOT_SERVING, SERVING, HealthServicer
from service.idempotency.completions import LEASE, IdempotentChatCompletions
from service.idempotency.logs import Memory
from service.idempotency.runs import RunParts
from service.idempotency.upkeep import Upkeep
from service.interceptors import CONTRACT, CallInterceptor
from service.ledger.batches import PATIENCE, Batches
from service.ledger.store import TIMEOUTS, Timeouts
from service.listener_tls import ListenerTls, bind
from service.listeners import Options, listener, options
from service.load_reports import Load
from service.models import Catalogue, CurrentModels
from service.open_accounts import OpenAccounts, open_accounts
from service.open_webhooks import open_webhooks
from service.probes import ProbeInterceptor
from service.quotes import Quotes
from service.servicer import ChatCompletionServicer, ModelServicer
from service.simulation import Simulation
from service.start_error import StartError
from service.telemetry import Telemetry
from service.upstream.client import UpstreamClient, transport
from service.upstream.client_limits import UpstreamBounds, UpstreamLimits

if TYPE_CHECKING:  # imported only if spans are exported
    from process.tracing import Tracing

SERVICES: Final = tuple(
    file.services_by_name[name].full_name
    for file, name in (
        (chat_completion_service_pb2.DESCRIPTOR, "ChatCompletionService"),
        (model_service_pb2.DESCRIPTOR, "ModelService"),
        (credit_service_pb2.DESCRIPTOR, "CreditService"),
    )
)
"""The services of the contract, by full name."""

READINESS: Final = ("", *SERVICES)
"""The names of the readiness in grpc.health.v1."""

LIVENESS: Final = "liveness"
"""The name of the liveness in grpc.health.v1."""

_SPARE_STREAMS: Final = 100
_LONGEST_QUIET: Final = 2.0
"""Maximum seconds to wait for a moment without new calls before the listener closes. By then, each
caller who calls without a pause has a call that waits: 200 callers of two replicas took 0.3 to
0.6 s, and up to 3 s on a busy machine."""
_LONGEST_ENDING: Final = PATIENCE + 3.0
"""Maximum seconds for calls that a drain ends to settle and send their status: longer than the wait
for the store plus a write to the journal. A call that gRPC ends earlier gets no status of ours."""
_LONGEST_UNREAD: Final = 1.0
"""Maximum seconds for the statuses of the last calls to be sent."""


class Server:
    """One service.

    Args:
        settings: The settings.
        catalogue: The models.
        timeouts: How long the store waits.
        shares_ports: Whether it shares its ports, which somebody else holds, with other workers.
        key_file: Keeps the bootstrap key if the settings have none; None for no such key.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        timeouts: Timeouts = TIMEOUTS,
        shares_ports: bool = False,
        key_file: KeyFile | None = None,
    ) -> None:
        self._settings = settings
        self._shares_ports = shares_ports
        self._key_file = key_file
        self.bootstrap_key = settings.bootstrap_api_key
        """The bootstrap key, set by `start` if it is kept in a file; "" for none."""
        self._timeouts = timeouts
        self._models = CurrentModels(catalogue)
        self._simulation = Simulation(settings)
        self._telemetry = Telemetry()
        metrics.describe(self._telemetry.registry)
        self._calls = Calls(
            settings.max_concurrent_calls,
            most_bytes=max(MOST_BYTES, settings.max_request_bytes),
        )
        self._health = HealthServicer()
        self._probes = ProbeInterceptor(CONTRACT)
        self._hurry = asyncio.Event()
        self._resources = AsyncExitStack()
        self._grpc: Any = None
        self._upstream: UpstreamClient | None = None
        self._port = 0
        self.metrics_port: int | None = None
        """The port of the metrics, set by `start` unless metrics are off."""
        self._draining = False
        self._admin: AdminServer | None = None
        self._watched: list[Watched] = []

    @property
    def address(self) -> str:
        """The address for clients on this machine; set by `start`."""
        return str(self._settings.listen.dialable(self._port))

    def channel(self) -> InProcessChannel:
        """Return an in-process channel to this service. Call it after `start`."""
        if self._grpc is None:
            raise RuntimeError("the service is not started")
        channel: InProcessChannel = self._grpc.in_process()
        return channel

    @property
    def probes_in_flight(self) -> int:
        """The number of health and reflection calls in flight."""
        return self._probes.running

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics."""
        return self._telemetry.registry

    async def start(self) -> None:
        """Start the service. The health is SERVING when this returns.

        Raises:
            StartError: An address cannot be listened on, or a file cannot be used.
        """
        try:
            await self._start()
        except BaseException:
            await self._resources.aclose()
            raise

    async def _start(self) -> None:
        settings = self._settings
        tracing = self._start_export()
        # Before anything is written, so that a start that fails for a port leaves nothing behind.
        self._resources.push_async_callback(self._simulation.stop)
        held = self._hold_ports()
        self._start_metrics()
        self._models.catalogue = await self._simulation.of(self._models.catalogue)
        try:
            connections = transport(
                max_connections=settings.upstream_max_connections,
                verify=settings.upstream_ca_file or True,
            )
        except ssl.SSLError as error:
            raise StartError("CHAT_UPSTREAM_CA_FILE: holds no certificates in PEM") from error
        upstream = UpstreamClient(
            connections,
            UpstreamLimits(
                connect=settings.connect_timeout,
                first_byte=settings.first_byte_timeout,
                idle=settings.idle_timeout,
                longest_retry_after=settings.longest_retry_after,
                max_response_bytes=settings.max_response_bytes,
                bounds=UpstreamBounds(
                    connections=settings.upstream_max_connections,
                    calls=settings.upstream_max_calls,
                    waiting=settings.upstream_max_waiting,
                    failures=settings.breaker_failures,
                    pause=settings.breaker_pause,
                    key_pause=settings.key_pause,
                ),
            ),
            self._telemetry,
            now=lambda: datetime.now(UTC),
            random=random.random,
        )
        upstream.use(self._models.catalogue.upstreams)
        self._upstream = upstream
        self._resources.push_async_callback(upstream.aclose)
        accounts = await open_accounts(
            settings,
            self._telemetry,
            self._resources,
            timeouts=self._timeouts,
            key_file=self._key_file,
            store_changed=self._store_changed,
        )
        open_webhooks(
            settings, accounts.store, accounts.batches, self._telemetry.webhooks, self._resources
        )
        self.bootstrap_key = accounts.bootstrap_key
        authentication = accounts.authentication
        access = self._open_access(accounts.batches)
        load = None
        if settings.load_reports:
            load = Load(settings.max_concurrent_calls, clock=time.monotonic, cpu=time.process_time)
        interceptor = CallInterceptor(
            self._calls,
            self._telemetry,
            authenticate=authentication.authenticate,
            longest=settings.request_timeout,
            clock=time.monotonic,
            propagators=settings.propagators,
            tracing=tracing,
            load=load,
            shows_upstream=settings.shows_upstream,
        )
        server = listener([self._probes, interceptor], _options(settings, self._shares_ports))
        chat_completion_service_pb2_grpc.add_ChatCompletionServiceServicer_to_server(
            self._completions(accounts, upstream, access), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(authentication, self._models), server
        )
        credit_service_pb2_grpc.add_CreditServiceServicer_to_server(
            CreditServicer(
                authentication.authenticate,
                access,
                accounts.directory,
                worth=settings.credit_worth,
            ),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if load is not None:
            load_reports.serve(server, load)
        reflection.enable(server, *SERVICES, health.SERVICE_NAME)
        held.close()
        self._port = bind("CHAT_LISTEN", server, settings.listen, self._tls_of("tls"))
        await self._start_admin(accounts)
        self._health.set(SERVING, LIVENESS, *READINESS)
        self._run(accounts.housekeeping.run())
        self._run(TlsReloading(self._watched).run())
        await server.start()
        self._grpc = server

    async def stop(self, *, delay: float | None = None) -> None:
        """Drain and stop. Return when all calls have ended.

        Args:
            delay: Seconds during which calls are still accepted; None for the setting.
        """
        if self._grpc is None:
            return
        # 1. Health moves callers to other replicas; calls that still arrive are served.
        self._draining = True
        self._health.set(NOT_SERVING, *READINESS)
        await self._wait(self._settings.drain_delay if delay is None else delay)
        # 2. Accept no new calls; calls in flight have their grace.
        grace = self._settings.drain_grace
        self._calls.close()
        await self._wait(_LONGEST_QUIET, self._calls.quiet())
        stopping = asyncio.create_task(self._grpc.stop(grace + _LONGEST_ENDING))
        await asyncio.sleep(0)  # the stop begins: every connection gets its GOAWAY first
        self._calls.refuse()
        await self._wait(grace, self._calls.idle())
        # 3. End the remaining calls with our own status, and settle them.
        self._calls.cut()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_ENDING):
                await self._calls.settled()
        # Including watchers of the liveness, because the process ends.
        self._probes.end()
        # Only calls whose callers do not read can be left.
        await self._grpc.stop(_LONGEST_UNREAD)
        await stopping
        # 4. Upstream connections, metrics, simulator.
        await self._resources.aclose()

    def hurry(self) -> None:
        """End the delay and the grace of `stop` immediately."""
        self._hurry.set()

    async def _wait(self, seconds: float, event: Any = None) -> None:
        """Wait for `seconds`, or until the event or `hurry`."""
        tasks = [asyncio.ensure_future(self._hurry.wait())]
        if event is not None:
            tasks.append(asyncio.ensure_future(event))
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    @property
    def has_tls(self) -> bool:
        """Whether a listener has TLS."""
        return bool(self._watched)

    async def reload_tls(self) -> None:
        """Read the certificates of the listeners again, and log the result."""
        await TlsReloading(self._watched)()

    async def use(self, catalogue: Catalogue) -> None:
        """Replace the models. Calls in flight end with those that they began with.

        Raises:
            OSError: The simulator, which is a new upstream, cannot start. Nothing has changed.
        """
        self._models.catalogue = await self._simulation.of(catalogue)
        if self._upstream is not None:
            self._upstream.use(self._models.catalogue.upstreams)

    def _hold_ports(self) -> ExitStack:
        """Hold the ports of gRPC until it listens on them itself."""
        held = self._resources.enter_context(ExitStack())
        if not self._shares_ports:
            try:
                hold_all(listens(values_of(self._settings)), held)
            except TakenError as error:
                raise StartError(str(error)) from error
        return held

    def _completions(
        self, accounts: OpenAccounts, upstream: UpstreamClient, access: Access
    ) -> ChatCompletionServicer | IdempotentChatCompletions:
        """Return the servicer of completions, and keep the answers of the store in order."""
        settings = self._settings
        quotes = Quotes(access, accounts.store, worth=settings.credit_worth)
        plain = ChatCompletionServicer(
            accounts.authentication,
            accounts.admission,
            self._models,
            upstream,
            quotes=quotes,
            max_request_bytes=settings.max_request_bytes,
            clock=time.monotonic,
        )
        parts = RunParts(
            authentication=accounts.authentication,
            admission=accounts.admission,
            catalogue=self._models,
            upstream=upstream,
            quotes=quotes,
            batches=accounts.batches,
            answers=accounts.answers,
            calls=self._calls,
            telemetry=self._telemetry,
            memory=Memory(),
            max_request_bytes=settings.max_request_bytes,
            max_answer_bytes=settings.idempotency_max_bytes,
            linger=settings.idempotency_linger,
            longest=settings.request_timeout,
            clock=time.monotonic,
        )
        idempotent = IdempotentChatCompletions(
            plain,
            parts,
            keep=settings.idempotency_seconds,
            most=settings.idempotency_account_bytes,
        )
        upkeep = Upkeep(
            accounts.answers,
            accounts.batches,
            runner=idempotent.runner,
            running=lambda: idempotent.running,
            lease=LEASE,
        )
        self._run(upkeep.run())
        self._resources.push_async_callback(idempotent.close)
        # Answers that were kept before the setting changed are deleted when they expire.
        return idempotent if settings.idempotency_seconds else plain

    def _open_access(self, batches: Batches) -> Access:
        """Open access to the store. Callers and operators have separate ones, with their limits."""
        access = Access(batches)
        self._resources.callback(access.close)
        return access

    async def _start_admin(self, accounts: OpenAccounts) -> None:
        settings = self._settings
        if not settings.admin_token:
            return
        admin = AdminServer(
            self._open_access(accounts.batches),
            accounts.directory,
            self._telemetry,
            listen=settings.admin_listen,
            token=settings.admin_token,
            tls=self._tls_of("admin_tls"),
            shares_port=self._shares_ports,
            models=self._models.names,
            worth=settings.credit_worth,
            time_zone=settings.budget_time_zone,
        )
        await admin.start()
        self._resources.push_async_callback(admin.stop)
        self._admin = admin

    def _tls_of(self, prefix: str) -> ListenerTls | None:
        """Return the TLS of a listener, by the prefix of its settings; None for plaintext."""
        files = ServerFiles.of(values_of(self._settings), prefix)
        if not files.is_on:
            return None
        try:
            tls = ListenerTls(files)
        except TlsError as error:
            raise StartError(str(error)) from error
        self._watched.append(tls.watched)
        return tls

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        """Run some work until the service stops."""
        task = asyncio.create_task(work)

        async def stop() -> None:
            task.cancel()
            await asyncio.wait((task,))

        self._resources.push_async_callback(stop)

    async def _store_changed(self, there: bool) -> None:
        self._telemetry.store_up.set(there)
        if not self._draining:
            self._health.set(SERVING if there else NOT_SERVING, *READINESS)
        if self._admin is not None:
            self._admin.set_serving(there)

    def _start_export(self) -> "Tracing | None":
        """Begin to export spans and metrics, if the settings say so. It ends last."""
        settings = self._settings
        if not (settings.exports_traces or settings.exports_metrics):
            return None
        from process.exporting import start  # noqa: PLC0415  (of an extra)

        try:
            return start(
                settings,
                self._telemetry.registry,
                service="chatcompletion-service",
                resources=self._resources,
            )
        except (ValueError, OSError) as error:
            raise StartError(cannot_export(error)) from error

    def _start_metrics(self) -> None:
        listen = self._settings.metrics_listen
        if listen is None:
            return
        try:
            self.metrics_port, close = metrics.serve(listen, self._telemetry.registry)
        except OSError as error:
            raise StartError(cannot_listen("CHAT_METRICS_LISTEN", listen, error)) from error
        self._resources.push_async_callback(asyncio.to_thread, close)


def _options(settings: Settings, shares_port: bool) -> Options:
    """Return the options of the gRPC server."""
    return (
        *options(
            # The servicer checks the size, for a better error. This limits what gRPC reads.
            max_request_bytes=2 * settings.max_request_bytes,
            max_response_bytes=2 * settings.max_response_bytes,
            # Above the maximum of calls, so that on a single connection a further call is rejected
            # instead of queued at the client, and health checks still work.
            max_streams=2 * settings.max_concurrent_calls + _SPARE_STREAMS,
            shares_port=shares_port,
            keepalive_interval=settings.keepalive_interval,
        ),
        # Clients can ping as often without calls as with them.
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            int(settings.keepalive_minimum * 1000),
        ),
        ("grpc.http2.max_ping_strikes", 3),
        # Closes old connections, so that clients find new replicas. Calls on them can finish.
        ("grpc.max_connection_age_ms", int(settings.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.request_timeout * 1000)),
    )
