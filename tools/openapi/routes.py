"""The operations of the document: what each route takes and returns.

    POST /v1/chat/completions, …/quote               ChatCompletionService
    GET  /v1/models, /v1/models/{model}              ModelService
    GET  /v1/credits                                 CreditService
    GET  /health, /healthz, /readyz                  the bridge alone

`restbridge.app.METHODS` lists the routes; a test compares the two.
"""

from collections.abc import Mapping
from typing import Any, Final

from restbridge.headers import RATE_LIMIT
from tools.openapi import failures

Operation = dict[str, Any]

_KEY: Final[list[dict[str, list[str]]]] = [{"bearer": []}]
_NO_KEY: Final[list[dict[str, list[str]]]] = []
_TRACED: Final = [
    {"$ref": f"#/components/parameters/{name}"}
    for name in ("x-request-id", "traceparent", "tracestate", "baggage")
]

_KEYED: Final = [
    {"$ref": f"#/components/parameters/{name}"} for name in ("idempotency-key", "last-event-id")
]

_REQUESTS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "message": (
        "One message",
        {"model": "default", "messages": [{"role": "user", "content": "Hello"}]},
    ),
    "stream": (
        "A stream that reports its usage",
        {
            "model": "default",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "tool": (
        "A tool",
        {
            "model": "default",
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "description": "Returns the weather in a city.",
                        "parameters": {
                            "type": "object",
                            "properties": {"city": {"type": "string"}},
                            "required": ["city"],
                        },
                    },
                }
            ],
        },
    ),
}

_EVENTS: Final = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,'
    '"model":"default","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"},'
    '"finish_reason":null}]}\n\n'
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,'
    '"model":"default","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    "data: [DONE]\n\n"
)

_STREAM: Final = """\
The chunks, if `stream` is true: one event `data: {…}` for each `ChatCompletionChunk`, then
`data: [DONE]`. If the stream fails, its last event is `data: {"error": …}`, an `ErrorResponse`, and
`data: [DONE]` does not follow. Lines that begin with a colon are comments, sent after each 15
seconds of silence."""

_CHAT: Final = """\
Runs a completion. If `stream` is true, the response is a stream of server-sent events; otherwise
it is one JSON document.

Members that this document does not describe are forwarded to the upstream, except for those that
change the cost or the destination of the call. A member that is null counts as absent.
"""

_QUOTE: Final = """\
Returns what a completion with this body would hold, the largest `max_tokens` that fits, and the
limit that would reject it. Nothing is sent to a model, charged or taken from a limit. Not in
OpenAI's API.
"""

_MODEL: Final = "The name of the model. It can contain `/` and `:`, percent-encoded or not."


def paths(comments: Mapping[str, str]) -> dict[str, dict[str, Operation]]:
    """Return the operations by path and by method in lower case.

    Args:
        comments: The comments of the `.proto` files, by full name.
    """

    def call(rpc: str, *besides: str) -> dict[str, Any]:
        reasons = failures.of_rpc(comments[f"chatcompletion.v1.{rpc}"])
        return failures.responses((*besides, *reasons, *failures.OF_EVERY_CALL), comments)

    every = failures.responses(failures.OF_EVERY_ROUTE, comments)
    ready = (*failures.OF_EVERY_ROUTE, "SERVICE_UNAVAILABLE")
    return {
        "/v1/chat/completions": {
            "post": {
                "operationId": "createChatCompletion",
                "tags": ["Chat"],
                "summary": "Create a chat completion",
                "description": _CHAT,
                "security": _KEY,
                "parameters": [*_TRACED, *_KEYED],
                "requestBody": _body(),
                "responses": {
                    "200": {
                        "description": "The completion, or its chunks.",
                        "headers": _headers(
                            *("openai-processing-ms", "x-charge", "x-chat-upstream"),
                            *("idempotent-replayed", *RATE_LIMIT),
                        ),
                        "content": {
                            "application/json": {"schema": _schema("ChatCompletion")},
                            "text/event-stream": {
                                "schema": {"type": "string", "description": _STREAM},
                                "example": _EVENTS,
                                "x-event-data": _schema("ChatCompletionChunk"),
                            },
                        },
                    },
                    **call("ChatCompletionService.CreateChatCompletion", *failures.OF_A_BODY),
                },
            }
        },
        "/v1/chat/completions/quote": {
            "post": {
                "operationId": "quoteChatCompletion",
                "tags": ["Chat"],
                "summary": "Quote a chat completion",
                "description": _QUOTE,
                "security": _KEY,
                "parameters": _TRACED,
                "requestBody": _body(),
                "responses": {
                    "200": _json("The quote.", "Quote", "openai-processing-ms", *RATE_LIMIT),
                    **call("ChatCompletionService.QuoteChatCompletion", *failures.OF_A_BODY),
                },
            }
        },
        "/v1/models": {
            "get": {
                "operationId": "listModels",
                "tags": ["Models"],
                "summary": "List the models",
                "description": "Lists the models, in the order of the server's configuration.",
                "security": _KEY,
                "parameters": _TRACED,
                "responses": {
                    "200": _json("The models.", "ListModelsResponse", "openai-processing-ms"),
                    **call("ModelService.ListModels"),
                },
            }
        },
        "/v1/models/{model}": {
            "get": {
                "operationId": "getModel",
                "tags": ["Models"],
                "summary": "Get a model",
                "description": "Gets one model.",
                "security": _KEY,
                "parameters": [
                    {
                        "name": "model",
                        "in": "path",
                        "required": True,
                        "description": _MODEL,
                        "schema": {"type": "string", "minLength": 1},
                        "example": "default",
                    },
                    *_TRACED,
                ],
                "responses": {
                    "200": _json("The model.", "Model", "openai-processing-ms"),
                    **call("ModelService.GetModel"),
                },
            }
        },
        "/v1/credits": {
            "get": {
                "operationId": "getCredits",
                "tags": ["Credits"],
                "summary": "Get the caller's credits",
                "description": "Gets the credit of the caller's account, the limits of the API "
                "key, and its usage in the last 30 days. Not in OpenAI's API.",
                "security": _KEY,
                "parameters": _TRACED,
                "responses": {
                    "200": _json("The credits.", "Credits", "openai-processing-ms"),
                    **call("CreditService.GetCredits"),
                },
            }
        },
        "/health": _health("getHealth", every),
        "/healthz": _health("getLiveness", every),
        "/readyz": {
            "get": {
                "operationId": "getReadiness",
                "tags": ["Health"],
                "summary": "Whether the bridge can serve",
                "description": "Returns 200 while the bridge can reach a serving service and does "
                "not shut down. Needs no key.",
                "security": _NO_KEY,
                "responses": {
                    "200": _json("The bridge can serve.", "Readiness"),
                    **failures.responses(ready, comments),
                },
            }
        },
    }


def _body() -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            "application/json": {
                "schema": _schema("ChatCompletionParams"),
                "examples": {
                    name: {"summary": summary, "value": value}
                    for name, (summary, value) in _REQUESTS.items()
                },
            }
        },
    }


def _health(name: str, failed: dict[str, Any]) -> dict[str, Operation]:
    return {
        "get": {
            "operationId": name,
            "tags": ["Health"],
            "summary": "Whether the bridge runs",
            "description": "Returns 200 while the bridge runs. Needs no key.",
            "security": _NO_KEY,
            "responses": {"200": _json("The bridge runs.", "Health"), **failed},
        }
    }


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _headers(*names: str) -> dict[str, Any]:
    return {name: failures.header(name) for name in ("x-request-id", *names)}


def _json(description: str, schema: str, *headers: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _headers(*headers),
        "content": {"application/json": {"schema": _schema(schema)}},
    }
