"""What a caller sees of a failure: `str(error)` of OpenAI's SDKs for Python and Node, and of gRPC.

Each row is a request, and the text that must be in the error: the parameter, and what to do.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import grpc
import httpx
import openai
import pytest

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from service.accounts.budget_rows import BudgetChange
from service.ledger.budgets import Window
from tests.e2e.test_openai_node import SDKS, node_with
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import HELLO, params
from tests.support.books import Team
from tests.support.grpc_client import failed
from tests.support.priced_models import priced
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

Key = Literal[
    "rich",
    "poor",
    "few tokens",
    "one request",
    "other model",
    "unknown",
    "revoked",
    "expired",
    "suspended",
    "spent budget",
]
Headers = Mapping[str, str | None]
"""None removes a header that the SDK sends."""

CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
UNKNOWN: Final = "sk-live-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A request that fails."""

    members: Mapping[str, Any]
    names: str
    """The text that `str(error)` must contain."""
    headers: Headers = field(default_factory=dict)
    status: int = 422
    field: str = ""
    """The path in BadRequest; "" if there is none."""
    key: Key = "rich"
    base: str = "/v1"
    """The end of the base URL of the SDK."""
    route: tuple[Literal["get", "post"], str] | None = None
    """Another route than that of completions, below the base URL."""
    is_http: bool = False
    """Whether gRPC has no such failure."""


def row(names: str, path: str, **members: Any) -> Row:
    return Row(members=members, names=names, field=f"params.{path}")


def told(**members: Any) -> list[dict[str, Any]]:
    return [*HELLO, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", **members}]


ROWS: Final[Mapping[str, Row]] = {
    "range": row("Invalid 'temperature': expected a number from 0 to 2, but got 3.", "temperature",
                 temperature=3),
    "type": row("Invalid type for 'stop': expected a string or an array of strings, but got an "
                "integer.", "stop_text", stop=7),
    "type of messages": row("Invalid type for 'messages': expected an array of objects, but got a "
                            "string.", "messages", messages="Hello"),
    "empty array": row("Invalid 'messages': expected at least 1 message", "messages", messages=[]),
    "no role": row("Missing required parameter: 'messages[0].role'.", "messages[0].role",
                   messages=[{"content": "x"}]),
    "no content": row("Missing required parameter: 'messages[0].content' (content_text or "
                      "content_parts in gRPC).", "messages[0].content_text",
                      messages=[{"role": "user"}]),
    "element": row("Invalid type for 'messages[0].content[1]': expected an object, but got an "
                   "integer.", "messages[0].content_parts.items[1]",
                   messages=[{"role": "user", "content": ["x", 7]}]),
    "too many": row("Invalid 'stop': expected at most 4 entries, but got 5.", "stop_text",
                    stop=list("abcde")),
    "too long": row("Invalid 'safety_identifier': expected at most 64 characters, but got 65.",
                    "safety_identifier", safety_identifier="x" * 65),
    "limit of the model": row("Invalid 'max_tokens': the model 'default' supports at most 100000 "
                              "completion tokens, but got 100001.", "max_tokens",
                              max_tokens=100_001),
    "result of no call": row("Invalid 'messages[2].tool_call_id': 'abc' matches no tool call",
                             "messages[2].tool_call_id",
                             messages=told(tool_call_id="abc", content="x")),
    "needs tools": row("Invalid 'tool_choice': it is only allowed with 'tools'.",
                       "tool_choice_mode", tool_choice="required"),
    "needs logprobs": row("Invalid 'top_logprobs': it is only allowed with 'logprobs'",
                          "top_logprobs", top_logprobs=5),
    "exclusive": row("Invalid 'max_tokens': it cannot be set together with "
                     "'max_completion_tokens'.", "max_tokens", max_tokens=5,
                     max_completion_tokens=6),
    "misspelt": row("Unknown parameter: 'maxTokens'. Did you mean 'max_tokens'?", "max_tokens",
                    maxTokens=5),
    "similar": row("Unsupported parameter: 'temprature'. Did you mean 'temperature'?",
                   'extra_json["temprature"]', temprature=1),
    "not offered": row("Unsupported parameter: 'best_of'. Use 'max_tokens' to limit the output and "
                       "'n'", 'extra_json["best_of"]', best_of=5),
    "unsupported value": row("Unsupported value for 'service_tier': the model supports 'auto' and "
                             "'default', but got 'flex'.", "service_tier", service_tier="flex"),
    "for a gateway": row("Unsupported parameter: 'azure_endpoint'. It can redirect the request or "
                         "change its credentials.", 'extra_json["azure_endpoint"]',
                         azure_endpoint="https://a.example"),
    "no such tool": row("Invalid 'tool_choice.function.name': 'g' is not one of the 'tools'.",
                        "tool_choice_object.function.name",
                        tools=[{"type": "function", "function": {"name": "f"}}],
                        tool_choice={"type": "function", "function": {"name": "g"}}),
    "name of a format": row("Invalid 'response_format.json_schema.name': expected 1 to 64 "
                            "characters of a-z, A-Z, 0-9, _ and -, but got 'a b'.",
                            "response_format.json_schema.name",
                            response_format={"type": "json_schema",
                                             "json_schema": {"name": "a b", "schema": {}}}),
    "bias": row("Invalid 'logit_bias': expected values from -100 to 100, but got 101.",
                "logit_bias", logit_bias={"1": 101}),
    "several": row("Invalid 'temperature': expected a number from 0 to 2, but got 3. The request "
                   "has 2 more errors.", "temperature", temperature=3, top_p=2, n=0),
    "no such model": Row(members={"model": "gpt-4o"}, status=404,
                         names="The model 'gpt-4o' does not exist. GET /v1/models"),
    "forbidden model": Row(members={}, status=403, key="other model",
                           names="This API key is not allowed to use the model 'default'."),
    "no key": Row(members={}, status=401, headers={"authorization": None},
                  names="No API key provided. Send the header 'Authorization: Bearer YOUR_KEY'."),
    "wrong scheme": Row(members={}, status=401, headers={"authorization": "Basic YTpi"},
                        names="Invalid 'Authorization' header: expected the scheme 'Bearer', but "
                        "got 'Basic'. Send the header"),
    "key in another header": Row(members={}, status=401,
                                 headers={"authorization": None, "x-api-key": UNKNOWN},
                                 names="The header 'x-api-key' is not read here. Send the header"),
    "unknown key": Row(members={}, status=401, key="unknown",
                       names="Incorrect API key provided: sk-li***DEFG."),
    "revoked key": Row(members={}, status=401, key="revoked",
                       names="This API key was revoked on "),
    "expired key": Row(members={}, status=401, key="expired",
                       names="This API key expired on 1970-01-01. Use another key."),
    "suspended key": Row(members={}, status=403, key="suspended",
                         names="This API key is suspended. Contact the operator."),
    "no credit": Row(members={"max_tokens": 90_000}, status=402, key="poor",
                     names="Add credit, or set max_tokens to at most "),
    "spent budget": Row(members={}, status=402, key="spent budget",
                        names="Budget exceeded: this request can cost up to "),
    "token limit": Row(members={"max_tokens": 5000}, status=429, key="few tokens",
                       names="tokens per minute: limit 2000, requested "),
    "request limit": Row(members={}, status=429, key="one request",
                         names="Rate limit reached for requests per minute: limit 1. Try again in"),
    "too large": Row(members={"user": "x" * 3 * 2**19}, status=413,
                     names="Request too large: expected at most 1 MiB, but got 1.5 MiB. Shorten"),
    "at the provider": Row(members={"model": "account"}, status=502,
                           names="The model provider rejected this server's credentials. Contact "
                           "the operator and give request id req_"),
    "base URL without /v1": Row(members={}, status=404, is_http=True, base="",
                                names="Invalid URL (POST /chat/completions). Use POST "
                                "/v1/chat/completions: the base URL of an SDK ends in /v1, once."),
    "base URL with two": Row(members={}, status=404, is_http=True, base="/v1/v1",
                             names="Invalid URL (POST /v1/v1/chat/completions). Use POST "
                             "/v1/chat/completions: the base URL of an SDK ends in /v1, once."),
    "another API": Row(members={}, status=404, is_http=True, route=("post", "/responses"),
                       names="Invalid URL (POST /v1/responses). This server offers POST "
                       "/v1/chat/completions, not the Responses API."),
    "wrong URL": Row(members={}, status=404, is_http=True, route=("post", "/rerank"),
                     names="Invalid URL (POST /v1/rerank). This server offers POST "
                     "/v1/chat/completions and GET /v1/models"),
    "wrong method": Row(members={}, status=405, is_http=True, route=("get", "/chat/completions"),
                        names="Method GET is not allowed for /v1/chat/completions; use POST."),
    "media type": Row(members={}, status=415, is_http=True, headers={"content-type": "text/plain"},
                      names="Invalid 'Content-Type' header: expected application/json, but got "
                      "'text/plain'"),
    "coding": Row(members={}, status=415, is_http=True, headers={"content-encoding": "gzip"},
                  names="Invalid 'Content-Encoding' header: expected a body that is not "
                  "compressed, but got 'gzip'"),
}  # fmt: skip


def test_the_documents_list_these_messages() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- messages -->")[2].partition("<!-- /messages -->")[0]
    assert listed.strip().splitlines()[2:] == [
        f"| {name} | {one.status} | {one.names} |" for name, one in ROWS.items()
    ]


@dataclass(kw_only=True)
class World:
    """A stack, and the keys of `Key`."""

    stack: AccountsStack
    keys: dict[Key, str] = field(default_factory=dict)

    def base_url(self, one: Row) -> str:
        """Return the base URL of the SDKs."""
        return f"http://{self.stack.bridge.address}{one.base}"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    account = priced(upstream_model="sim-fault:401")
    models = {"default": priced(), "account": account}
    async with accounts_stack(models, max_request_bytes=2**20) as running:
        books = running.books
        revoked: Team = books.team()
        books.directory.revoke_key(revoked.name, revoked.key_name)
        suspended = books.team()
        books.directory.lifecycle.suspend_key(suspended.name, suspended.key_name)
        spent = books.team()
        books.directory.budgets.set(spent.name, changes=[BudgetChange(Window.DAY, 1)])
        limited = books.team(requests_per_minute=1)
        await running.ask("grpc", limited.key, "default")
        yield World(
            stack=running,
            keys={
                "rich": books.team().key,
                "poor": books.team(credit=10**6).key,
                "few tokens": books.team(tokens_per_minute=2000).key,
                "one request": limited.key,
                "other model": books.team(models=("other",)).key,
                "unknown": UNKNOWN,
                "revoked": revoked.key,
                "expired": books.team(expires_at=1).key,
                "suspended": suspended.key,
                "spent budget": spent.key,
            },
        )


def request_of(one: Row) -> dict[str, Any]:
    return {"model": "default", "messages": HELLO, **one.members}


async def test_the_python_sdk_shows_the_parameter(world: World) -> None:
    for name, one in ROWS.items():
        async with openai.AsyncOpenAI(
            base_url=world.base_url(one),
            api_key=world.keys[one.key],
            max_retries=0,
            timeout=PATIENCE,
        ) as client:
            with pytest.raises(openai.APIStatusError) as caught:
                await _ask(client, one)
        assert one.names in str(caught.value), name
        assert caught.value.status_code == one.status, name


async def _ask(client: openai.AsyncOpenAI, one: Row) -> None:
    request = request_of(one)
    headers = {
        name: openai.Omit() if value is None else value for name, value in one.headers.items()
    }
    if one.route is None:
        own = {member: request.pop(member) for member in ("model", "messages")}
        more: Any = {"extra_body": request, "extra_headers": headers}
        await client.chat.completions.create(**own, **more)
    else:
        method, path = one.route
        body = {} if method == "get" else {"body": request}
        await getattr(client, method)(path, cast_to=httpx.Response, **body)


@pytest.mark.parametrize("sdk", SDKS)
async def test_the_node_sdk_shows_the_parameter(world: World, sdk: str) -> None:
    requests = [
        {
            "options": {"apiKey": world.keys[one.key], "baseURL": world.base_url(one)},
            "members": request_of(one),
            "headers": one.headers,
            "route": one.route,
        }
        for one in ROWS.values()
    ]
    options = {
        "apiKey": "-",
        "maxRetries": 0,
        "timeout": PATIENCE * 1000,
    }
    with node_with(sdk) as node:
        answer = await node.run("failures", {"requests": requests}, options)
    for (name, one), error in zip(ROWS.items(), answer["result"], strict=True):
        assert error is not None, name
        assert one.names in error["message"], name
        assert error["status"] == one.status, name


async def test_grpc_shows_the_parameter_and_the_field(world: World) -> None:
    for name, one in ROWS.items():
        if one.is_http:
            continue
        error = await _refused(world, one, params(request_of(one)))
        found = failed(error)
        assert one.names in str(error), name
        assert found.http_status == one.status, name
        assert found.violations[:1] == ((one.field,) if one.field else ()), name


async def _refused(world: World, one: Row, request: ChatCompletionParams) -> grpc.aio.AioRpcError:
    stub = ChatCompletionServiceStub(world.stack.channel)
    call: Any = stub.CreateChatCompletion(
        CreateChatCompletionRequest(params=request),
        metadata=tuple(
            (name, value)
            for name, value in {
                "authorization": f"Bearer {world.keys[one.key]}",
                **one.headers,
            }.items()
            if value is not None
        ),
        timeout=PATIENCE,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_wrong_value_in_extra_json_names_its_member(world: World) -> None:
    request = params(request_of(ROWS["range"]))
    request.ClearField("temperature")
    request.extra_json["top_k"] = "{"
    error = await _refused(world, ROWS["range"], request)

    expected = "expected the text of one JSON value in 'extra_json', but got another text."
    assert f"Invalid 'top_k': {expected}" in str(error)
    assert failed(error).violations == ('params.extra_json["top_k"]',)
    assert failed(error).error.param == "top_k"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "No API key provided. Send the header 'Authorization: Bearer YOUR_KEY'."),
        ({"x-api-key": UNKNOWN}, "The header 'x-api-key' is not read here."),
        ({"api-key": UNKNOWN}, "The header 'api-key' is not read here."),
        ({"authorization": UNKNOWN}, "expected the scheme 'Bearer', but got another form."),
        ({"authorization": "Basic YTpi"}, "expected the scheme 'Bearer', but got 'Basic'."),
        ({"authorization": "Bearer"}, "expected the scheme 'Bearer', but got another form."),
    ],
)
async def test_without_a_key_the_message_names_the_header(
    world: World, headers: dict[str, str], message: str
) -> None:
    response = await world.stack.web.post(
        "/v1/chat/completions", json=request_of(ROWS["range"]), headers=headers
    )

    assert response.status_code == 401
    assert message in response.json()["error"]["message"]
    assert UNKNOWN not in response.text


async def test_the_log_names_a_former_key(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        await world.stack.ask("grpc", world.keys["revoked"], "default")
        await world.stack.rests()
    (line,) = [
        r
        for r in caplog.records
        if getattr(r, "reason", "") == "INVALID_API_KEY" or "INVALID_API_KEY" in str(r.__dict__)
    ]
    assert "'key'" in str(line.__dict__)
    assert world.keys["revoked"] not in str(line.__dict__)
