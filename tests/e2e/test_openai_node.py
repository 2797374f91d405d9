"""OpenAI's SDK for Node, in its two latest major versions, through bridge and service.

    this process   stack, assertions         node   run.mjs, cases.mjs: a user of the SDK
                   -> a case, as one line of JSON ->
                   <- its result <-

If Node or its packages are missing, the tests are skipped, or fail in CI.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from restbridge.server import Bridge
from tests.support.accounts_stack import accounts_stack
from tests.support.cutter import Cutter
from tests.support.failing import CASES, DOORS, Case, by_door, door
from tests.support.grpc_client import KEY
from tests.support.priced_models import CREDIT, priced
from tests.support.running_bridge import Via
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
from tests.support.waiting import PATIENCE

NODE_TESTS: Final = Path(__file__).parent / "node"
SDKS: Final = ("openai", "openai-6")
"""The names in package.json: the latest version, and the preceding major version."""
FAULTS: Final = (
    "sim-fault:cut-chunked-body",
    "sim-fault:error-event",
    "sim-fault:hang-before-headers",
    "sim-fault:hang-mid-stream",
    "sim-fault:clean-end-mid-stream",
    "sim:ttft=0.2",
)
INTRODUCTION: Final = "This is the built-in simulator; no model was called"
"""The beginning of the simulator's text, up to the first full stop."""


class Node:
    """A process that uses the SDK for the requested cases.

    Args:
        process: `run.mjs`, with pipes for its input and output.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    async def run(
        self, case: str, arguments: Mapping[str, Any], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Run a case and return {"result": …} or {"error": …}.

        Raises:
            AssertionError: the process ended or said nothing.
        """
        request = json.dumps({"case": case, "arguments": arguments, "options": options})
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await asyncio.to_thread(self._ask, request)
        except TimeoutError:
            self.kill()  # ends the thread
            raise AssertionError(f"{case} said nothing") from None
        assert answer, f"{case} ended the process"
        told: dict[str, Any] = json.loads(answer)
        return told

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def _ask(self, request: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def node_with(sdk: str) -> Iterator[Node]:
    """Run Node with an SDK."""
    node = shutil.which("node")
    if node is None or not (NODE_TESTS / "node_modules" / sdk).is_dir():
        missing = "Node or its packages are not here: npm ci --prefix tests/e2e/node"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with subprocess.Popen(  # noqa: S603  (a program and a script of ours)
        [node, "run.mjs", sdk],
        cwd=NODE_TESTS,
        env={"PATH": os.environ.get("PATH", "")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield Node(process)
        finally:
            process.kill()


@pytest.fixture(scope="module", params=SDKS)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with node_with(request.param) as process:
        yield process


class User:
    """A user of the SDK and a stack.

    Args:
        node: The user's process.
        running: The stack.
    """

    def __init__(self, node: Node, running: Stack) -> None:
        self._node = node
        self._options = options_for(running.bridge)

    async def does(self, case: str, **members: Any) -> Any:
        """Run a case that must succeed, and return its result.

        Args:
            case: Its name in `cases.mjs`.
            members: Of the request; the model is `PUBLIC` otherwise.
        """
        told = await self._node.run(case, {"model": PUBLIC, **members}, self._options)
        assert "error" not in told, told
        return told["result"]

    async def fails(self, case: str, **members: Any) -> dict[str, Any]:
        """Run a case that must fail, and return its exception."""
        told = await self._node.run(case, {"model": PUBLIC, **members}, self._options)
        assert "result" not in told
        error: dict[str, Any] = told["error"]
        return error


def options_for(found: Bridge) -> dict[str, Any]:
    """Return the arguments of the SDK's client."""
    return {
        "baseURL": f"http://{found.address}/v1",
        "apiKey": KEY,
        "maxRetries": 0,
        "timeout": PATIENCE * 1000,
    }


@pytest.fixture
async def running(via: Via) -> AsyncIterator[Stack]:
    async with stack(FAULTS, via=via) as all_of_it:
        yield all_of_it


@pytest.fixture
def user(node: Node, running: Stack) -> User:
    return User(node, running)


def text_of(chunks: Sequence[Mapping[str, Any]], index: int = 0) -> str:
    """Return the content of one choice."""
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == index
    )


# ------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize(("headers", "charges"), [({"Idempotency-Key": "one"}, 1), ({}, 2)])
@pytest.mark.parametrize("case", ["create", "stream"])
async def test_retries_with_a_key_are_charged_once(
    node: Node, case: str, headers: dict[str, str], charges: int
) -> None:
    """The SDK sends no key of its own, but repeats the headers of the request."""
    async with accounts_stack({"default": priced(upstream_model="sim:tokens=8")}) as running:
        team = running.books.team(credit=CREDIT)
        port = int(running.bridge.address.rpartition(":")[2])
        async with Cutter(port, 20) as base_url:
            options = options_for(running.bridge) | {
                "baseURL": base_url,
                "apiKey": team.key,
                "maxRetries": 2,
                "defaultHeaders": headers,
            }
            told = await node.run(case, {"model": "default"}, options)
        assert "error" not in told
        assert told["result"].get("error") is None
        await running.rests()
        assert len(running.books.charges(team)) == charges
        assert len(running.upstream.records) == charges


# ------------------------------------------------------------------------------------- answers


async def test_a_completion(running: Stack, user: User) -> None:
    told = await user.does("create", stop=".", temperature=0.5, top_k=5, logit_bias=None)

    completion = told["completion"]
    assert (completion["object"], completion["model"]) == ("chat.completion", PUBLIC)
    assert completion["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": INTRODUCTION,
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert completion["usage"]["completion_tokens"] == 12
    record = running.upstream.records[0]
    assert told["requestID"] == record.headers["x-request-id"]
    assert record.document == {
        "model": UPSTREAM_NAME,
        "messages": HELLO,
        "stop": ".",
        "temperature": 0.5,
        "top_k": 5,
        "logit_bias": None,
        "max_tokens": 1024,
    }


async def test_a_stream(user: User) -> None:
    told = await user.does("stream", stop=".")
    with_usage = await user.does("stream", stop=".", stream_options={"include_usage": True})

    assert told["error"] is None
    assert {chunk["model"] for chunk in told["chunks"]} == {PUBLIC}
    assert all(chunk["choices"] for chunk in told["chunks"])
    assert text_of(told["chunks"]) == INTRODUCTION
    assert told["chunks"][-1]["choices"][0]["finish_reason"] == "stop"
    assert with_usage["chunks"][-1]["choices"] == []
    assert with_usage["chunks"][-1]["usage"]["completion_tokens"] == 12


async def test_the_stream_helper(user: User) -> None:
    told = await user.does("streamHelper", stop=".", stream_options={"include_usage": True})

    assert told["events"] == ["content"] * 12 + ["finalContent", "end"]
    assert told["completion"]["model"] == PUBLIC
    assert told["completion"]["choices"][0]["message"]["content"] == INTRODUCTION
    assert told["usage"]["completion_tokens"] == 12


async def test_parsing_into_a_schema(running: Stack, user: User) -> None:
    told = await user.does("parse")

    assert told["parsed"] == told["streamed"]
    assert set(told["parsed"]) == {"city", "days", "unit"}
    asked = running.upstream.records[0].document["response_format"]["json_schema"]
    assert asked["strict"] is True
    assert asked["schema"]["additionalProperties"] is False
    assert list(asked["schema"]["properties"]) == ["city", "days", "unit"]


async def test_tools(user: User) -> None:
    told = await user.does("tools")

    for called in (told["whole"], told["streamed"]):
        assert called["name"] == "weather"
        assert called["id"].startswith("call_")
        assert called["parsed_arguments"] == json.loads(called["arguments"])
    assert told["whole"]["finish_reason"] == told["streamed"]["finish_reason"] == "tool_calls"
    assert told["whole"]["arguments"] == told["streamed"]["arguments"]


async def test_running_tools(running: Stack, user: User) -> None:
    told = await user.does("runTools")

    assert told["roles"] == ["user", "assistant", "tool", "assistant"]
    assert len(told["asked"]) == 2
    assert all(content.startswith(INTRODUCTION) for content in told["contents"])
    assert len(running.upstream.records) == 4
    sent = running.upstream.records[1].document["messages"]
    assert sent[1]["content"] is None
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
    assert sent[2]["content"] == "Rain."


async def test_several_choices(user: User) -> None:
    whole = await user.does("create", n=3, max_tokens=20, seed=7)
    streamed = await user.does("stream", n=3, max_tokens=20, seed=7)
    helped = await user.does("streamHelper", n=3, max_tokens=20, seed=7)

    texts = [choice["message"]["content"] for choice in whole["completion"]["choices"]]
    assert len(set(texts)) == 3
    assert [text_of(streamed["chunks"], index) for index in range(3)] == texts
    assert [choice["message"]["content"] for choice in helped["completion"]["choices"]] == texts


async def test_stop(user: User) -> None:
    for stop in (" simulator", ["never", " simulator"]):
        told = await user.does("create", stop=stop)
        [choice] = told["completion"]["choices"]
        assert choice["message"]["content"] == "This is the built-in"
        assert choice["finish_reason"] == "stop"


async def test_logprobs(user: User) -> None:
    asked = {"max_tokens": 3, "logprobs": True, "top_logprobs": 2}
    whole = await user.does("create", **asked)
    streamed = await user.does("stream", **asked)

    entries = whole["completion"]["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in entries] == ["This", " is", " the"]
    assert entries[0]["bytes"] == list(b"This")
    assert [len(entry["top_logprobs"]) for entry in entries] == [2, 2, 2]
    assert entries == [
        entry
        for chunk in streamed["chunks"]
        for entry in (chunk["choices"][0].get("logprobs") or {}).get("content") or []
    ]


async def test_raw_responses(user: User) -> None:
    told = await user.does("withResponse")

    assert told["whole"]["content-type"] == "application/json"
    assert told["whole"]["requestID"] == told["whole"]["x-request-id"] == "req-of-the-caller"
    assert int(told["whole"]["openai-processing-ms"]) >= 0
    assert told["streamed"]["content-type"] == "text/event-stream; charset=utf-8"
    assert told["streamed"]["requestID"] == told["streamed"]["x-request-id"] != ""


async def test_the_models(user: User) -> None:
    told = await user.does("models")
    error = await user.fails("unknownModel", model="org/no-such:model")

    assert told["ids"] == [PUBLIC, *FAULTS]
    assert (told["found"]["id"], told["found"]["object"]) == (PUBLIC, "model")
    assert (error["class"], error["status"]) == ("NotFoundError", 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_comments_before_the_first_token_do_not_disturb(node: Node, via: Via) -> None:
    async with stack(FAULTS, silence=0.01, via=via) as running:
        told = await User(node, running).does("stream", model="sim:ttft=0.2", stop=".")

    assert text_of(told["chunks"]) == INTRODUCTION


# ------------------------------------------------------------------------------------ failures


async def failures(node: Node, found: Bridge, requests: Sequence[Mapping[str, Any]]) -> Any:
    """Return the exceptions of concurrent requests."""
    told = await node.run("failures", {"requests": requests}, options_for(found))
    return told["result"]


def request_of(case: Case, *, retries: int, **members: Any) -> dict[str, Any]:
    """Return a case in the form that `failures` accepts."""
    return {
        "options": {"apiKey": case.key, "maxRetries": retries},
        "members": {**case.members, **case.vendor, **members},
        "headers": dict(case.headers),
    }


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_failure_has_its_class(node: Node, case: Case, via: Via) -> None:
    retries = 0 if case.retried else 2
    async with door(case.door, via) as found:
        requests = [request_of(case, retries=retries, stream=stream) for stream in (False, True)]
        errors = await failures(node, found, requests)
        await assert_answered(found, 2)

    for error in errors:
        assert error["class"] == (case.raises or "APIError")
        assert error["status"] == case.status
        assert (error["type"], error["code"], error["param"]) == (case.type, case.code, case.param)
        assert error["message"].startswith(f"{case.status} ")
        assert error["requestID"]
        assert error["shouldRetry"] in (None, "true" if case.retried else "false")


async def test_only_what_may_be_sent_again_is_sent_again(node: Node, via: Via) -> None:
    retried = by_door([case for case in CASES if case.retried])
    async with AsyncExitStack() as doors:
        found = {kind: await doors.enter_async_context(door(kind, via)) for kind in DOORS}
        requests = [
            {**request, "options": {**request["options"], "baseURL": f"http://{at.address}/v1"}}
            for kind, at in found.items()
            for request in (request_of(case, retries=2) for case in retried[kind])
        ]
        errors = await failures(node, found["usual"], requests)

        assert all(error["requestID"] for error in errors)
        for kind, cases in retried.items():
            await assert_answered(found[kind], 3 * len(cases))


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("sim-fault:cut-chunked-body", "upstream_truncated"),
        ("sim-fault:clean-end-mid-stream", "upstream_truncated"),
        ("sim-fault:error-event", "upstream_error"),
    ],
)
async def test_a_stream_that_breaks_raises(
    running: Stack, user: User, model: str, code: str
) -> None:
    told = await user.does("stream", model=model)
    helped = await user.fails("streamHelper", model=model)

    assert told["chunks"]
    for error in (told["error"], helped):
        assert error["class"] == "APIError"
        assert (error["status"], error["type"], error["code"]) == (None, "server_error", code)
    assert len(running.upstream.records) == 2


# ------------------------------------------------------------------------------ disconnections


@pytest.mark.alone
@pytest.mark.parametrize("way", ["leaveByAbort", "leaveByBreak", "leaveByHelper"])
async def test_leaving_a_stream_closes_the_upstream(running: Stack, user: User, way: str) -> None:
    told = await user.does(way, model="sim-fault:hang-mid-stream")

    await assert_left(await running.arrived(), told["at"])
    await running.idle()
    # The SDK connects again immediately, and uses that connection afterwards.
    assert await user.does("create")


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_aborting_a_request_that_waits_closes_the_upstream(
    running: Stack, user: User, streamed: bool
) -> None:
    await user.does("hold", model="sim-fault:hang-before-headers", stream=streamed)
    record = await running.arrived()

    told = await user.does("leave")

    assert told["error"]["class"] == "APIUserAbortError"
    await assert_left(record, told["at"])
    await running.idle()
    assert await user.does("create")  # as above


@pytest.mark.alone
async def test_killing_the_process_closes_the_upstream(running: Stack) -> None:
    with node_with(SDKS[0]) as node:
        await User(node, running).does("hold", model="sim-fault:hang-mid-stream", stream=True)
        record = await running.arrived()

        left_at = now()
        node.kill()

        await assert_left(record, left_at)
        await running.idle()


# ----------------------------------------------------------------------------------- packages


def test_the_packages_are_pinned_by_hash_and_name_no_address() -> None:
    text = (NODE_TESTS / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    wanted = json.loads((NODE_TESTS / "package.json").read_text())["devDependencies"]

    assert "://" not in text
    assert packages.pop("")["devDependencies"] == wanted
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
