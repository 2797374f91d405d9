"""grpc.health.v1: the health of the service.

grpcio's own servicer holds a lock while it writes to a watcher. A watcher that does not read would
block every change of the health, and with it the drain.
"""

import asyncio
from typing import Any, Final, TypeAlias

import grpc
from grpc.aio import ServicerContext
from grpc_health.v1 import health_pb2, health_pb2_grpc

from process.whole_operations import to_its_end

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

# Quoted, because it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"


class HealthServicer(health_pb2_grpc.HealthServicer):
    """The health by name. A name that was never set is NOT_FOUND or SERVICE_UNKNOWN."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}
        self._changed = asyncio.Event()

    def set(self, status: Any, *names: str) -> None:
        """Set the health of some names. A slow watcher receives only the last change."""
        self._states.update(dict.fromkeys(names, status))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(  # noqa: N802  (named by the protocol)
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Return the health of a name."""
        status = self._states.get(request.service)
        if status is None:
            text = "There is no health of this name."
            await to_its_end(context.abort(grpc.StatusCode.NOT_FOUND, text))
        return health_pb2.HealthCheckResponse(status=status)

    async def List(  # noqa: N802  (named by the protocol)
        self, request: Any, context: _Context
    ) -> Any:
        """Return the health of every name."""
        return health_pb2.HealthListResponse(  # type: ignore[attr-defined]  # its stub is older
            statuses={
                name: health_pb2.HealthCheckResponse(status=status)
                for name, status in self._states.items()
            }
        )

    async def Watch(  # noqa: N802  (named by the protocol)
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> None:
        """Send the health of a name, then its changes."""
        last: Any = None
        while True:
            changed = self._changed
            status = self._states.get(request.service, _UNKNOWN)
            if status != last:
                last = status
                response = health_pb2.HealthCheckResponse(status=status)
                await to_its_end(context.write(response))
            else:
                await changed.wait()
