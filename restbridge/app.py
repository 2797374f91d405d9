"""The routes, and the layers around them.

    Edge ► [Cors] ► Failures ► Routes ► Resource ► chat_completions, models, probes
    id, log         answers    404      405

    POST  /v1/chat/completions
    GET   /v1/models
    GET   /v1/models/{model}
    GET   /v1/credits            not of OpenAI's API
    GET   /healthz
    GET   /readyz

Everything else is 404, also with a trailing slash: nothing is redirected. Query strings and Accept
are ignored, as OpenAI does. Starlette's own error answers are not JSON and never used.
"""

from collections.abc import Callable, Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from restbridge.channel import Service
from restbridge.chat_completions import ChatCompletions
from restbridge.clock import Clock, LoopClock
from restbridge.config import Settings
from restbridge.credits import Credits
from restbridge.error_responses import RefusedError, of_reason
from restbridge.event_stream import SILENCE
from restbridge.failures import Failures
from restbridge.headers import EXPOSED
from restbridge.http.edge import Edge
from restbridge.http.exchange import exchange_of
from restbridge.http.limits import Bodies, InFlight, Limits
from restbridge.model_routes import ModelListRoute, ModelRoute
from restbridge.probes import Readyz, healthz
from restbridge.telemetry import Telemetry

GET: Final = ("GET", "HEAD")
POST: Final = ("POST",)


class Resource:
    """An ASGI application that has some methods only.

    Args:
        app: The application.
        methods: The methods.
    """

    def __init__(self, app: ASGIApp, methods: tuple[str, ...]) -> None:
        self._app = app
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or raise `RefusedError`."""
        if scope["method"] not in self._methods:
            raise RefusedError(of_reason("METHOD_NOT_ALLOWED", allow=", ".join(self._methods)))
        await self._app(scope, receive, send)


class Cors(CORSMiddleware):
    """Starlette's CORS; a preflight that is not allowed is told in OpenAI's shape too."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        failure = of_reason("CORS_NOT_ALLOWED")
        told = {
            name: value
            for name, value in response.headers.items()
            if not name.startswith("content-")
        }
        return Response(failure.body(), failure.status, told, "application/json")


class Routes:
    """Gives each request to the application of its path.

    Args:
        exact: The applications, by path.
        below: Those of every path that begins in a way, by that and then the name of the route.
    """

    def __init__(
        self, exact: Mapping[str, ASGIApp], below: Mapping[str, tuple[str, ASGIApp]]
    ) -> None:
        self._exact = {path: (path, app) for path, app in exact.items()}
        self._below = below

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or raise `RefusedError`."""
        found = self._exact.get(scope["path"]) or self._found_below(scope["path"])
        if found is None:
            raise RefusedError(of_reason("UNKNOWN_URL"))
        route, app = found
        exchange_of(scope).route = route
        await app(scope, receive, send)

    def _found_below(self, path: str) -> tuple[str, ASGIApp] | None:
        for prefix, found in self._below.items():
            if path.startswith(prefix):
                return found
        return None


def create_app(
    settings: Settings,
    service: Service,
    telemetry: Telemetry,
    *,
    limits: Limits,
    draining: Callable[[], bool],
    silence: float = SILENCE,
    clock: Clock | None = None,
) -> Edge:
    """Build the application.

    Args:
        settings: The settings.
        service: The service that it bridges to.
        telemetry: Told of every exchange.
        limits: The limits on requests.
        draining: Whether the bridge shuts down.
        silence: Seconds without an event after which a stream says that it is alive.
        clock: The time; the event loop's where it is None.
    """
    clock = clock or LoopClock()
    api = InFlight(limits.in_flight)
    completions = ChatCompletions(service, Bodies(limits), telemetry, clock, silence=silence)

    routes = Routes(
        {
            "/v1/chat/completions": Resource(api.wrap(completions), POST),
            "/v1/models": Resource(api.wrap(ModelListRoute(service)), GET),
            "/v1/credits": Resource(api.wrap(Credits(service)), GET),
            "/healthz": Resource(healthz, GET),
            "/readyz": Resource(Readyz(service, draining), GET),
        },
        {"/v1/models/": ("/v1/models/{model}", Resource(api.wrap(ModelRoute(service)), GET))},
    )
    app: ASGIApp = Failures(routes)
    if settings.cors_origins:
        app = Cors(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    return Edge(app, telemetry, clock)
