"""What an open stream keeps in memory while it waits for its next chunk."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httptools
import httpx
import pytest

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionRequest
from service.request import AcceptedRequest
from tests.support.running_bridge import PATH
from tests.support.stack import HELLO, Stack, stack

MODEL = "sim:tokens=3,itd=3600"
SAID = {"model": MODEL, "messages": HELLO, "stream": True}


def count(*kinds: type) -> int:
    """Return how many objects of some types there are, which tracked objects refer to."""
    gc.collect()
    held = gc.get_referents(*gc.get_objects())
    return len({id(each) for each in held if isinstance(each, kinds)})


@asynccontextmanager
async def opened(running: Stack) -> AsyncIterator[None]:
    """Open a stream, and read its first chunk."""
    asking = running.http()
    async with asking as client, client.stream("POST", PATH, json=SAID) as response:
        assert response.status_code == 200
        assert await anext(response.aiter_lines())
        yield


@pytest.mark.parametrize("via", ["wire", "in-process"])
async def test_a_stream_forgets_its_request(via: str) -> None:
    messages = (AcceptedRequest, ChatCompletionParams, StreamChatCompletionRequest)
    async with stack([MODEL], via=via) as running:  # type: ignore[arg-type] # one of them
        before = count(*messages)
        async with opened(running):
            assert count(*messages) == before


@pytest.mark.parametrize("via", ["wire", "in-process"])
async def test_a_stream_forgets_the_head_of_its_request_and_of_the_response(via: str) -> None:
    async with stack([MODEL], via=via) as running:  # type: ignore[arg-type] # one of them
        parsers = count(httptools.HttpRequestParser)
        responses = count(httpx.Response)
        async with opened(running):
            # The others are the simulator's and the client's.
            assert count(httptools.HttpRequestParser) == parsers + 1
            assert count(httpx.Response) == responses + 1
