"""The failures that an SDK can receive before the first chunk: their cause and their form.

    CASES -> door: the bridge for the request, and its service and upstream
          -> request
          -> raises, status, type, code, param, retried: the expected result, in every language

Reasons of accounts are not here, because the key of these tests has credit and no limits; the tests
of charging have them. Neither is INTERNAL, which would be a defect.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx

from restbridge.server import Bridge
from service.models import Catalogue
from service.models_document import catalogue
from service.simulator import SimulatorServer
from tests.support import running_service
from tests.support.grpc_client import KEY
from tests.support.running_bridge import PATH, Via, bridge
from tests.support.running_service import UPSTREAM_KEY, Running
from tests.support.stack import HELLO, arrived
from tests.support.waiting import PATIENCE

Door = Literal["usual", "hasty", "impatient", "full", "busy", "alone"]
"""A bridge: to a service with small limits; to a service with short timeouts; with a short
deadline; with its maximum of requests; to a service with its maximum of calls; without a
service."""

DOORS: Final[tuple[Door, ...]] = ("usual", "hasty", "impatient", "full", "busy", "alone")

_UNREACHABLE: Final = "unreachable"
_HELD: Final = "sim-fault:hang-before-headers"
_LARGEST_AT_BRIDGE: Final = 256 * 1024
_LARGEST_AT_SERVICE: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A request that fails."""

    name: str
    status: int
    type: str
    code: str
    raises: str
    """The SDK's exception class; "" for its base class, if it has none for the status."""
    param: str | None = None
    retried: bool = False
    """Whether the SDKs retry it, up to their maximum of retries."""
    door: Door = "usual"
    request: Mapping[str, Any] = field(default_factory=dict)
    """The members of the request."""
    vendor: Mapping[str, Any] = field(default_factory=dict)
    """Members that the SDK has no parameters for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str = KEY

    @property
    def members(self) -> dict[str, Any]:
        """Return the members with SDK parameters, including a model and messages."""
        return {"model": "default", "messages": HELLO, **self.request}


def _callers(name: str, code: str, **more: Any) -> Case:
    """Return the case of an invalid request."""
    usual = {"status": 422, "raises": "UnprocessableEntityError", "type": "invalid_request_error"}
    return Case(name=name, code=code, **{**usual, **more})


def _upstreams(fault: str, code: str, **more: Any) -> Case:
    """Return the case of an upstream's fault."""
    usual = {"status": 502, "raises": "InternalServerError", "type": "server_error"}
    usual |= {"request": {"model": f"sim-fault:{fault}"}}
    return Case(name=f"upstream {fault}", code=code, **{**usual, **more})


def _busy(door: Door, code: str) -> Case:
    """Return the case of an unavailable server."""
    return Case(
        name=f"{door} {code}",
        door=door,
        status=503,
        type="service_unavailable_error",
        code=code,
        raises="InternalServerError",
        retried=True,
    )


def _nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels - 1):
        inner = [inner]
    return inner


def _said(size: int) -> Mapping[str, Any]:
    return {"messages": [{"role": "user", "content": "x" * size}]}


CASES: Final[tuple[Case, ...]] = (
    # ------------------------------------------------------------------- of the request itself
    _callers("wrong key", "invalid_api_key", status=401, raises="AuthenticationError", key="sk-1"),
    _callers(
        "too deep",
        "invalid_json",
        status=400,
        raises="BadRequestError",
        vendor={"deep": _nested(200)},
    ),
    _callers(
        "unknown model",
        "model_not_found",
        status=404,
        raises="NotFoundError",
        request={"model": "no-such-model"},
        param="model",
    ),
    _callers(
        "too large for the bridge",
        "request_too_large",
        status=413,
        raises="",
        request=_said(_LARGEST_AT_BRIDGE),
    ),
    _callers(
        "too large for the service",
        "request_too_large",
        status=413,
        raises="",
        request=_said(_LARGEST_AT_SERVICE),
    ),
    _callers(
        "content type",
        "unsupported_media_type",
        status=415,
        raises="",
        headers={"content-type": "text/plain"},
    ),
    _callers(
        "out of range",
        "number_out_of_range",
        request={"temperature": 2.5},
        param="temperature",
    ),
    _callers(
        "more than the model's maximum",
        "number_out_of_range",
        request={"max_completion_tokens": 1_000_001},
        param="max_completion_tokens",
    ),
    _callers("wrong type", "invalid_type", request={"n": "two"}, param="n"),
    _callers("no messages", "empty_array", request={"messages": []}, param="messages"),
    _callers(
        "no role",
        "missing_required_parameter",
        request={"messages": [{"content": "Hello"}]},
        param="messages[0].role",
    ),
    _callers(
        "too many stops", "too_long", request={"stop": ["a", "b", "c", "d", "e"]}, param="stop"
    ),
    _callers(
        "contradictory", "invalid_value", request={"tool_choice": "required"}, param="tool_choice"
    ),
    # ------------------------------------------------------------------------- of the upstream
    _upstreams(
        "400",
        "invalid_value",
        status=400,
        type="invalid_request_error",
        raises="BadRequestError",
        param="temperature",
    ),
    _upstreams(
        "422",
        "string_type",
        status=422,
        type="invalid_request_error",
        raises="UnprocessableEntityError",
        param="messages[0].content",
    ),
    _upstreams("404", "upstream_error"),
    _upstreams(
        "429-retry-after=0.05",
        "upstream_rate_limited",
        status=429,
        type="rate_limit_error",
        raises="RateLimitError",
        retried=True,
    ),
    _upstreams(_UNREACHABLE, "upstream_unavailable", request={"model": _UNREACHABLE}, retried=True),
    _upstreams("500", "upstream_error"),
    _upstreams("503", "upstream_unavailable", retried=True),
    _upstreams("reset-before-headers", "upstream_error"),
    _upstreams("hang-before-headers", "upstream_timeout", door="hasty"),
    _upstreams("200-html", "upstream_invalid_response"),
    _upstreams("401", "upstream_account"),
    _upstreams("402", "upstream_account"),
    _upstreams("403", "upstream_account"),
    _upstreams("429-quota", "upstream_account"),
    # ----------------------------------------------------------------------- of the machinery
    _busy("full", "overloaded"),
    _busy("busy", "overloaded"),
    _busy("alone", "service_unavailable"),
    Case(
        name="deadline",
        door="impatient",
        status=504,
        type="server_error",
        code="deadline_exceeded",
        raises="InternalServerError",
        request={"model": _HELD},
    ),
)
"""Every failure that both SDKs report in the same way, unary and streamed."""

_MODELS: Final = tuple({"default", _HELD, *(case.members["model"] for case in CASES)})


@asynccontextmanager
async def door(kind: Door, via: Via) -> AsyncIterator[Bridge]:
    """Run the bridge of a door, with its service and upstream."""
    async with running_service.simulator() as upstream:
        if kind == "alone":
            with _closed_port() as address:
                async with bridge(address) as found:
                    yield found
        elif kind == "hasty":
            async with (
                _service(upstream, first_byte_timeout=0.1, request_timeout=2.0) as serving,
                bridge(serving, via=via) as found,
            ):
                yield found
        elif kind == "impatient":
            async with (
                _service(upstream) as serving,
                bridge(serving, via=via, timeout=0.3) as found,
            ):
                yield found
        elif kind == "full":
            async with (
                _service(upstream) as serving,
                bridge(serving, via=via, max_concurrency=1) as found,
                _held(found, upstream),
            ):
                yield found
        elif kind == "busy":
            async with (
                _service(upstream, max_concurrent_calls=1) as serving,
                bridge(serving, via=via) as other,
                _held(other, upstream),
                bridge(serving, via=via) as found,
            ):
                yield found
        else:
            async with (
                _service(
                    upstream,
                    longest_retry_after=0,
                    max_request_bytes=_LARGEST_AT_SERVICE,
                ) as serving,
                bridge(serving, via=via, max_body_bytes=_LARGEST_AT_BRIDGE) as found,
            ):
                yield found


@asynccontextmanager
async def _service(upstream: SimulatorServer, **changes: Any) -> AsyncIterator[Running]:
    with _closed_port() as address:
        async with running_service.service(_models(upstream, address), **changes) as serving:
            yield serving


def _models(upstream: SimulatorServer, unreachable: str) -> Catalogue:
    def entry(name: str) -> Mapping[str, Any]:
        return {
            "upstream": "nowhere" if name == _UNREACHABLE else "simulator",
            "upstream_model": name,
            "default_output_tokens": 1024,
            "maximum_output_tokens": 1_000_000,
        }

    key = {"api_key_variable": "KEY"}
    return catalogue(
        {
            "upstreams": {
                "simulator": {"base_url": upstream.base_url, **key},
                "nowhere": {"base_url": f"http://{unreachable}", **key},
            },
            "models": {name: entry(name) for name in _MODELS if name != "no-such-model"},
        },
        {"KEY": UPSTREAM_KEY},
    )


@contextmanager
def _closed_port() -> Iterator[str]:
    """Yield an address that refuses connections: its port is bound, but not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*holder.getsockname())


@asynccontextmanager
async def _held(at: Bridge, upstream: SimulatorServer) -> AsyncIterator[None]:
    """Keep one request in progress."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        request = asyncio.create_task(
            client.post(
                f"http://{at.address}{PATH}",
                json={"model": _HELD, "messages": HELLO},
                headers={"authorization": f"Bearer {KEY}"},
            )
        )
        try:
            record = await arrived(upstream)
            yield
            assert record.outcome is None
        finally:
            request.cancel()
            await asyncio.wait((request,))


def by_door(cases: Sequence[Case]) -> Mapping[Door, Sequence[Case]]:
    """Return the cases by door."""
    return {kind: [case for case in cases if case.door == kind] for kind in DOORS}
