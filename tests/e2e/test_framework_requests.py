"""Requests that unmodified frameworks send, over REST and gRPC: the upstream receives the same.

KINDS    kind -> requests of that kind, as they arrive
DROPPED  members without effect, which the service removes instead of rejecting the request
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from chatcompletion import openai_json
from service.metering.overhead import TOKENS_PER_PROMPT
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, HELLO
from tests.support.golden_responses import COMPLETIONS
from tests.support.json_equality import parse
from tests.support.priced_models import CREDIT, cost, priced
from tests.support.running_bridge import PATH
from tests.support.stack import Stack, stack

UPSTREAM: Final = "vendor/model"
URL: Final = "https://a.example/x.png"
IMAGE: Final = {"type": "image_url", "image_url": {"url": URL}}
IMAGE_STRING: Final = {"type": "image_url", "image_url": URL}
TEXT: Final = {"type": "text", "text": "Hello"}


def user(content: Any = "Hello") -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(**members: Any) -> dict[str, Any]:
    """Return a request that sends an assistant's message back."""
    return {"messages": [user(), {"role": "assistant", **members}, user("Go on.")]}


def call(arguments: Any = "{}", **members: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **members}


def told(made: Mapping[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """Return a request with a tool call and its result."""
    asked = {"role": "assistant", "content": None, "tool_calls": [made or call()]}
    return {"messages": [user(), asked, {"role": "tool", **members}]}


def tool(name: str) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": name, "parameters": {}}}]}


KINDS: Final[Mapping[str, tuple[dict[str, Any], ...]]] = {
    "an assistant without content": (
        said(content=None),
        said(),
        said(content=[]),
        said(content=""),
        said(content=None, name="bot"),
        said(content=None, refusal="I cannot help with that."),
        said(content=None, refusal=None, annotations=[], audio=None, function_call=None),
    ),
    "an assistant without tool calls": (
        said(content="x", tool_calls=[]),
        said(content=None, tool_calls=[]),
        said(content=[], tool_calls=[]),
        said(tool_calls=[], function_call=None),
        said(tool_calls=None),
    ),
    "an assistant with details of its reasoning": (
        said(content=None, reasoning_details=[{"type": "reasoning.text", "text": "hm"}]),
        said(content="x", reasoning_details=[]),
        said(content="", reasoning="hm", reasoning_details=[{"data": "AA==", "index": 0}]),
        said(content="x", reasoning_details=[{"id": None, "format": "v1"}], tool_calls=[]),
    ),
    "an assistant with blocks of its thinking": (
        said(content="x", thinking_blocks=[{"type": "thinking", "thinking": "hm"}]),
        said(content=None, thinking_blocks=[{"type": "redacted_thinking", "data": "AA=="}]),
        said(content="x", thinking_blocks=[]),
        said(content="x", thinking_blocks=None, provider_specific_fields={"a": [1.50, None]}),
    ),
    "an assistant with pictures": (
        said(content="x", images=[IMAGE]),
        said(content=None, images=[{**IMAGE, "index": 0}], reasoning_content=None),
        said(content="x", images=[IMAGE_STRING, IMAGE]),
        said(content="x", images=[]),
    ),
    "a tool without output": (
        told(tool_call_id="call_1"),
        told(tool_call_id="call_1", content=None),
        told(tool_call_id="call_1", content=[]),
        told(tool_call_id="call_1", content="", name="f"),
        told(tool_call_id="call_1", content=None, is_error=False),
    ),
    "a choice without tools": (
        {"tool_choice": "auto"},
        {"tool_choice": "auto", "tools": []},
        {"tool_choice": "none", "tools": []},
        {"tool_choice": "none"},
        {"tool_choice": "none", "tools": None},
        {"tool_choice": None, "tools": None, "parallel_tool_calls": True},
    ),
    "strings among the parts": (
        {"messages": [user(["Hello"])]},
        {"messages": [user(["Hello", TEXT, IMAGE])]},
        {"messages": [{"role": "system", "content": ["Hello", "again"]}, user()]},
        said(content=["Hello", TEXT]),
        told(tool_call_id="call_1", content=["3 °C", "windy"]),
    ),
    "a picture as a string": (
        {"messages": [user([IMAGE_STRING])]},
        {"messages": [user([TEXT, IMAGE_STRING, IMAGE])]},
        {"messages": [user(["Hello", IMAGE_STRING])]},
        {"messages": [user([{**IMAGE_STRING, "image_url": "data:image/png;base64,AAAA"}])]},
        {"messages": [user([{**IMAGE_STRING, "detail": "low"}])]},
        told(tool_call_id="call_1", content=[IMAGE_STRING]),
    ),
    "names of MCP servers": (
        tool("github.create_issue"),
        tool("github.com/owner/repo"),
        tool("mcp:search"),
        tool("a" * 65),
        {**tool("a.b"), "tool_choice": {"type": "function", "function": {"name": "a.b"}}},
        {"functions": [{"name": "a.b"}]},
        told({**call(), "function": {"name": "a/b", "arguments": "{}"}}, tool_call_id="call_1"),
    ),
    "arguments as an object": (
        told(call({"city": "Zürich", "days": [1.50]}), tool_call_id="call_1", content="x"),
        told(call({}), tool_call_id="call_1", content="x"),
        told(call([]), tool_call_id="call_1", content="x"),
        told(call(None), tool_call_id="call_1", content="x"),
        said(content=None, function_call={"name": "f", "arguments": {"a": None}}),
    ),
    "a number as the id of a call": (
        told(call(id=7), tool_call_id=7, content="x"),
        told(call(id=7, index=0), tool_call_id="7", content="x"),
        told(call(id="7"), tool_call_id=7, content="x"),
        told(call(id=0), tool_call_id=0, content="x"),
        told(call(id=2**70), tool_call_id=2**70, content="x"),
    ),
    "an empty id of a call": (
        told(call(id=""), tool_call_id="", content="x"),
        told(call(id=None), tool_call_id=None, content="x"),
        told({"type": "function", "function": {"name": "f", "arguments": "{}"}}, content="x"),
        told(call(id=""), content="x"),
    ),
}
"""Members beside the model. `messages` replaces the usual message."""

DROPPED: Final[Mapping[str, Any]] = {
    "fallbacks": [],
    "options": {},
    "use_beam_search": False,
    "num_retries": 0,
    "api_key": "",
    "azure_endpoint": "",
    "callbacks": [],
    "mock_response": "",
    "aws_bedrock_runtime_endpoint": "",
    "config": {},
}
"""Members without effect, each with the value that frameworks send."""

OURS: Final = ("model", "stream", "stream_options", "max_tokens")
"""The members that the service changes for the upstream."""


@pytest.fixture
async def running() -> AsyncIterator[Stack]:
    async with stack({"default": UPSTREAM}) as both:
        both.upstream.reply_with(UPSTREAM, body=COMPLETIONS[0].json.encode())
        both.upstream.stream_with(UPSTREAM, [FINISH])
        yield both


FINISH: Final = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
)


def request_of(members: Mapping[str, Any]) -> bytes:
    return json.dumps({"model": "default", "messages": HELLO, **members}).encode()


async def sent_through_both(running: Stack, body: bytes) -> list[dict[str, Any]]:
    """Send a request through both doors, unary and streamed. Return what the upstream received."""
    for streamed in (False, True):
        async with running.http() as http:
            document = body[:-1] + b',"stream":true}' if streamed else body
            response = await http.post(PATH, content=document)
        assert response.status_code == 200, response.text
        params = openai_json.decode_request(body)
        if streamed:
            assert (await running.service.client.collect(params)).failure is None
        else:
            await running.service.client.create(params)
    records = [parse(body) for body in received(running)]
    assert len(records) == 4
    return [
        {name: value for name, value in record.items() if name not in OURS} for record in records
    ]


def received(running: Stack) -> list[bytes]:
    """Return the bodies that the upstream received."""
    records = running.upstream.records
    return [records[at].body for at in range(len(records))]


@pytest.mark.parametrize(
    "members",
    [members for requests in KINDS.values() for members in requests],
    ids=[f"{kind} {at}" for kind, requests in KINDS.items() for at in range(len(requests))],
)
async def test_the_upstream_receives_the_request_of_a_framework(
    running: Stack, members: dict[str, Any]
) -> None:
    body = request_of(members)
    expected = {name: value for name, value in parse(body).items() if name != "model"}

    assert await sent_through_both(running, body) == [expected] * 4


@pytest.mark.parametrize("name", DROPPED)
async def test_a_member_without_effect_does_not_fail_the_request(running: Stack, name: str) -> None:
    expected = {"messages": parse(request_of({}))["messages"]}

    assert await sent_through_both(running, request_of({name: DROPPED[name]})) == [expected] * 4


@pytest.mark.parametrize(
    "limits",
    [
        {"max_tokens": 7, "max_completion_tokens": 7},
        {"max_completion_tokens": 7, "max_tokens": 7.0},
        {"max_tokens": 7, "max_completion_tokens": None},
        {"max_tokens": None, "max_completion_tokens": 7},
    ],
    ids=["equal", "float", "first", "second"],
)
async def test_equal_output_limits_are_one_limit(running: Stack, limits: dict[str, Any]) -> None:
    await sent_through_both(running, request_of(limits))

    for body in received(running):
        document = json.loads(body)
        assert document["max_tokens"] == 7
        assert "max_completion_tokens" not in document


@pytest.mark.parametrize("blanks", [b"", b"\n", b" \r\n\t"], ids=["bare", "line", "blanks"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_body_can_begin_with_a_byte_order_mark(
    running: Stack, streamed: bool, blanks: bytes
) -> None:
    body = b"\xef\xbb\xbf" + blanks + request_of({"stream": True} if streamed else {})

    async with running.http() as http:
        assert (await http.post(PATH, content=body)).status_code == 200


# -------------------------------------------------------------------------------------- the price

PRICED: Final = priced(upstream_model=UPSTREAM, attachment_tokens=5000)


@pytest.fixture
async def accounts() -> AsyncIterator[AccountsStack]:
    async with accounts_stack({"default": PRICED}) as running:
        yield running


@pytest.mark.parametrize(
    "message",
    [
        user([IMAGE_STRING]),
        user(["Hello", IMAGE]),
        {"role": "assistant", "content": "x", "images": [IMAGE]},
    ],
    ids=["string", "parts", "images"],
)
async def test_a_picture_in_another_form_is_held_as_a_picture(
    accounts: AccountsStack, message: dict[str, Any]
) -> None:
    least = cost(TOKENS_PER_PROMPT + PRICED["attachment_tokens"], 1, PRICED)
    poor = accounts.books.team(credit=least // 2)
    rich = accounts.books.team(credit=CREDIT)
    request = {"model": "default", "messages": [user(), message], "max_tokens": 1}
    accounts.upstream.reply_with(UPSTREAM, body=COMPLETIONS[0].json.encode())

    for door in DOORS:
        refused = await accounts.ask(door, poor.key, request)
        assert (refused.status, refused.code) == (402, "insufficient_credits")
        assert (await accounts.ask(door, rich.key, request)).status == 200
