"""llama.cpp's server with a tiny random model as the upstream, through both doors.

Its tokens are single characters and bytes, and it generates some thousands of them per second.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import json
import signal
import tomllib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import httpx
import pytest
from openai import AsyncOpenAI

from chatcompletion import openai_json
from service.metering.bound import bound_of
from service.metering.overhead import TOKENS_PER_PROMPT
from service.models_document import catalogue
from tests.clients.scenarios import require
from tests.clients.servers import CONTEXT, LLAMA_CPP, TINY, llama_cpp
from tests.support import running_service
from tests.support.grpc_client import KEY, failed, params
from tests.support.processes import process
from tests.support.running_bridge import PATH, bridge
from tests.support.running_service import Running
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.time_limit(180)

Door = Literal["rest", "grpc"]
DOORS: Final[tuple[Door, ...]] = ("rest", "grpc")
GREEDY: Final = {"temperature": 0, "ignore_eos": True}
"""The same text each time, up to the limit."""
SCHEMA: Final = {
    "type": "object",
    "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}, "sunny": {"type": "boolean"}},
    "required": ["unit", "sunny"],
    "additionalProperties": False,
}
LONGEST: Final = CONTEXT - 1000
"""Tokens that take llama.cpp longer than a test."""


class RefusedError(Exception):
    """The call failed.

    Args:
        status: The HTTP status.
        message: The message of the error object.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A user of one door, who gets OpenAI's JSON from both."""

    door: Door
    service: Running
    web: httpx.AsyncClient
    """A client of the bridge."""
    upstream: httpx.AsyncClient
    """A client of llama.cpp."""

    async def whole(self, **members: Any) -> dict[str, Any]:
        """Return a completion."""
        request = params(TINY, **members)
        if self.door == "rest":
            found = await self.web.post(PATH, content=openai_json.encode_request(request))
            await _check(found)
            body = found.content
        else:
            try:
                body = openai_json.encode_completion(await self.service.client.create(request))
            except grpc.aio.AioRpcError as error:
                raise _refusal(error) from None
        completion: dict[str, Any] = json.loads(body)
        return completion

    async def streamed(self, **members: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a stream. Closing the iterator ends the connection or the call."""
        if self.door == "rest":
            document = json.loads(openai_json.encode_request(params(TINY, **members)))
            asked = {**document, "stream": True}
            async with self.web.stream("POST", PATH, json=asked) as found:
                await _check(found)
                event = b""
                async for part in found.aiter_bytes():
                    *events, event = (event + part).split(b"\n\n")
                    for data in events:
                        if data.startswith(b"data: {"):
                            yield json.loads(data.removeprefix(b"data: "))
        else:
            call = self.service.client.start_stream(params(TINY, **members))
            try:
                async for response in call:
                    yield json.loads(openai_json.encode_chunk(response.chunk))
            except grpc.aio.AioRpcError as error:
                raise _refusal(error) from None
            finally:
                call.cancel()

    async def measured(self, name: str) -> float:
        """Return a metric of llama.cpp."""
        text = (await self.upstream.get("/metrics")).text
        [value] = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(value)


async def _check(found: httpx.Response) -> None:
    if found.status_code != 200:
        error = json.loads(await found.aread())["error"]
        raise RefusedError(found.status_code, error["message"])


def _refusal(error: grpc.aio.AioRpcError) -> RefusedError:
    found = failed(error)
    return RefusedError(found.http_status, found.message)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(LLAMA_CPP)
    return tmp_path_factory.mktemp("llama")


@pytest.fixture(params=DOORS)
async def user(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[User]:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    async with (
        llama_cpp(directory) as base_url,
        running_service.service(running_service.models([TINY], base_url, key="")) as serving,
        bridge(serving) as door,
        httpx.AsyncClient(
            base_url=f"http://{door.address}", headers=headers, timeout=PATIENCE, trust_env=False
        ) as web,
        httpx.AsyncClient(base_url=base_url, timeout=PATIENCE, trust_env=False) as upstream,
    ):
        yield User(door=request.param, service=serving, web=web, upstream=upstream)


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


async def test_a_whole_and_a_streamed_answer_are_the_same(user: User) -> None:
    whole = await user.whole(max_tokens=64, **GREEDY)
    chunks = [chunk async for chunk in user.streamed(max_tokens=64, **GREEDY)]

    [choice] = whole["choices"]
    reasons = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert choice["finish_reason"] == reasons[-1] == "length"
    assert choice["message"]["content"] == text_of(chunks) != ""
    assert whole["usage"]["completion_tokens"] == 64
    assert {chunk["model"] for chunk in (whole, *chunks)} == {TINY}
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_measured_template_bounds_every_conversation(directory: Path) -> None:
    async with llama_cpp(directory) as base_url:
        settings = {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            "CHAT_UPSTREAM_BASE_URL": base_url,
            "CHAT_UPSTREAM_MODEL": TINY,
        }
        async with process("service", settings, "models", "measure") as measuring:
            assert await measuring.exit_status() == 0, measuring.output
        table = measuring.output.decode().partition("\n\n")[2]
        own = tomllib.loads(table)["models"]["default"]
        assert own["template_tokens"] < TOKENS_PER_PROMPT / 4
        entry = {"upstream": "u", "upstream_model": TINY, "maximum_output_tokens": 8, **own}
        upstreams = {"u": {"base_url": base_url}}
        model = catalogue({"upstreams": upstreams, "models": {TINY: entry}}, {}).get(TINY)
        assert model is not None
        async with httpx.AsyncClient(base_url=base_url, timeout=PATIENCE, trust_env=False) as web:
            for texts in (["hi"], ["Hello, world", "é中😀" * 9, "\n\n  x"], ["a b"] * 15, [""]):
                roles = ("user", "assistant")
                messages = [
                    {"role": roles[number % 2], "content": text}
                    for number, text in enumerate(texts)
                ]
                for first in ([], [{"role": "system", "content": "Be brief."}]):
                    asked = {"model": TINY, "messages": [*first, *messages], "max_tokens": 1}
                    found = await web.post("/v1/chat/completions", json=asked)
                    used = found.json()["usage"]["prompt_tokens"]
                    request = openai_json.decode_request(json.dumps(asked).encode())
                    assert used <= bound_of(request, model, 1).prompt_tokens


async def test_the_usage_of_a_stream(user: User) -> None:
    asked = {"stream_options": {"include_usage": True}, "max_tokens": 8, **GREEDY}
    *_, last = [chunk async for chunk in user.streamed(**asked)]

    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert last["usage"]["prompt_tokens"] > 0
    assert last["timings"]["predicted_n"] == 8


async def test_structured_output(user: User) -> None:
    schema = {"name": "weather", "strict": True, "schema": SCHEMA}
    asked = {"type": "json_schema", "json_schema": schema}
    whole = await user.whole(response_format=asked, max_tokens=300, temperature=0)

    [choice] = whole["choices"]
    assert choice["finish_reason"] == "stop"
    found = json.loads(choice["message"]["content"])
    assert set(found) == {"unit", "sunny"}


async def test_a_stop_sequence(user: User) -> None:
    unstopped = (await user.whole(max_tokens=64, **GREEDY))["choices"][0]["message"]["content"]
    stop = next(mark for mark in unstopped[8:] if mark.isalpha() and mark not in unstopped[:8])
    stopped = await user.whole(max_tokens=64, stop=[stop], **GREEDY)

    [choice] = stopped["choices"]
    assert choice["message"]["content"] == unstopped[: unstopped.index(stop)]
    assert choice["finish_reason"] == "stop"


async def test_a_long_answer_of_one_character_per_event_is_not_cut(user: User) -> None:
    asked = {"stream_options": {"include_usage": True}, "max_tokens": 1500, **GREEDY}
    chunks = [chunk async for chunk in user.streamed(**asked)]

    assert chunks[-1]["usage"]["completion_tokens"] == 1500
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    whole = await user.whole(max_tokens=1500, **GREEDY)
    assert whole["choices"][0]["message"]["content"] == text_of(chunks)


async def test_a_prompt_that_is_too_long(user: User) -> None:
    long = [{"role": "user", "content": "x" * (CONTEXT + 1)}]
    for call in (user.whole(messages=long), anext(user.streamed(messages=long))):
        with pytest.raises(RefusedError, match="exceeds the available context size") as caught:
            await call
        assert caught.value.status == 400


async def test_a_picture_for_a_text_model(user: User) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(RefusedError, match="image input is not supported"):
        await user.whole(messages=[{"role": "user", "content": [picture]}])


async def test_a_caller_who_leaves_stops_the_upstream(user: User) -> None:
    async with aclosing(user.streamed(max_tokens=LONGEST, **GREEDY)) as chunks:
        while not text_of([await anext(chunks)]):
            pass
        assert await user.measured("llamacpp:requests_processing") == 1
    await user.service.rests()
    async with asyncio.timeout(PATIENCE):
        while await user.measured("llamacpp:requests_processing"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert await user.measured("llamacpp:tokens_predicted_total") < LONGEST


async def test_two_variables_are_enough_for_make_up(directory: Path) -> None:
    free = "127.0.0.1:0"
    async with llama_cpp(directory) as base_url:
        variables = {
            "CHAT_UPSTREAM_BASE_URL": base_url,
            "CHAT_UPSTREAM_MODEL": TINY,
            "CHAT_BOOTSTRAP_API_KEY": KEY,
            "CHAT_LISTEN": free,
            "CHAT_BRIDGE_LISTEN": free,
            "CHAT_METRICS_LISTEN": "none",
            "CHAT_BRIDGE_METRICS_LISTEN": "none",
        }
        async with process("restbridge", variables, "--standalone") as running:
            address = await running.address()
            async with AsyncOpenAI(base_url=f"http://{address}/v1", api_key=KEY) as caller:
                completion = await caller.chat.completions.create(
                    model="default", messages=[{"role": "user", "content": "hi"}], max_tokens=8
                )
            running.send(signal.SIGINT)
            assert await running.exit_status() == 0

    assert completion.choices[0].message.content
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8
    assert f"model default -> {TINY} at {base_url}/v1, key none".encode() in running.output
