"""Every golden document over REST, through bridge and service, with exact framing.

request -> upstream     equal except for model, stream, stream_options and the output limit; 422 for
                        half of a surrogate pair
client <- completion    equal except for model
client <- chunks        equal except for model; `data: ` and one line each, `data: [DONE]`
client <- error         message, type, param and code
"""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from tests.support.golden import Golden
from tests.support.golden_requests import MISTYPED, REQUESTS
from tests.support.golden_responses import CHUNKS, COMPLETIONS, ERRORS
from tests.support.json_equality import Number, parse
from tests.support.running_bridge import PATH, Via
from tests.support.stack import Stack, stack

UPSTREAM: Final = "vendor/model"
DEFAULT_LIMIT: Final = Number("1024")
OURS: Final = ("model", "stream", "stream_options", "max_tokens", "max_completion_tokens")
"""The members of a request that the service changes for the upstream."""
HALVES: Final = {
    "half of a surrogate pair": "messages[1].content",
    "half of a surrogate pair as a name": "parameter name",
}
"""Golden requests that the service rejects, and the parameter that the error names."""
NO_ANSWERS: Final = {"no choices"}
"""Golden completions that the service does not accept."""
EVENTS: Final = re.compile(rb"(data: [^\r\n]+\n\n)*data: \[DONE\]\n\n")
REQUEST: Final = b'{"model":"default","messages":[{"role":"user","content":"Hi"}]}'
STREAMED: Final = REQUEST[:-1] + b',"stream":true}'
WITH_USAGE: Final = STREAMED[:-1] + b',"stream_options":{"include_usage":true}}'


@pytest.fixture
async def running(via: Via) -> AsyncIterator[Stack]:
    # `test_receipts` compares the documents with a receipt.
    async with stack({"default": UPSTREAM}, service={"receipts": False}, via=via) as all_of_it:
        yield all_of_it


def names(goldens: tuple[Golden, ...]) -> list[str]:
    return [golden.name for golden in goldens]


async def posted(running: Stack, body: bytes) -> Any:
    async with running.http() as http:
        return await http.post(PATH, content=body)


def without(document: Mapping[str, Any], *members: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in members}


@pytest.mark.parametrize("streamed", [False, True], ids=["as it is", "streamed"])
@pytest.mark.parametrize("golden", REQUESTS, ids=names(REQUESTS))
async def test_a_request_reaches_the_upstream(
    running: Stack, golden: Golden, streamed: bool
) -> None:
    text = golden.json[:-1] + ',"stream":true}' if streamed else golden.json
    # The response is fixed, so that the simulator accepts any request.
    running.upstream.reply_with(UPSTREAM, body=COMPLETIONS[0].json.encode())
    running.upstream.stream_with(UPSTREAM, [FINISH])

    response = await posted(running, text.encode())

    if golden.name in HALVES:
        assert response.status_code == 422
        assert HALVES[golden.name] in response.json()["error"]["message"]
        assert len(running.upstream.records) == 0
        return
    assert response.status_code == 200, response.text
    sent, received = parse(text), parse(running.upstream.records[0].body)
    assert without(received, *OURS) == without(sent, *OURS)
    assert received["model"] == UPSTREAM
    if sent.get("stream") is True:
        assert received["stream"] is True
        wanted = {**(sent.get("stream_options") or {}), "include_usage": True}
        assert received["stream_options"] == wanted
    else:
        assert received.get("stream") is not True
        assert "stream_options" not in received
    asked = [sent[name] for name in OURS[3:] if sent.get(name) is not None]
    assert {name: received[name] for name in OURS[3:] if name in received} == {
        "max_tokens": asked[0] if asked else DEFAULT_LIMIT
    }


@pytest.mark.parametrize("golden", COMPLETIONS, ids=names(COMPLETIONS))
async def test_a_completion_reaches_the_client(running: Stack, golden: Golden) -> None:
    running.upstream.reply_with(UPSTREAM, body=golden.json.encode())

    response = await posted(running, REQUEST)

    if golden.name in NO_ANSWERS:
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_invalid_response"
        return
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    received = parse(response.content)
    assert without(received, "model") == without(parse(golden.json), "model")
    assert received["model"] == "default"


FINISH: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
)
"""The chunk that completes a stream."""


@pytest.mark.parametrize("golden", CHUNKS, ids=names(CHUNKS))
async def test_a_chunk_reaches_the_client(running: Stack, golden: Golden) -> None:
    running.upstream.stream_with(UPSTREAM, [golden.json.encode(), FINISH])

    reports = parse(golden.json).get("usage") is not None
    response = await posted(running, WITH_USAGE if reports else STREAMED)

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    received = events(response.content)
    assert [without(chunk, "model") for chunk in received] == [
        without(parse(chunk), "model") for chunk in (golden.json, FINISH)
    ]
    assert [chunk["model"] for chunk in received] == ["default", "default"]


async def test_all_chunks_reach_the_client_in_one_stream(running: Stack) -> None:
    sent = [*(golden.json.encode() for golden in CHUNKS), FINISH]
    running.upstream.stream_with(UPSTREAM, sent)

    response = await posted(running, WITH_USAGE)

    assert [without(chunk, "model") for chunk in events(response.content)] == [
        without(parse(chunk), "model") for chunk in sent
    ]


def events(body: bytes) -> list[Any]:
    """Return the documents of a stream, and check its framing."""
    assert EVENTS.fullmatch(body)
    return [parse(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")[:-2]]


@pytest.mark.parametrize("golden", ERRORS, ids=names(ERRORS))
@pytest.mark.parametrize("request_body", [REQUEST, STREAMED], ids=["whole", "streamed"])
async def test_an_error_reaches_the_client(
    running: Stack, golden: Golden, request_body: bytes
) -> None:
    running.upstream.reply_with(UPSTREAM, status=400, body=golden.json.encode())

    response = await posted(running, request_body)

    assert response.status_code == 400
    told, given = parse(response.content)["error"], parse(golden.json)["error"]
    assert (told["message"], told["type"]) == (given["message"], given["type"])
    # Values that are not paths or codes are not forwarded; an error always has a code.
    assert told["param"] == (given["param"] if isinstance(given["param"], str) else None)
    coded = isinstance(given["code"], str) or (
        isinstance(given["code"], Number) and given["code"].is_integer
    )
    assert told["code"] == (given["code"] if coded else "invalid_value")


@pytest.mark.parametrize("golden", MISTYPED, ids=[golden.name for golden in MISTYPED])
async def test_a_member_of_a_wrong_type_is_named(running: Stack, golden: Any) -> None:
    response = await posted(running, golden.json.encode())

    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] in golden.params
    assert error["type"] == "invalid_request_error"
    assert error["code"] == ("number_out_of_range" if golden.out_of_range else "invalid_type")
    assert len(running.upstream.records) == 0
