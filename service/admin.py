"""The listener of operators: AccountService, health and reflection, apart from that of callers.

    CHAT_ADMIN_LISTEN ─► the same interceptor ─► AccountServicer ─► the same store

It has calls of its own, so that operators get through when callers are refused for their number.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chatcompletion.process.settings import Address
from chatcompletion.v1 import account_service_pb2
from chatcompletion.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from service.accounts.access import Access
from service.accounts.directory import Directory
from service.accounts.servicer import AccountServicer
from service.call import Calls
from service.interceptors import CallInterceptor
from service.listeners import options
from service.telemetry import Telemetry

SERVICE: Final = account_service_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name

MOST_CALLS: Final = 100
LONGEST_CALL: Final = 30.0
"""Seconds."""

_GRACE: Final = 5.0
_LONGEST_ENDING: Final = 1.0
_OPTIONS: Final = options(
    max_request_bytes=256 * 1024, max_response_bytes=8 * 1024 * 1024, max_streams=MOST_CALLS
)


class AdminServer:
    """One listener for operators.

    Args:
        access: The way to the store.
        directory: What can be asked there.
        telemetry: Told of every call.
        listen: Where it listens, without TLS.
        token: What operators show: 16 to 256 printable ASCII characters.
    """

    def __init__(
        self,
        access: Access,
        directory: Directory,
        telemetry: Telemetry,
        *,
        listen: Address,
        token: str,
    ) -> None:
        self._listen = listen
        self._servicer = AccountServicer(access, directory, token=token)
        self._calls = Calls(MOST_CALLS)
        self._telemetry = telemetry
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`; known after `start`."""
        return str(replace(self._listen, port=self._port))

    async def start(self) -> None:
        """Start; the health is SERVING when this returns.

        Raises:
            OSError: the address cannot be listened on.
        """
        interceptor = CallInterceptor(
            self._calls, self._telemetry, longest=LONGEST_CALL, clock=time.monotonic
        )
        server = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
        add_AccountServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        try:
            self._port = server.add_insecure_port(str(self._listen))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._listen}") from error
        await self.set_serving(True)
        await server.start()
        self._server = server

    async def set_serving(self, serving: bool) -> None:
        """Say whether calls should be sent here, such as while the store is away."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, state)

    async def stop(self) -> None:
        """Stop: no new call, a few seconds for those that run, then their end."""
        if self._server is None:
            return
        await self.set_serving(False)
        stopping = asyncio.create_task(self._server.stop(_GRACE + _LONGEST_ENDING))
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await self._calls.idle()
        self._calls.cut()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_ENDING):
                await self._calls.idle()
        # Watchers of the health are all that may be left; they have been told.
        await self._server.stop(None)
        await stopping
