"""GET /health, /healthz and /readyz: liveness and readiness of the bridge.

    /health    200 while the process runs
    /healthz   the same
    /readyz    200 while the service is SERVING and the bridge is not draining, otherwise 503

None needs a key, and none calls an upstream.
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
"""The name of the service's readiness in grpc.health.v1."""

_DEADLINE: Final = 1.0
_UNCACHED: Final = (b"cache-control", b"no-store")


async def healthz(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with 200."""
    body = b'{"status":"ok"}'
    await answer(scope, receive, send, status=200, body=body, headers=[_UNCACHED])


class Readyz:
    """GET /readyz, as an ASGI application.

    Args:
        service: The service.
        draining: Returns whether the bridge is draining.
    """

    def __init__(self, service: Service, draining: Callable[[], bool]) -> None:
        self._service = service
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
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
