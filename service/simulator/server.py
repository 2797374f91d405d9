"""The simulator as a server.

connection -> respond: key -> route -> model's name -> script | fault | completion -> records

POST /v1/chat/completions    a completion, unary or streamed
GET  /v1/models[/{id}]       the models
anything else                404 with an OpenAI error object
"""

import asyncio
import hmac
from collections import OrderedDict
from typing import Self
from urllib.parse import unquote

from service.simulator import scenarios
from service.simulator.completion import Completion, complete
from service.simulator.completion_request import CompletionRequest, decode, model_of, parse
from service.simulator.config import SimulatorConfig
from service.simulator.connection import Connection
from service.simulator.error_objects import HttpError
from service.simulator.exchange import JSON, Exchange, Headers
from service.simulator.faults import FAULTS, Fault, Play
from service.simulator.records import RecordLog, RequestRecord
from service.simulator.response_documents import (
    chunk_documents,
    completion_document,
    encode,
    model_document,
    models_document,
)
from service.simulator.scenarios import Scenario
from service.simulator.scripts import Scripts
from service.simulator.streaming import finish, send_events

COMPLETIONS = "/v1/chat/completions"
MODELS = "/v1/models"
FAULT_TOKENS = 8
"""The default length of the text of a fault, in tokens: long enough to be cut."""

_COUNTED_MODELS = 1024


class SimulatorServer:
    """An OpenAI-compatible upstream that calls no model. `start` creates it, `stop` ends it."""

    @classmethod
    async def start(
        cls, config: SimulatorConfig | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> Self:
        """Listen on a host and port. Port 0 takes a free port.

        Raises:
            OSError: The address cannot be listened on.
        """
        self = cls(SimulatorConfig() if config is None else config)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=2048)
        self.host = host
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.host = ""
        self.port = 0
        self.records = RecordLog(records=config.records_kept, body_bytes=config.record_bytes_kept)
        self.open_requests = 0
        """The number of requests without an outcome."""
        self.max_body_bytes = config.max_body_bytes
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._scripts = Scripts()
        self._plain = scenarios.plain(config)
        self._failures: OrderedDict[str, int] = OrderedDict()
        self._authorization = (
            None if config.api_key is None else f"Bearer {config.api_key}".encode()
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        """The base URL without a path, such as "http://127.0.0.1:8081"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def open_connections(self) -> int:
        """The number of open connections, including idle ones."""
        return len(self._connections)

    async def stop(self) -> None:
        """Close the listener and abort all responses. A second call does nothing."""
        server, self._server = self._server, None
        if server is None:
            return
        loop = asyncio.get_running_loop()
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
        # An accepted socket becomes a connection two iterations later. If the server is closed by
        # then, CPython 3.11 never closes the socket.
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        ending = [task for task in (c.stop() for c in list(self._connections)) if task is not None]
        await asyncio.gather(*ending, return_exceptions=True)
        await server.wait_closed()

    # ---- called by tests ----

    async def next_record(self) -> RequestRecord:
        """Return the oldest request that was not yet returned here, or wait for one to arrive."""
        return await self.records.next()

    def reply_with(
        self,
        model: str,
        *,
        status: int = 200,
        headers: Headers = (),
        content_type: str = JSON,
        body: bytes,
    ) -> None:
        """Return exactly this body for further requests for `model`.

        Streaming requests get it too, unless `stream_with` defined events for the model.
        """
        self._scripts.lay_down_reply(
            model, status=status, body=body, content_type=content_type, headers=headers
        )

    def stream_with(
        self,
        model: str,
        events: list[bytes],
        *,
        status: int = 200,
        headers: Headers = (),
        done: bool = True,
    ) -> None:
        """Send one event per payload, and `[DONE]`, for further requests for `model`.

        Unary requests get them too, unless `reply_with` defined a body for the model.
        """
        self._scripts.lay_down_stream(model, events, status=status, done=done, headers=headers)

    def reset(self) -> None:
        """Remove records and fixed responses, and reset the counts of faults."""
        self.records.clear()
        self._scripts.clear()
        self._failures.clear()

    # ---- called by connections ----

    def connection_made(self, connection: Connection) -> None:
        """Add a new connection."""
        self._connections.add(connection)

    def connection_lost(self, connection: Connection) -> None:
        """Remove a lost connection."""
        self._connections.discard(connection)

    def request_arrived(self, record: RequestRecord) -> None:
        """Record a complete request."""
        self.open_requests += 1
        self.records.add(record)

    def request_ended(self, record: RequestRecord) -> None:
        """Record the outcome of a request."""
        self.open_requests -= 1

    async def respond(self, exchange: Exchange) -> None:
        """Write the response to one request."""
        try:
            self._authenticate(exchange.record)
            await self._route(exchange)
        except HttpError as refusal:
            exchange.record.scenario = exchange.record.scenario or "refusal"
            exchange.reply(refusal.status, refusal.body())

    def _authenticate(self, record: RequestRecord) -> None:
        if self._authorization is None:
            return
        shown = record.headers.get("authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(shown, self._authorization):
            raise HttpError(
                status=401, message="Incorrect API key provided.", code="invalid_api_key"
            )

    async def _route(self, exchange: Exchange) -> None:
        record = exchange.record
        path = record.path.partition("?")[0]
        if record.method == "POST" and path == COMPLETIONS:
            await self._chat(exchange)
        elif record.method == "GET" and path == MODELS:
            record.scenario = "models"
            exchange.reply(200, encode(models_document()))
        elif record.method == "GET" and path.startswith(MODELS + "/"):
            record.scenario = "models"
            model = unquote(path.removeprefix(MODELS + "/"))
            _fault(scenarios.parse(model, self._plain))
            exchange.reply(200, encode(model_document(model)))
        else:
            raise HttpError(status=404, message=f"Invalid URL ({record.method} {path})")

    async def _chat(self, exchange: Exchange) -> None:
        record = exchange.record
        document = decode(record.body)
        record.model = model_of(document)
        script = self._scripts.find(record.model, stream=document.get("stream") is True)
        if script is not None:
            record.scenario = "script"
            await script.play(exchange)
            return
        scenario = scenarios.parse(record.model, self._plain)
        fault = _fault(scenario)
        if fault is not None and self._has_struck_enough(record.model, scenario):
            fault = None
        length = scenario.tokens
        if fault is not None and not scenario.tokens_given:
            length = FAULT_TOKENS
        request = parse(document, tokens=length)
        completion = complete(
            request, seed=self.config.seed, length=length, clock=self.config.clock
        )
        if fault is None:
            record.scenario = "completion"
            await _answer(exchange, request, completion, scenario)
        else:
            record.scenario = fault.name
            await _fail(exchange, fault, request, completion, scenario)

    def _has_struck_enough(self, model: str, scenario: Scenario) -> bool:
        """Count a request for a fault with `times`; return whether the fault has ended."""
        if scenario.times is None:
            return False
        struck = self._failures.pop(model, 0)
        self._failures[model] = struck + 1
        if len(self._failures) > _COUNTED_MODELS:
            self._failures.popitem(last=False)
        return struck >= scenario.times


async def _answer(
    exchange: Exchange, request: CompletionRequest, completion: Completion, scenario: Scenario
) -> None:
    wait = scenario.time_to_first_token
    if not request.stream:
        wait += scenario.inter_token_delay * completion.completion_tokens
    if wait:
        await asyncio.sleep(wait)
    if not request.stream:
        exchange.reply(200, encode(completion_document(completion)))
        return
    exchange.head()
    payloads = map(encode, chunk_documents(completion, include_usage=request.include_usage))
    await send_events(exchange, payloads, scenario.inter_token_delay)
    finish(exchange)


async def _fail(
    exchange: Exchange,
    fault: Fault,
    request: CompletionRequest,
    completion: Completion,
    scenario: Scenario,
) -> None:
    if fault.form != "any" and (fault.form == "stream") is not request.stream:
        raise HttpError(
            status=400,
            message=f"The fault {fault.name!r} only answers {fault.form} requests.",
            param="stream",
            code="invalid_value",
        )
    if scenario.time_to_first_token:
        await asyncio.sleep(scenario.time_to_first_token)
    await fault.play(
        Play(
            exchange=exchange,
            request=request,
            completion=completion,
            value=scenario.value,
            delay=scenario.inter_token_delay,
        )
    )


def _fault(scenario: Scenario) -> Fault | None:
    if scenario.fault is None:
        return None
    fault = FAULTS.get(scenario.fault)
    if fault is None:
        raise HttpError(
            status=404,
            message=f"The simulator has no fault of this name. It has: {', '.join(FAULTS)}.",
            param="model",
            code="model_not_found",
        )
    return fault
