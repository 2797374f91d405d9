"""Weaknesses that other gateways had, which this one must not have.

The tests of redirected calls, forged events and proxies of the environment are in test_caller.py
and test_upstream.py; the catalogue names them.
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import hmac
import json
from typing import Any, Final

import pytest

from chatcompletion.v1 import account_service_pb2 as pb
from service.accounts import keys
from tests.support.accounts_admin import ADMIN, TOKEN, admin, bearer
from tests.support.grpc_client import KEY, client, params
from tests.support.raw_http1 import Raw
from tests.support.raw_http2 import dial
from tests.support.running_bridge import PATH
from tests.support.running_service import UPSTREAM_KEY, service, simulator
from tests.support.stack import stack

CREATE: Final = "/chatcompletion.v1.ChatCompletionService/CreateChatCompletion"
SQL: Final = ("' OR '1'='1", "'; DROP TABLE api_keys; --", '" OR ""="', "') UNION SELECT 1 --")
TEMPLATES: Final = (
    *("{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "{% for x in () %}", "{0.__class__}"),
    *("%(key)s", "$(id)", "`id`", "${jndi:ldap://127.0.0.1/a}"),
)
HOSTS: Final = (
    *(b"", b"[", b"]", b"a:b", b"a:80:80", b"*", b"a@b", b"/", b"\xff", b"127.0.0.1:1/v1/models"),
    *(b"a,b", b"a b", b"%00", b"../../healthz", b"x" * 4000),
)


async def test_sql_in_a_key_a_model_or_a_header_is_text() -> None:
    async with stack(["any"]) as running, running.http() as http:
        for text in SQL:
            async with client(running.service.address, key=text) as stranger:
                assert (await stranger.refusal("any")).reason == "INVALID_API_KEY"
            unknown = await running.service.client.refusal(params(text))
            assert unknown.reason == "MODEL_NOT_FOUND"
            headers = {"x-request-id": text, "traceparent": text, "user-agent": text}
            answer = await http.get("/v1/models", headers=headers)
            assert answer.status_code == 200
        assert (await running.service.client.create("any")).choices


async def _ask_with_host(address: str, host: bytes, key: str) -> int:
    """Return the status of a request with a Host; 0 if the bridge closed the connection."""
    name, _, port = address.rpartition(":")
    body = b'{"model":"any","messages":[{"role":"user","content":"hi"}]}'
    raw = Raw(*await asyncio.open_connection(name, int(port)))
    try:
        answer = await raw.ask(
            b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (PATH.encode(), host, key.encode(), len(body), body)
        )
    finally:
        raw.writer.close()
    return answer.status


async def test_a_malformed_host_does_not_skip_authentication() -> None:
    async with stack(["any"]) as running, dial(running.service.address) as raw:
        await raw.settled()
        for host in HOSTS:
            assert await _ask_with_host(running.bridge.address, host, "sk-wrong") in (400, 401)
            request = b""
            ended = await raw.call(CREATE, request, headers={":authority": host.decode("latin-1")})
            assert ended.code != 0
        assert not running.upstream.records
        assert await _ask_with_host(running.bridge.address, b"a", KEY) == 200


async def test_a_lookup_that_is_cached_is_of_the_whole_key() -> None:
    async with simulator() as upstream, service(["any"], upstream) as running:
        await running.client.create("any")  # the lookup of the key is cached
        others = [KEY[:length] for length in range(1, len(KEY))]
        others += [KEY + more for more in ("x", KEY, " x")]
        others += [KEY.swapcase(), KEY[::-1], KEY[1:]]
        for other in others:
            async with client(running.address, key=other) as stranger:
                assert (await stranger.refusal("any")).reason == "INVALID_API_KEY"
        assert len(upstream.records) == 1
        await running.client.create("any")


@pytest.mark.parametrize("error", [RuntimeError, KeyError, ValueError, AttributeError])
async def test_an_exception_in_authentication_admits_nobody(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> bytes:
        raise error("canary")

    async with stack(["any"]) as running, running.http() as http:
        monkeypatch.setattr("service.authentication.keys.digest", fail)
        for streamed in (False, True):
            failure = await running.service.client.refusal("any", streamed=streamed)
            assert failure.reason == "INTERNAL"
            assert "canary" not in str(failure)
            body = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}
            answer = await http.post(PATH, json={**body, "stream": streamed})
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
            assert "canary" not in answer.text
        assert not running.upstream.records


async def test_no_template_engine_reads_a_request() -> None:
    async with stack(["any"]) as running, running.http() as http:
        for text in TEMPLATES:
            message = {"role": "user", "content": text, "name": "n"}
            body: dict[str, Any] = {"model": "any", "messages": [message], "user": text}
            answer = await http.post(PATH, json=body)
            assert answer.status_code == 200
            sent = running.upstream.records[-1].document
            assert sent["messages"] == [message]
            assert sent["user"] == text
            answer = await http.post(PATH, json={**body, "model": text})
            assert answer.status_code == 404
            assert json.dumps(text)[1:-1] in answer.text


async def test_a_url_in_content_is_not_fetched() -> None:
    callers: list[object] = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername"))
        writer.close()

    canary = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with canary, stack(["any"]) as running, running.http() as http:
        url = f"http://127.0.0.1:{canary.sockets[0].getsockname()[1]}/x.png"
        content = [{"type": "image_url", "image_url": {"url": url, "detail": "high"}}]
        body = {"model": "any", "messages": [{"role": "user", "content": content}]}
        assert (await http.post(PATH, json=body)).status_code == 200
        sent = running.upstream.records[-1].document
        assert sent["messages"][0]["content"] == content
    assert callers == []


async def test_line_breaks_reach_no_header() -> None:
    broken = "x\r\nset-cookie: canary=1"
    async with stack(["any"]) as running, running.http() as http:
        body = {"model": broken, "messages": [{"role": "user", "content": broken}]}
        answers = [await http.post(PATH, json=body)]
        answers.append(await http.get("/v1/models/x%0D%0Aset-cookie:%20canary=1"))
        answers.append(await http.get("/x%0D%0Aset-cookie:%20canary=1"))
        running.upstream.reply_with(
            "any",
            status=400,
            body=json.dumps({"error": {"message": broken, "code": broken}}).encode(),
        )
        answers.append(await http.post(PATH, json={**body, "model": "any"}))
        for answer in answers:
            assert answer.status_code in (400, 404)
            assert "set-cookie" not in answer.headers
            assert not any("\n" in value for value in answer.headers.values())
        running.upstream.reset()
        async with client(running.service.address, key=KEY) as caller:
            failure = await caller.refusal(params(broken))
        assert not any("canary" in name for name in failure.trailers)


async def test_secrets_are_compared_as_digests_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    async with admin(f"sqlite:///{tmp_path}/accounts.db") as house:
        monkeypatch.setattr("service.accounts.account_servicer.hmac.compare_digest", compare)
        request = pb.ListAccountsRequest()
        for wrong in (TOKEN[:-1], TOKEN + "x", "x", TOKEN.upper()):
            refused = await house.refusal("ListAccounts", request, bearer(wrong))
            assert refused.reason == "INVALID_API_KEY"
        await house.accounts.ListAccounts(request, metadata=ADMIN)
    assert {other for _, other in compared} == {keys.digest(TOKEN)}
    assert [one for one, _ in compared][-1] == keys.digest(TOKEN)
    assert {len(digest) for pair in compared for digest in pair} == {32}


async def test_the_upstreams_key_is_of_no_use_here() -> None:
    async with simulator() as upstream, service(["any"], upstream) as running:
        async with client(running.address, key=UPSTREAM_KEY) as stranger:
            assert (await stranger.refusal("any")).reason == "INVALID_API_KEY"
        assert not upstream.records
