"""The operators' listener: AccountService, health and reflection, separate from callers.

    CHAT_ADMIN_LISTEN -> the same interceptors -> AccountServicer -> the same store

It has its own limit of concurrent calls, so that operators get through while callers are rejected
with OVERLOADED.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from chatcompletion.v1 import account_service_pb2
from chatcompletion.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from process.settings import Listen
from service import reflection
from service.accounts.account_servicer import AccountServicer
from service.accounts.directory import Directory
from service.accounts.store_access import Access
from service.call import Calls
from service.credit_worth import CreditWorth
from service.health import NOT_SERVING, SERVING, HealthServicer
from service.interceptors import CONTRACT, CallInterceptor
from service.listener_tls import ListenerTls, bind
from service.listeners import Options, listener, options
from service.probes import ProbeInterceptor
from service.telemetry import Telemetry

SERVICE: Final = account_service_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name

MOST_CALLS: Final = 100
LONGEST_CALL: Final = 30.0
"""Seconds."""

_LONGEST_QUIET: Final = 0.5
_GRACE: Final = 5.0
_LONGEST_ENDING: Final = 1.0


class AdminServer:
    """The operators' listener.

    Args:
        access: Access to the store.
        directory: The accounts and keys in it.
        telemetry: Records every call.
        listen: The address to listen on.
        token: The bearer token of operators: 16 to 256 printable ASCII characters.
        tls: The TLS of the listener; None for plaintext.
        shares_port: Whether the listener shares its port with other workers.
        models: Returns the names and patterns of the models that exist, or None if they are not
            known.
        worth: The worth of a credit, if responses show it.
        time_zone: The time zone of new budgets that name none.
    """

    def __init__(
        self,
        access: Access,
        directory: Directory,
        telemetry: Telemetry,
        *,
        listen: Listen,
        token: str,
        tls: ListenerTls | None = None,
        shares_port: bool = False,
        models: Callable[[], Collection[str] | None] = lambda: None,
        worth: CreditWorth | None = None,
        time_zone: str = "UTC",
    ) -> None:
        self._listen = listen
        self._tls = tls
        self._shares_port = shares_port
        self._servicer = AccountServicer(
            access, directory, token=token, models=models, worth=worth, time_zone=time_zone
        )
        self._calls = Calls(MOST_CALLS)
        self._telemetry = telemetry
        self._health = HealthServicer()
        self._probes = ProbeInterceptor(CONTRACT)
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """The address of the listener; set by `start`."""
        return str(self._listen.bound(self._port))

    async def start(self) -> None:
        """Start listening. The health is SERVING when this returns.

        Raises:
            StartError: The address cannot be listened on.
        """
        interceptor = CallInterceptor(
            self._calls,
            self._telemetry,
            authenticate=self._servicer.authenticate,
            longest=LONGEST_CALL,
            clock=time.monotonic,
        )
        server = listener([self._probes, interceptor], _options(self._shares_port))
        add_AccountServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable(server, SERVICE, health.SERVICE_NAME)
        self._port = bind("CHAT_ADMIN_LISTEN", server, self._listen, self._tls)
        self.set_serving(True)
        await server.start()
        self._server = server

    def set_serving(self, serving: bool) -> None:
        """Set the health to SERVING or, for example while the store is away, NOT_SERVING."""
        self._health.set(SERVING if serving else NOT_SERVING, "", SERVICE)

    async def stop(self) -> None:
        """Stop: accept no new calls, give calls in flight a few seconds, then end them."""
        if self._server is None:
            return
        self.set_serving(False)
        self._calls.close()
        await _within(_LONGEST_QUIET, self._calls.quiet())
        stopping = asyncio.create_task(self._server.stop(_GRACE + _LONGEST_ENDING))
        await asyncio.sleep(0)  # the stop begins: every connection gets its GOAWAY first
        self._calls.refuse()
        await _within(_GRACE, self._calls.idle())
        self._calls.cut()
        await _within(_LONGEST_ENDING, self._calls.settled())
        self._probes.end()
        # Only calls whose callers do not read can be left.
        await self._server.stop(_LONGEST_ENDING)
        await stopping


def _options(shares_port: bool) -> Options:
    return options(
        max_request_bytes=256 * 1024,
        max_response_bytes=8 * 1024 * 1024,
        max_streams=MOST_CALLS,
        shares_port=shares_port,
    )


async def _within(seconds: float, event: Coroutine[None, None, None]) -> None:
    """Wait for an event, up to `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event
