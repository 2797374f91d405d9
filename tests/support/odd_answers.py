"""Odd responses of an upstream as bytes on a socket, and what each door makes of them.

    Row -> raw_server -> upstream of the service -> gRPC, REST, REST in process -> compared

A response of the text "Blue whale" with a report of 11 and 2 tokens is the sound one; a row says in
what its own differs.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import grpc
import httpx

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, DoorName, document, params
from tests.support.books import Charge
from tests.support.grpc_client import failed
from tests.support.priced_models import STRICT, cost, priced
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE

BOM: Final = b"\xef\xbb\xbf"
LARGEST: Final = 2**20
"""Bytes of a whole answer, and of an event."""
Framing = Literal["chunked", "length", "close"]

# ------------------------------------------------------------------------------ bytes of answers


def http(
    *body: bytes,
    status: int = 200,
    kind: str | None = "text/event-stream",
    coding: str | None = None,
    framing: Framing = "chunked",
    cut: bool = False,
    headers: Sequence[bytes] = (),
) -> bytes:
    """Return the bytes of a response; `cut` leaves out the end of its body."""
    lines = [b"HTTP/1.1 %d Fine" % status, b"connection: close", *headers]
    if kind is not None:
        lines.append(b"content-type: " + kind.encode())
    if coding is not None:
        lines.append(b"content-encoding: " + coding.encode())
    whole = b"".join(body)
    if framing == "chunked":
        lines.append(b"transfer-encoding: chunked")
        whole = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in body if part)
        whole += b"" if cut else b"0\r\n\r\n"
    elif framing == "length":
        lines.append(b"content-length: %d" % (len(whole) + cut))
    return b"\r\n".join([*lines, b"", whole])


def usage(**counts: Any) -> dict[str, Any]:
    return {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13} | counts


def chunk(text: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Make a chunk of one choice; `index` is the choice's, the rest the chunk's."""
    index = more.pop("index", 0)
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice], **more}


def event(said: Mapping[str, Any] | bytes) -> bytes:
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    return b"data: " + data + b"\n\n"


def report(**more: Any) -> dict[str, Any]:
    return {**chunk(None), "choices": [], "usage": usage(), **more}


def whole(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Blue whale"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": usage(), **more}


PIECES: Final = (event(chunk("Blue")), event(chunk(" whale")))
STOP: Final = event(chunk(None, "stop"))
REPORT: Final = event(report())
DONE: Final = event(b"[DONE]")
STREAM: Final = (*PIECES, STOP, REPORT, DONE)
WHOLE: Final = json.dumps(whole()).encode()


def json_answer(*body: bytes, **more: Any) -> bytes:
    return http(*body, **{"kind": "application/json", "framing": "length", **more})


# ----------------------------------------------------------------------------------- the tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What is charged; the prompt is counted by the service if it is estimated."""

    prompt: int = 11
    completion: int = 2
    partial: bool = False
    estimated: bool = False


REPORTED: Final = Used()
COUNTED: Final = Used(estimated=True)
PARTIAL: Final = Used(estimated=True, partial=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An answer, and what is right."""

    name: str
    answer: bytes
    streamed: bool
    code: str = ""
    """Of the error; "" is success."""
    text: str = "Blue whale"
    """All that is delivered."""
    used: Used | None = REPORTED
    usages: tuple[Any, ...] | None = None
    """The reports that the caller gets; None is the sound one, and none in a stream."""
    timings: int = 0
    """The documents with a member of this name."""
    strict: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)


def stream(name: str, *body: bytes, response: Mapping[str, Any] | None = None, **more: Any) -> Row:
    """Make a row of a streamed answer."""
    return Row(name=name, answer=http(*body, **(response or {})), streamed=True, **more)


def unary(name: str, *body: bytes, response: Mapping[str, Any] | None = None, **more: Any) -> Row:
    """Make a row of a whole answer."""
    return Row(name=name, answer=json_answer(*body, **(response or {})), streamed=False, **more)


def fails(make: Any, name: str, *body: bytes, code: str, **more: Any) -> Row:
    """Make a row of an answer that is an error, by default before any text."""
    row: Row = make(name, *body, **{"code": code, "text": "", "used": None, "usages": (), **more})
    return row


def both(name: str, **response: Any) -> Iterable[Row]:
    """Make the rows of a response that changes nothing, whole and streamed."""
    yield stream(name, *STREAM, response=response)
    yield unary(name, WHOLE, response=response)


INVALID: Final = "upstream_invalid_response"
TRUNCATED: Final = "upstream_truncated"
ASKED: Final = {"stream_options": {"include_usage": True}}
TWO: Final = {"n": 2}
LATIN: Final = json.dumps(whole()).encode().replace(b"Blue", b"Bl\xfce")


def numbers(value: float) -> list[dict[str, Any]]:
    choice = {**whole()["choices"][0], "logprobs": {"content": [{"token": "a", "logprob": value}]}}
    return [choice]


def failing_choice(*finishes: str) -> list[dict[str, Any]]:
    return [
        {**whole()["choices"][0], "index": i, "finish_reason": f} for i, f in enumerate(finishes)
    ]


FALSY: Final[tuple[Any, ...]] = (None, False, 0, "", {}, [])
FILTERED: Final = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": True}}}]
LARGE: Final = "a" * (LARGEST - 1000)

# ---------------------------------------------------------------------------------- the comparison


async def check(rows: tuple[Row, ...]) -> None:
    """Send the request of each row through every door, and compare all that comes of it."""
    async with raw_server([(row.answer,) for row in rows]) as upstream:
        entries = {
            f"row-{number}": priced(
                upstream_model=f"{number}", upstream=STRICT if row.strict else "raw"
            )
            for number, row in enumerate(rows)
        }
        async with accounts_stack(
            entries,
            base_urls={"raw": upstream.url, STRICT: upstream.url},
            max_response_bytes=LARGEST,
        ) as stack:
            for door in DOORS:
                found = await asyncio.gather(
                    *(ask(stack, door, number, row) for number, row in enumerate(rows))
                )
                wrong = {
                    (row.name, row.streamed): (told, wanted)
                    for row, (told, wanted) in zip(rows, found, strict=True)
                    if told != wanted
                }
                assert wrong == {}, door
            await stack.rests()
            stack.books.nothing_is_open()


async def ask(stack: AccountsStack, door: DoorName, number: int, row: Row) -> tuple[Any, Any]:
    """Return how a call went and what it cost, and what is right."""
    request = {**document(f"row-{number}"), **row.request}
    team = stack.books.team()
    failure, said = await call(stack, door, team.key, request, streamed=row.streamed)
    code = "" if failure is None else failure.error["code"]
    texts = [
        choice["delta" if row.streamed else "message"].get("content") or ""
        for one in said
        for choice in one["choices"]
        if "message" in choice or "delta" in choice
    ]
    usages = tuple(one["usage"] for one in said if one.get("usage") is not None)
    timings = sum("timings" in one for one in said)
    await stack.rests()
    told = (code, "".join(texts), usages, timings, stack.books.charges(team))
    sound: tuple[Any, ...] = () if row.streamed else (usage(),)
    wanted = (
        row.code,
        row.text,
        sound if row.usages is None else row.usages,
        row.timings,
        charges(row, request, streamed=row.streamed and door != "grpc"),
    )
    return told, wanted


def charges(row: Row, request: Mapping[str, Any], *, streamed: bool) -> list[Charge]:
    used = row.used
    if used is None:
        return []
    prompt = used.prompt
    if used.estimated:
        sent = {**request, "stream": True} if streamed else request
        prompt = -(-openai_json.canonicalize_request(params(sent)).ByteSize() // 4)
    return [
        Charge(
            amount=cost(prompt, used.completion),
            prompt=prompt,
            completion=used.completion,
            partial=used.partial,
            estimated=used.estimated,
        )
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A failed call, in the same form from every door."""

    status: int
    """The HTTP status of the failure; 200 over REST if a stream had begun."""
    error: Mapping[str, Any]
    """The error object."""
    retryable: bool | None


Outcome = tuple[Failure | None, list[Any]]
"""The failure of a call, and all documents before it."""


async def call(
    stack: AccountsStack, door: DoorName, key: str, request: Mapping[str, Any], *, streamed: bool
) -> Outcome:
    """Send a request through a door, and return all that comes back, without receipts."""
    failure, said = await call_with_receipts(stack, door, key, request, streamed=streamed)
    for one in said:
        used = one.get("usage")
        if isinstance(used, dict) and "hold_id" in used.get("cost_details", {}):
            del used["cost"], used["cost_details"]
    return failure, said


async def call_with_receipts(
    stack: AccountsStack, door: DoorName, key: str, request: Mapping[str, Any], *, streamed: bool
) -> Outcome:
    """Send a request through a door, and return all that comes back."""
    if door == "grpc":
        asked = _by_grpc(stack, key, request, streamed=streamed)
    else:
        asked = _by_rest(stack, door, key, request, streamed=streamed)
    return await asyncio.wait_for(asked, PATIENCE)


async def _by_grpc(
    stack: AccountsStack, key: str, request: Mapping[str, Any], *, streamed: bool
) -> Outcome:
    stub = ChatCompletionServiceStub(stack.channel)
    options: dict[str, Any] = {"metadata": (("authorization", f"Bearer {key}"),)}
    said: list[Any] = []
    try:
        if streamed:
            call = stub.StreamChatCompletion(
                StreamChatCompletionRequest(params=params(request)), **options
            )
            async for response in call:
                chunk = openai_json.encode_chunk(response.chunk)
                said += [json.loads(chunk)]
        else:
            answer = await stub.CreateChatCompletion(
                CreateChatCompletionRequest(params=params(request)), **options
            )
            said.append(json.loads(openai_json.encode_completion(answer.completion)))
    except grpc.aio.AioRpcError as error:
        found = failed(error)
        told = json.loads(openai_json.encode_error(found.error))["error"]
        return Failure(status=found.http_status, error=told, retryable=found.retryable), said
    return None, said


async def _by_rest(
    stack: AccountsStack, door: DoorName, key: str, request: Mapping[str, Any], *, streamed: bool
) -> Outcome:
    web = stack.web if door == "rest" else stack.inside
    body = {**request, "stream": True} if streamed else request
    said: list[Any] = []
    async with web.stream(
        "POST",
        PATH,
        content=json.dumps(body).encode(),  # unlike httpx's, with escapes
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    ) as response:
        if response.status_code != 200:
            return _rest_failure(response, json.loads(await response.aread())), said
        if not streamed:
            return None, [json.loads(await response.aread())]
        async for line in response.aiter_lines():
            data = line.removeprefix("data: ")
            if not line.startswith("data: "):
                continue
            if data == "[DONE]":
                return None, said
            one = json.loads(data)
            if "error" in one and "choices" not in one:
                return _rest_failure(response, one), said
            said.append(one)
    raise AssertionError("the stream has no end")


def _rest_failure(response: httpx.Response, document: Mapping[str, Any]) -> Failure:
    return Failure(
        status=response.status_code,
        error=document["error"],
        retryable={"true": True, "false": False}.get(response.headers.get("x-should-retry", "")),
    )


@dataclass(kw_only=True, slots=True)
class Requests:
    """What a raw server received."""

    url: str
    """The base URL of the server."""
    bodies: list[Any] = field(default_factory=list)
    """The documents of the requests, in the order of their arrival."""
    heads: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def raw_server(answers: Sequence[Sequence[bytes]]) -> AsyncIterator[Requests]:
    """Run an upstream that answers a request for the model of a number with that row's bytes.

    Args:
        answers: The answers of each row, of which the last one repeats.
    """
    requests = Requests(url="")
    seen = [0] * len(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        document = json.loads(await reader.readexactly(size))
        requests.bodies.append(document)
        requests.heads.append(head)
        number = int(document["model"])
        answer = answers[number][min(seen[number], len(answers[number]) - 1)]
        seen[number] += 1
        try:
            writer.write(answer)
            await writer.drain()
            writer.write_eof()
            await reader.read()  # the service closes
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        requests.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield requests
