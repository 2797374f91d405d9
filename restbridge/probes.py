"""GET /healthz and GET /readyz: is the bridge up, and is there a service to bridge to.

    /healthz   200 as long as the process answers
    /readyz    200 while the service says SERVING and the bridge does not shut down, otherwise 503

Neither needs a key, and neither costs a completion.
"""

from collections.abc import Callable
from typing import Final

from grpc.aio import AioRpcError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from starlette.types import Receive, Scope, Send

from restbridge.answers import answer
from restbridge.channel import Service
from restbridge.error_responses import RefusedError, of_reason
from restbridge.http.exchange import Departure, exchange_of

SERVICE: Final = "chatcompletion.v1.ChatCompletionService"
"""The name under which the service tells whether it is ready."""

_DEADLINE: Final = 1.0
_UNCACHED: Final = (b"cache-control", b"no-store")


async def healthz(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that the process answers."""
    body = b'{"status":"ok"}'
    await answer(scope, receive, send, status=200, body=body, headers=[_UNCACHED])


class Readyz:
    """Tells whether requests can be answered, as an ASGI application.

    Args:
        service: The service.
        draining: Whether the bridge shuts down.
    """

    def __init__(self, service: Service, draining: Callable[[], bool]) -> None:
        self._service = service
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._draining():
            raise RefusedError(of_reason("DRAINING"))
        with Departure(exchange_of(scope), receive):
            if not await self._serving():
                raise RefusedError(of_reason("SERVICE_UNAVAILABLE"))
        body = b'{"status":"ready"}'
        await answer(scope, receive, send, status=200, body=body, headers=[_UNCACHED])

    async def _serving(self) -> bool:
        request = HealthCheckRequest(service=SERVICE)
        try:
            response = await self._service.stubs().health(request, timeout=_DEADLINE)
        except AioRpcError:
            return False
        return bool(response.status == HealthCheckResponse.SERVING)
