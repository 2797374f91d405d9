"""Unary responses of several MiB arrive complete, up to CHAT_MAX_RESPONSE_BYTES."""

import json
from typing import Any, Final

import pytest

from tests.support.grpc_client import params
from tests.support.running_bridge import PATH
from tests.support.stack import PUBLIC, UPSTREAM_NAME, Stack, stack

MEBIBYTE: Final = 1024 * 1024
# By default gRPC accepts messages of up to 4 MiB.
TEXT: Final = "0123456789abcdef" * (5 * MEBIBYTE // 16)
HELLO: Final = {"model": PUBLIC, "messages": [{"role": "user", "content": "Hello"}]}


def _answer(running: Stack, content: str) -> int:
    """Make the upstream return this content, and return the size of its response."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop",
    }
    document = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    body = json.dumps({**document, "choices": [choice]}).encode()
    running.upstream.reply_with(UPSTREAM_NAME, body=body)
    return len(body)


async def test_five_mebibytes_cross_both_doors() -> None:
    async with stack() as running, running.http() as http:
        _answer(running, TEXT)
        completion = await running.service.client.create(params(PUBLIC, max_tokens=1_000_000))
        response = await http.post(PATH, json={**HELLO, "max_tokens": 1_000_000})

    assert completion.choices[0].message.content_text == TEXT
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("spare", [0, -1])
async def test_the_largest_answer_is_the_settings(spare: int) -> None:
    content = "x" * 2000
    async with stack() as running:
        size = _answer(running, content)
    async with stack(service={"max_response_bytes": size + spare}) as running:
        _answer(running, content)
        async with running.http() as http:
            response = await http.post(PATH, json=HELLO)
        if spare < 0:
            refused = await running.service.client.refusal(PUBLIC)
            assert (refused.reason, refused.http_status) == ("UPSTREAM_INVALID_RESPONSE", 502)
            assert response.status_code == 502
            assert response.json()["error"]["code"] == "upstream_invalid_response"
        else:
            assert response.status_code == 200
            assert (await running.service.client.create(PUBLIC)).choices
