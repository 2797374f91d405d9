"""The routes, and the layers around them.

    Edge -> [Cors] -> Failures -> Routes -> Resource -> chat_completions, models, probes
    id, log           errors      404       405

    POST  /v1/chat/completions
    POST  /v1/chat/completions/quote    not in OpenAI's API
    GET   /v1/models
    GET   /v1/models/{model}
    GET   /v1/credits            not in OpenAI's API
    GET   /health, /healthz
    GET   /readyz
    GET   /, /docs, /playground, /openapi.json, /pages/{file}    if the pages are on

Every other path is 404, including these with a trailing slash; there are no redirects. The message
names the right URL. Query strings and Accept are ignored, as OpenAI ignores them. Starlette's own
error responses are not JSON, so they are not used.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from restbridge.channel import Service
from restbridge.chat_completions import ChatCompletions
from restbridge.clock import Clock, LoopClock
from restbridge.config import Settings
from restbridge.credits import Credits
from restbridge.error_middleware import Failures
from restbridge.error_responses import RefusedError, of_reason
from restbridge.event_stream import SILENCE
from restbridge.headers import EXPOSED
from restbridge.http.edge import Edge
from restbridge.http.exchange import exchange_of
from restbridge.http.limits import Bodies, InFlight, Limits
from restbridge.model_routes import ModelListRoute, ModelRoute, unknown_url
from restbridge.pages import ASSETS, PATHS, pages
from restbridge.probes import Readyz, healthz
from restbridge.quote_route import QuoteRoute
from restbridge.telemetry import Telemetry

if TYPE_CHECKING:  # imported only if spans are exported
    from process.tracing import Tracing

GET: Final = ("GET", "HEAD")
POST: Final = ("POST",)

METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/chat/completions": POST,
    "/v1/chat/completions/quote": POST,
    "/v1/models": GET,
    "/v1/models/{model}": GET,
    "/v1/credits": GET,
    "/health": GET,
    "/healthz": GET,
    "/readyz": GET,
}
"""The methods of each route of the API. Every route of this table is in the OpenAPI document."""


class Resource:
    """Rejects requests with other methods with 405.

    Args:
        app: The application.
        methods: The methods that the application handles.
    """

    def __init__(self, app: ASGIApp, methods: tuple[str, ...]) -> None:
        self._app = app
        self._methods = methods

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the application's coroutine, or raise `RefusedError`."""
        if scope["method"] not in self._methods:
            path = exchange_of(scope).route
            message = f"Method {scope['method']} is not allowed for {path}; use {self._methods[0]}."
            allow = ", ".join(self._methods)
            raise RefusedError(of_reason("METHOD_NOT_ALLOWED", message=message, allow=allow))
        return self._app(scope, receive, send)


class Cors(CORSMiddleware):
    """Starlette's CORS, with an OpenAI error object for a preflight that is not allowed."""

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
    """Runs the application for the path of each request.

    Args:
        exact: The applications by path.
        below: For each prefix of paths, the name of the route and its application.
    """

    def __init__(
        self, exact: Mapping[str, ASGIApp], below: Mapping[str, tuple[str, ASGIApp]]
    ) -> None:
        self._exact = {path: (path, app) for path, app in exact.items()}
        self._below = below

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the application's coroutine, or raise `RefusedError`."""
        found = self._exact.get(scope["path"]) or self._found_below(scope["path"])
        if found is None:
            raise RefusedError(unknown_url(scope))
        route, app = found
        exchange_of(scope).route = route
        return app(scope, receive, send)

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
    tracing: "Tracing | None" = None,
) -> Edge:
    """Build the application.

    Args:
        settings: The settings.
        service: The service to call.
        telemetry: Records every exchange.
        limits: The limits on requests.
        draining: Returns whether the bridge is shutting down.
        silence: Seconds without an event after which a stream sends a keep-alive comment.
        clock: The clock, or None for the event loop's.
        tracing: Creates spans; None if none are exported.
    """
    clock = clock or LoopClock()
    api = InFlight(limits.in_flight)
    bodies = Bodies(limits)
    completions = ChatCompletions(service, bodies, telemetry, clock, silence=silence)

    apps: dict[str, ASGIApp] = {
        "/v1/chat/completions": api.wrap(completions),
        "/v1/chat/completions/quote": api.wrap(QuoteRoute(service, bodies)),
        "/v1/models": api.wrap(ModelListRoute(service)),
        "/v1/models/{model}": api.wrap(ModelRoute(service)),
        "/v1/credits": api.wrap(Credits(service)),
        "/health": healthz,
        "/healthz": healthz,
        "/readyz": Readyz(service, draining),
    }
    exact: dict[str, ASGIApp] = {
        route: Resource(apps[route], methods) for route, methods in METHODS.items()
    }
    model = "/v1/models/{model}"
    below = {"/v1/models/": (model, exact.pop(model))}
    if settings.pages:
        exact |= dict.fromkeys(PATHS, Resource(pages, GET))
        below[ASSETS] = (f"{ASSETS}{{file}}", Resource(pages, GET))
    app: ASGIApp = Failures(Routes(exact, below))
    if settings.cors_origins:
        app = Cors(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    return Edge(app, telemetry, clock, propagators=settings.propagators, tracing=tracing)
