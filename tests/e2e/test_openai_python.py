"""OpenAI's SDK for Python, unmodified, through bridge and service to the simulator.

create, stream, .stream(), .parse(), tools, n, stop, logprobs, raw responses, models
each failure by its class; retries; broken streams
users who disconnect, in every way
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Literal, cast

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatCompletionToolUnionParam,
)
from pydantic import BaseModel

from chatcompletion.reasons import RULES
from tests.support.bridge_pair import bridged
from tests.support.failing import CASES, DOORS, Case, by_door, door
from tests.support.fake_service import refusing
from tests.support.grpc_client import KEY
from tests.support.running_bridge import Via
from tests.support.running_service import UPSTREAM_KEY
from tests.support.stack import (
    HELLO,
    PUBLIC,
    UPSTREAM_NAME,
    Stack,
    assert_answered,
    assert_left,
    now,
    stack,
)
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

INTRODUCTION = "This is the built-in simulator; no model was called."
FAULTS = (
    "sim-fault:cut-chunked-body",
    "sim-fault:error-event",
    "sim-fault:error-event-first",
    "sim-fault:hang-before-headers",
    "sim-fault:hang-mid-stream",
    "sim-fault:clean-end-mid-stream",
    "sim-fault:500",
    "sim:ttft=0.2",
    "sim-fault:500,ttft=0.2",
)


class Weather(BaseModel):
    """The arguments of a tool, or the format of a response."""

    city: str
    days: int
    unit: Literal["celsius", "fahrenheit"]


@pytest.fixture
async def running(via: Via) -> AsyncIterator[Stack]:
    async with stack(FAULTS, via=via) as all_of_it:
        yield all_of_it


@pytest.fixture
async def client(running: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with running.openai() as user:
        yield user


async def in_thread(running: Stack, use: Callable[[OpenAI], Any]) -> Any:
    """Use the synchronous client in a thread, because it would block the bridge."""

    def run() -> Any:
        with OpenAI(**running.options) as user:
            return use(user)

    return await asyncio.to_thread(run)


# ------------------------------------------------------------------------------------- answers


async def test_a_completion(running: Stack, client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model=PUBLIC, messages=HELLO, temperature=0.5, max_completion_tokens=13
    )

    assert completion.object == "chat.completion"
    assert completion.model == PUBLIC
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert choice.message.role == "assistant"
    assert choice.message.content == INTRODUCTION
    assert choice.message.refusal is None
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 13
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 13
    assert completion._request_id
    record = running.upstream.records[0]
    assert record.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert record.headers["x-request-id"] == completion._request_id
    assert record.document == {
        "model": UPSTREAM_NAME,
        "messages": HELLO,
        "temperature": 0.5,
        # In the member that this upstream obeys.
        "max_tokens": 13,
    }


async def test_a_stream(running: Stack, client: AsyncOpenAI) -> None:
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model=PUBLIC, messages=HELLO, max_tokens=13, stream=True
        )
    ]

    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {PUBLIC}
    assert {len(chunk.choices) for chunk in chunks} == {1}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == INTRODUCTION
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 14 + ["length"]
    assert running.upstream.records[0].document["stream_options"] == {"include_usage": True}


async def test_the_synchronous_client_does_the_same(running: Stack) -> None:
    def use(user: OpenAI) -> tuple[str | None, str, list[str]]:
        whole = user.chat.completions.create(model=PUBLIC, messages=HELLO, max_tokens=13)
        pieces = user.chat.completions.create(
            model=PUBLIC, messages=HELLO, max_tokens=13, stream=True
        )
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        return whole.choices[0].message.content, text, [model.id for model in user.models.list()]

    assert await in_thread(running, use) == (INTRODUCTION, INTRODUCTION, [PUBLIC, *FAULTS])


async def test_the_usage_of_a_stream_comes_where_it_is_asked_for(client: AsyncOpenAI) -> None:
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model=PUBLIC,
            messages=HELLO,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
    ]

    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


async def test_the_stream_helper(client: AsyncOpenAI) -> None:
    kinds: list[str] = []
    async with client.chat.completions.stream(
        model=PUBLIC, messages=HELLO, stop=".", stream_options={"include_usage": True}
    ) as events:
        async for event in events:
            kinds.append(event.type)  # noqa: PERF401  (the stream is used after)
        completion = await events.get_final_completion()

    assert kinds[0] == "chunk"
    assert kinds.count("content.delta") == 13  # of which the first is empty
    assert kinds.count("content.done") == 1
    assert completion.choices[0].message.content == INTRODUCTION.removesuffix(".")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == PUBLIC
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 12


async def test_parsing_into_a_model(running: Stack, client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.parse(
        model=PUBLIC, messages=HELLO, response_format=Weather
    )
    async with client.chat.completions.stream(
        model=PUBLIC, messages=HELLO, response_format=Weather
    ) as events:
        streamed = await events.get_final_completion()

    parsed = completion.choices[0].message.parsed
    assert isinstance(parsed, Weather)
    assert streamed.choices[0].message.parsed == parsed
    asked = running.upstream.records[0].document["response_format"]
    assert asked["json_schema"]["strict"] is True
    # The model sees the order of members.
    assert list(asked["json_schema"]["schema"]["properties"]) == ["city", "days", "unit"]


async def test_parsing_a_text_that_was_cut(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        await client.chat.completions.parse(
            model=PUBLIC, messages=HELLO, response_format=Weather, max_tokens=2
        )


TOOLS: list[ChatCompletionToolUnionParam] = [
    cast("ChatCompletionToolUnionParam", pydantic_function_tool(Weather, name="weather"))
]


async def test_a_tool_and_its_answer(running: Stack, client: AsyncOpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Which weather?"}]
    asked = await client.chat.completions.parse(model=PUBLIC, messages=messages, tools=TOOLS)
    message = asked.choices[0].message
    assert message.tool_calls is not None
    [call] = message.tool_calls
    # Messages that the SDK returned are sent back unchanged.
    messages.append(cast("ChatCompletionMessageParam", message))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "Rain."})
    told = await client.chat.completions.create(model=PUBLIC, messages=messages, tools=TOOLS)

    assert asked.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert call.function.name == "weather"
    assert isinstance(call.function.parsed_arguments, Weather)
    assert told.choices[0].message.content
    sent = running.upstream.records[1].document["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.id
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == call.function.arguments


async def test_a_tool_in_a_stream(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model=PUBLIC,
        messages=HELLO,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "weather"}},
    ) as events:
        kinds = [event.type async for event in events]
        completion = await events.get_final_completion()

    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert isinstance(calls[0].function.parsed_arguments, Weather)
    assert "tool_calls.function.arguments.delta" in kinds
    assert kinds.count("tool_calls.function.arguments.done") == 1


async def test_several_choices(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(
        model=PUBLIC, messages=HELLO, n=3, max_tokens=20, seed=7
    )
    texts: dict[int, str] = {0: "", 1: "", 2: ""}
    finished: list[int] = []
    async for chunk in await client.chat.completions.create(
        model=PUBLIC, messages=HELLO, n=3, max_tokens=20, seed=7, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.append(choice.index)

    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert [choice.message.content for choice in whole.choices] == list(texts.values())
    assert len(set(texts.values())) == 3
    assert finished == [0, 1, 2]


@pytest.mark.parametrize("stop", [" simulator", ["never", " simulator"]])
async def test_stop(client: AsyncOpenAI, stop: str | list[str]) -> None:
    completion = await client.chat.completions.create(model=PUBLIC, messages=HELLO, stop=stop)

    assert completion.choices[0].message.content == "This is the built-in"
    assert completion.choices[0].finish_reason == "stop"


async def test_logprobs(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(
        model=PUBLIC, messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2
    )
    entries = []
    async for chunk in await client.chat.completions.create(
        model=PUBLIC, messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2, stream=True
    ):
        told = chunk.choices[0].logprobs
        entries += (told and told.content) or []

    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["This", " is", " the"]
    assert logprobs.content[0].bytes == list(b"This")
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [2, 2, 2]
    assert all(entry.logprob < 0 for entry in logprobs.content)
    assert entries == logprobs.content


async def test_raw_responses(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.with_raw_response.create(
        model=PUBLIC, messages=HELLO, extra_headers={"x-request-id": "req-of-the-caller"}
    )
    streamed = await client.chat.completions.with_raw_response.create(
        model=PUBLIC, messages=HELLO, stream=True
    )

    assert whole.headers["content-type"] == "application/json"
    assert whole.headers["x-request-id"] == "req-of-the-caller"
    assert int(whole.headers["openai-processing-ms"]) >= 0
    assert whole.parse()._request_id == "req-of-the-caller"
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed.headers["x-request-id"]
    assert int(streamed.headers["openai-processing-ms"]) >= 0
    assert [chunk async for chunk in streamed.parse()]


async def test_the_models(client: AsyncOpenAI) -> None:
    listed = await client.models.list()
    found = await client.models.retrieve(PUBLIC)

    assert listed.object == "list"
    assert [model.id for model in listed.data] == [PUBLIC, *FAULTS]
    assert (found.id, found.object) == (PUBLIC, "model")
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("org/no-such:model")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


# ---------------------------------------------------------- what the SDK or OpenAI does not know


async def test_members_of_vendors_reach_the_upstream(running: Stack, client: AsyncOpenAI) -> None:
    vendor = {
        "top_k": -1,
        "guided_json": {"type": "object", "z": 1, "a": [None, 1.0, 2**63]},
        "repetition_penalty": 1.05,
        "cache_control": None,
        "stop_token_ids": [],
    }

    await client.chat.completions.create(model=PUBLIC, messages=HELLO, extra_body=vendor)

    sent = running.upstream.records[0].document
    assert {name: sent[name] for name in vendor} == vendor
    assert list(sent["guided_json"]) == ["type", "z", "a"]


async def test_a_message_goes_back_as_it_came(running: Stack, client: AsyncOpenAI) -> None:
    message = {
        "role": "assistant",
        "content": "Four.",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "reasoning": "Two and two…",
        "reasoning_details": [{"type": "text", "signature": None}],
    }
    running.upstream.reply_with(UPSTREAM_NAME, body=_completion(message))

    first = await client.chat.completions.create(model=PUBLIC, messages=HELLO)
    returned = cast("ChatCompletionMessageParam", first.choices[0].message)
    await client.chat.completions.create(model=PUBLIC, messages=[*HELLO, returned])

    assert running.upstream.records[1].document["messages"] == [*HELLO, message]


async def test_the_reasoning_of_vendors(running: Stack, client: AsyncOpenAI) -> None:
    deltas: list[Mapping[str, Any]] = [
        {"role": "assistant", "content": None, "reasoning_content": "Two "},
        {"reasoning_content": "and two.", "reasoning": "Sum."},
        {"content": "Four."},
    ]
    running.upstream.stream_with(UPSTREAM_NAME, [*map(_chunk, deltas), _chunk({}, "stop")])
    running.upstream.reply_with(
        UPSTREAM_NAME,
        body=_completion({"role": "assistant", "content": "4", "reasoning_content": "Sum."}),
    )

    whole = await client.chat.completions.create(model=PUBLIC, messages=HELLO)
    told = [
        chunk.choices[0].delta.model_dump(exclude_unset=True)
        async for chunk in await client.chat.completions.create(
            model=PUBLIC, messages=HELLO, stream=True
        )
    ]

    assert whole.choices[0].message.model_extra == {"reasoning_content": "Sum."}
    assert told == [*deltas, {}]


async def test_absent_members_may_be_null(running: Stack, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model=PUBLIC, messages=HELLO, temperature=None, stop=None, n=None, max_tokens=None
    )

    sent = running.upstream.records[0].document
    assert [sent[name] for name in ("temperature", "stop", "n")] == [None, None, None]
    assert sent["max_tokens"] == 1024


def _completion(message: Mapping[str, Any]) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    head = {"id": "c-1", "object": "chat.completion", "created": 1, "model": UPSTREAM_NAME}
    return json.dumps({**head, "choices": [choice]}).encode()


def _chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": UPSTREAM_NAME}
    return json.dumps({**head, "choices": [choice]}).encode()


# ------------------------------------------------------------------------------------ failures


BRIDGES_OWN = {"invalid_json", "unsupported_media_type"}
"""Codes whose status alone stops SDKs from retrying."""


async def _failure(base_url: str, case: Case, *, streamed: bool, retries: int) -> Any:
    async with AsyncOpenAI(
        base_url=base_url, api_key=case.key, max_retries=retries, timeout=PATIENCE
    ) as user:
        create: Any = user.chat.completions.create
        with pytest.raises(openai.APIStatusError) as caught:
            await create(
                **case.members,
                stream=streamed,
                extra_body=dict(case.vendor),
                extra_headers=dict(case.headers),
            )
    return caught.value


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_failure_has_its_class(case: Case, streamed: bool, via: Via) -> None:
    async with door(case.door, via) as found:
        error = await _failure(
            f"http://{found.address}/v1",
            case,
            streamed=streamed,
            # Allows retries of failures that must not be retried. Others have their own test.
            retries=0 if case.retried else 2,
        )
        await assert_answered(found, 1)

    assert type(error).__name__ == (case.raises or "APIStatusError")
    assert error.status_code == case.status
    assert (error.type, error.code, error.param) == (case.type, case.code, case.param)
    assert isinstance(error.body, dict)
    assert error.body["message"] == error.body["message"].strip() != ""
    assert error.request_id == error.response.headers["x-request-id"] != ""
    if case.code not in BRIDGES_OWN:
        assert error.response.headers["x-should-retry"] == ("true" if case.retried else "false")


async def test_only_what_may_be_sent_again_is_sent_again(via: Via) -> None:
    retried = by_door([case for case in CASES if case.retried])
    async with AsyncExitStack() as doors:
        found = {kind: await doors.enter_async_context(door(kind, via)) for kind in DOORS}
        await asyncio.gather(
            *(
                _failure(f"http://{found[kind].address}/v1", case, streamed=False, retries=2)
                for kind, cases in retried.items()
                for case in cases
            )
        )
        for kind, cases in retried.items():
            await assert_answered(found[kind], 3 * len(cases))


async def read(
    stream: openai.AsyncStream[ChatCompletionChunk],
) -> tuple[list[ChatCompletionChunk], openai.APIError | None]:
    """Return the chunks of a stream, and how it broke if it did."""
    chunks: list[ChatCompletionChunk] = []
    try:
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401  (kept when the stream breaks)
    except openai.APIError as error:
        return chunks, error
    return chunks, None


CLASSES: Final[Mapping[int, str]] = {
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "InternalServerError",
    503: "InternalServerError",
    504: "InternalServerError",
}
"""The SDK's class for a status; APIStatusError for any other."""


@pytest.mark.parametrize("reason", sorted(RULES.keys() - {"CANCELLED"}))
async def test_every_reason_of_the_contract_is_told(reason: str) -> None:
    """Reasons that the service does not return yet come from a fake service here."""
    rule = RULES[reason]
    delay = 0.01 if rule.retryable else None
    async with bridged() as pair:
        pair.service.create, _ = refusing(reason, retry_delay=delay)
        case = Case(name=reason, status=0, type="", code="", raises="")
        url = f"http://{pair.bridge.address}/v1"
        error = await _failure(url, case, streamed=False, retries=2)
        await assert_answered(pair.bridge, 3 if rule.retryable else 1)

    assert type(error).__name__ == CLASSES.get(rule.http_status, "APIStatusError")
    assert (error.status_code, error.type, error.code) == (rule.http_status, rule.type, rule.code)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("sim-fault:cut-chunked-body", "upstream_truncated"),
        ("sim-fault:clean-end-mid-stream", "upstream_truncated"),
        ("sim-fault:error-event", "upstream_error"),
    ],
)
async def test_a_stream_that_breaks_raises(running: Stack, model: str, code: str) -> None:
    async with running.openai(max_retries=2) as client:
        stream = await client.chat.completions.create(
            model=model, messages=HELLO, max_tokens=13, stream=True
        )
        chunks, error = await read(stream)
        assert [chunk async for chunk in stream] == []

    assert type(error) is openai.APIError
    assert (error.type, error.code, error.param) == ("server_error", code, None)
    assert 0 < len(chunks) <= 15
    assert len(running.upstream.records) == 1


async def test_an_error_before_the_first_chunk_has_a_status(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(
            model="sim-fault:error-event-first", messages=HELLO, stream=True
        )

    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")


async def test_the_synchronous_client_raises_when_a_stream_breaks(running: Stack) -> None:
    def use(user: OpenAI) -> str | None:
        with pytest.raises(openai.APIError) as caught:
            list(
                user.chat.completions.create(
                    model="sim-fault:cut-chunked-body", messages=HELLO, stream=True
                )
            )
        return caught.value.code

    assert await in_thread(running, use) == "upstream_truncated"


# ---------------------------------------------------------------------------------- keep-alive


async def test_comments_before_the_first_token_do_not_disturb(via: Via) -> None:
    request = {"model": "sim:ttft=0.2", "messages": HELLO, "max_tokens": 13, "stream": True}
    async with stack(FAULTS, silence=0.01, via=via) as running, running.openai() as client:
        async with running.http() as http:
            raw = await http.post("/v1/chat/completions", json=request)
        text = ""
        async for chunk in await client.chat.completions.create(
            model="sim:ttft=0.2", messages=HELLO, max_tokens=13, stream=True
        ):
            text += chunk.choices[0].delta.content or ""
        chunks, error = await read(
            await client.chat.completions.create(
                model="sim-fault:500,ttft=0.2", messages=HELLO, stream=True
            )
        )

    assert raw.text.startswith(": keep-alive\n\n")
    assert text == INTRODUCTION
    assert chunks == []
    assert type(error) is openai.APIError  # the status was 200 by then
    assert error.code == "upstream_error"


# ------------------------------------------------------------------------------ disconnections


@pytest.mark.alone
async def test_closing_a_stream_closes_the_upstream(running: Stack, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="sim-fault:hang-mid-stream", messages=HELLO, stream=True
    )
    await anext(stream)
    record = await running.arrived()

    left_at = now()
    await stream.close()

    await assert_left(record, left_at)
    await running.idle()


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_cancelling_a_task_that_waits_closes_the_upstream(
    running: Stack, client: AsyncOpenAI, streamed: bool
) -> None:
    create: Any = client.chat.completions.create
    waiting = asyncio.create_task(
        create(model="sim-fault:hang-before-headers", messages=HELLO, stream=streamed)
    )
    record = await running.arrived()

    left_at = now()
    waiting.cancel()

    await assert_left(record, left_at)
    await running.idle()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.alone
async def test_cancelling_a_task_that_reads_closes_the_upstream(
    running: Stack, client: AsyncOpenAI
) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async with client.chat.completions.stream(
            model="sim-fault:hang-mid-stream", messages=HELLO
        ) as events:
            async for _ in events:
                begun.set()

    reading = asyncio.create_task(read())
    record = await running.arrived()
    await begun.wait()

    left_at = now()
    reading.cancel()

    await assert_left(record, left_at)
    await running.idle()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.alone
async def test_a_timeout_of_the_sdk_closes_the_upstream(running: Stack) -> None:
    async with running.openai(timeout=openai.Timeout(PATIENCE, read=0.5)) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(
                model="sim-fault:hang-before-headers", messages=HELLO
            )
        left_at = now()

    await assert_left(await running.arrived(), left_at)
    await running.idle()


@pytest.mark.alone
async def test_closing_a_stream_in_a_thread_closes_the_upstream(running: Stack) -> None:
    def use(user: OpenAI) -> float:
        stream = user.chat.completions.create(
            model="sim-fault:hang-mid-stream", messages=HELLO, stream=True
        )
        next(stream)
        left_at = now()
        stream.close()
        return left_at

    left_at = await in_thread(running, use)

    await assert_left(await running.arrived(), left_at)
    await running.idle()


READER = """
import os, openai
with openai.OpenAI(base_url=os.environ["URL"], api_key=os.environ["KEY"]) as client:
    for chunk in client.chat.completions.create(
        model="sim-fault:hang-mid-stream",
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
    ):
        print("chunk", flush=True)
"""


@pytest.mark.alone
async def test_killing_the_client_closes_the_upstream(running: Stack) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", READER),
        cwd=ROOT,
        env={"URL": running.base_url, "KEY": KEY},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"chunk\n"
    record = await running.arrived()

    left_at = now()
    process.kill()

    await assert_left(record, left_at)
    await running.idle()
    await process.communicate()
