"""One bridge, from start to drain.

start   listen -> metrics -> channels -> uvicorn
stop    1 /readyz returns 503; requests are still accepted,        drain_delay
          and each response closes its connection
        2 stop accepting; requests in flight can finish            drain_grace
        3 end the remaining requests, each with an error
        4 close the channels and the metrics
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from process import metrics, unix_sockets
from process.in_process import InProcessChannel
from process.otel_settings import cannot_export
from process.settings import Listen, UnixAddress, values_of
from process.taken_ports import cannot_listen
from process.tls.credentials import TlsError
from process.tls.files import ClientFiles, ServerFiles
from process.tls.watching import TlsReloading, Watched
from process.workers import ports
from restbridge.app import create_app
from restbridge.channel import Service
from restbridge.config import Settings
from restbridge.error_responses import ErrorResponse, of_reason
from restbridge.event_stream import SILENCE
from restbridge.http.edge import Edge
from restbridge.http.handshakes import Tls
from restbridge.http.limits import Limits
from restbridge.http.protocol import BoundedProtocol
from restbridge.telemetry import Telemetry

if TYPE_CHECKING:  # imported only if spans are exported
    from process.tracing import Tracing

CUT_OFF: Final[ErrorResponse] = replace(of_reason("DRAINING"), retryable=False, retry_after_ms=None)
"""The failure of an exchange that a shutdown ends. Not retryable, because it had begun."""

_AFTER_GRACE: Final = 5.0
# Seconds for an ended exchange to send its error before its task is cancelled.

_FLUSH_INTERVAL: Final = 0.02


class ListenError(Exception):
    """The bridge cannot start. The text has the setting, the value or file, and the cause."""


def limits_of(settings: Settings) -> Limits:
    """Return the limits that follow from the settings."""
    return Limits(
        connections=settings.max_connections,
        body_bytes=settings.max_body_bytes,
        bodies_bytes=max(Limits().bodies_bytes, settings.max_body_bytes),
        in_flight=settings.max_concurrency,
        exchange_seconds=settings.timeout + 2 * Limits().body_seconds,
    )


class Bridge:
    """One bridge in this process and event loop.

    Args:
        settings: The settings. Port 0 takes a free port.
        limits: The limits, or None for those of the settings.
        silence: Seconds without an event after which a stream sends a keep-alive comment.
        channel: A channel to a service in this process, or None to dial the configured address.
        shares_port: Whether the listener shares its port with other workers.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        limits: Limits | None = None,
        silence: float = SILENCE,
        channel: InProcessChannel | None = None,
        shares_port: bool = False,
    ) -> None:
        self._channel = channel
        self._shares_port = shares_port
        self._settings = settings
        self._limits = limits or limits_of(settings)
        self._silence = silence
        self.telemetry = Telemetry()
        metrics.describe(self.telemetry.registry)
        self._draining = False
        self._hurry = asyncio.Event()
        self._exit = contextlib.AsyncExitStack()
        self._edge: Edge
        self._server: _Server
        self._serving: asyncio.Task[None]
        self._tls: Tls | None = None
        self._watched: list[Watched] = []
        self.port = 0
        """The port of the listener, set by `start`; 0 for a UNIX domain socket."""
        self.metrics_port: int | None = None
        """The port of the metrics, set by `start` unless metrics are off."""

    @property
    def address(self) -> str:
        """The address of the listener: host:port or unix:PATH."""
        return str(self._settings.listen.bound(self.port))

    @property
    def running(self) -> int:
        """The number of exchanges in progress."""
        return self._edge.running

    async def start(self) -> None:
        """Listen, and return when the bridge accepts requests.

        Raises:
            ListenError: An address is in use or not local, or a file of TLS cannot be used.
        """
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(
                _listener(self._settings.listen, shares=self._shares_port)
            )
            self.port = 0 if listener.family == socket.AF_UNIX else listener.getsockname()[1]
            tracing = self._start_export(stack)
            self._start_metrics(stack)
            service = self._start_service(stack)
            self._start_tls(stack)
            self._edge = create_app(
                self._settings,
                service,
                self.telemetry,
                limits=self._limits,
                draining=lambda: self._draining,
                silence=self._silence,
                tracing=tracing,
            )
            self._server = _Server(self._configuration(), self._tls)
            self._serving = asyncio.create_task(self._server.serve([listener]))
            self._serving.add_done_callback(lambda _: self._server.ready.set())
            await self._server.ready.wait()
            if self._serving.done():
                await self._serving  # raises the cause
            self._exit = stack.pop_all()

    async def stop(self, *, delay: float | None = None, grace: float | None = None) -> None:
        """Drain and close, in the steps of this module's table.

        Args:
            delay: Seconds during which requests are still accepted; None for the setting.
            grace: Seconds in which requests in flight can finish; None for the setting.
        """
        self._draining = True
        for connection in self._server.server_state.connections:
            cast("BoundedProtocol", connection).announce_end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_delay if delay is None else delay):
                await self._hurry.wait()
        grace = self._settings.drain_grace if grace is None else grace
        if self._hurry.is_set():
            grace = 0
        # uvicorn's type is int, but it only passes the value to asyncio, which takes fractions.
        self._server.config.timeout_graceful_shutdown = cast("int", grace + _AFTER_GRACE)
        ending = asyncio.get_running_loop().call_later(grace, self._edge.end_all, CUT_OFF)
        try:
            self._server.should_exit = True
            self._server.leave.set()
            await self._serving
        finally:
            ending.cancel()
            await self._exit.aclose()

    @property
    def has_tls(self) -> bool:
        """Whether the bridge has files of TLS."""
        return bool(self._watched)

    async def reload_tls(self) -> None:
        """Read the files of TLS again, and log the result."""
        await TlsReloading(self._watched)()

    def hurry(self) -> None:
        """End the delay and the grace of `stop` immediately."""
        self._hurry.set()
        self._edge.end_all(CUT_OFF)

    def _configuration(self) -> uvicorn.Config:
        protocol = partial(
            BoundedProtocol,
            limits=self._limits,
            telemetry=self.telemetry,
            closing=lambda: self._server.should_exit,
            draining=lambda: self._draining,
        )
        return uvicorn.Config(
            self._edge,
            http=cast("type[asyncio.Protocol]", protocol),  # uvicorn only calls it
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=cast("int", self._limits.idle_seconds),
        )

    def _start_export(self, stack: contextlib.AsyncExitStack) -> "Tracing | None":
        """Begin to export spans and metrics, if the settings say so."""
        settings = self._settings
        if not (settings.exports_traces or settings.exports_metrics):
            return None
        from process.exporting import start  # noqa: PLC0415 - of an extra

        try:
            return start(
                settings,
                self.telemetry.registry,
                service="chatcompletion-bridge",
                resources=stack,
            )
        except (ValueError, OSError) as error:
            raise ListenError(cannot_export(error)) from error

    def _start_service(self, stack: contextlib.AsyncExitStack) -> Service:
        files = ClientFiles.of(values_of(self._settings), "service_tls")
        watched = None
        if files.is_on and self._channel is None:
            watched = _watched(files)
            self._watched.append(watched)
        service = Service(
            self._settings, self._channel, tls=watched.credentials if watched else None
        )
        if watched is not None:
            watched.changed = service.renew
        stack.push_async_callback(service.close)
        return service

    def _start_tls(self, stack: contextlib.AsyncExitStack) -> None:
        files = ServerFiles.of(values_of(self._settings), "bridge_tls")
        if files.is_on:
            watched = _watched(files)
            self._tls = Tls(
                watched.credentials, self.telemetry, most=self._settings.max_connections
            )
            watched.changed = self._tls.use
            self._watched.append(watched)
        task = asyncio.create_task(TlsReloading(self._watched).run())

        async def stop() -> None:
            task.cancel()
            await asyncio.wait((task,))

        stack.push_async_callback(stop)

    def _start_metrics(self, stack: contextlib.AsyncExitStack) -> None:
        listen = self._settings.metrics_listen
        if listen is None:
            return
        try:
            self.metrics_port, close = metrics.serve(listen, self.telemetry.registry)
        except OSError as error:
            raise _cannot_listen("CHAT_BRIDGE_METRICS_LISTEN", listen, error) from error
        stack.push_async_callback(asyncio.to_thread, close)


class _Server(uvicorn.Server):
    """uvicorn's server without signal handlers. It reports when it is ready."""

    def __init__(self, config: uvicorn.Config, tls: Tls | None) -> None:
        super().__init__(config)
        self._tls = tls
        self.ready = asyncio.Event()
        self.leave = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # As uvicorn does it, which cannot limit the duration of handshakes.
        await self.lifespan.startup()
        protocol = partial(
            cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        tls = {} if self._tls is None else self._tls.options
        create = asyncio.get_running_loop().create_server
        backlog = self.config.backlog
        self.servers = [
            await create(protocol, sock=each, backlog=backlog, **tls) for each in sockets or ()
        ]
        self.started = True
        self.ready.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            # Each tick updates the Date header.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # 1. Stop accepting. With asyncio's own loop, an accepted socket becomes a connection two
        # iterations later; if the listener is closed by then, CPython 3.11 never closes it.
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        # 2. Idle connections close now, the others with their response.
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        # 3. Exchanges in progress can finish; `stop` ends them when the grace is over.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                await self._until_closed()
        # 4. The remaining connections have clients that do not read.
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()
        for task in tuple(self.server_state.tasks):
            task.cancel()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)

    async def _until_closed(self) -> None:
        while self.server_state.tasks:
            await asyncio.wait(tuple(self.server_state.tasks))
        while self.server_state.connections:  # noqa: ASYNC110 - no event signals that all are closed
            await asyncio.sleep(_FLUSH_INTERVAL)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _listener(listen: Listen, *, shares: bool) -> Iterator[socket.socket]:
    if isinstance(listen, UnixAddress):
        with contextlib.ExitStack() as stack:
            try:
                unix = stack.enter_context(unix_sockets.listening(listen))
            except OSError as error:
                raise _cannot_listen("CHAT_BRIDGE_LISTEN", listen, error) from error
            yield unix
        return
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # asyncio disables Nagle's algorithm only if the socket names its protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with contextlib.closing(listener):
        try:
            if shares:
                ports.share(listener)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((listen.host, listen.port))
            listener.listen()
        except OSError as error:
            raise _cannot_listen("CHAT_BRIDGE_LISTEN", listen, error) from error
        yield listener


def _watched(files: ServerFiles | ClientFiles) -> Watched:
    try:
        return Watched(files, logger="restbridge")
    except TlsError as error:
        raise ListenError(str(error)) from error


def _cannot_listen(setting: str, listen: Listen, error: OSError) -> ListenError:
    return ListenError(cannot_listen(setting, listen, error))
