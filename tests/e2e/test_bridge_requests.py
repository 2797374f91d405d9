"""Unary requests, over sockets: the forwarded members and headers, and failures."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from chatcompletion.reasons import RULES
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from restbridge.headers import RATE_LIMIT
from tests.support.bridge_pair import REQUEST, STREAMED, Pair, bridge_to, bridged
from tests.support.fake_service import Create, FakeService, completion, refusing, serve
from tests.support.running_bridge import PATH
from tests.support.waiting import PATIENCE

KEY = {"authorization": "Bearer sk-live-1"}


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with bridged() as running:
        yield running


def error_of(response: Any) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    document = response.json()
    assert list(document) == ["error"]
    assert {"message", "type", "param", "code"} <= set(document["error"])
    error: dict[str, Any] = document["error"]
    return error


async def test_a_completion_comes_back_as_the_service_gave_it(pair: Pair) -> None:
    response = await pair.http.post(PATH, json={**REQUEST, "top_k": 5, "stop": None}, headers=KEY)

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json()["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hello",
        "refusal": None,
    }
    [asked] = pair.service.asked
    assert asked.extra_json == {"top_k": "5"}
    assert asked.null_fields == b"\x08"
    assert pair.service.metadata[0]["authorization"] == "Bearer sk-live-1"


async def test_only_a_literal_true_streams(pair: Pair) -> None:
    for value in (False, None, 1, "true", [True]):
        response = await pair.http.post(PATH, json={**REQUEST, "stream": value})
        assert response.headers["content-type"] == "application/json"
    response = await pair.http.post(PATH, json=STREAMED)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert pair.service.asked[-1].stream is True


@pytest.mark.parametrize("request_id", ["abc-1.2_3", "x" * 128])
async def test_a_sane_request_id_is_kept_everywhere(pair: Pair, request_id: str) -> None:
    for path in ("/v1/models", "/healthz", "/nope", "/v1/chat/completions"):
        response = await pair.http.get(path, headers={"x-request-id": request_id})
        assert response.headers["x-request-id"] == request_id
    assert pair.service.metadata[0]["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "a\tb", "<script>"])
async def test_any_other_request_id_is_replaced(pair: Pair, request_id: str) -> None:
    response = await pair.http.get("/v1/models", headers={"x-request-id": request_id})

    made = response.headers["x-request-id"]
    assert made.startswith("req_")
    assert pair.service.metadata[0]["x-request-id"] == made


async def test_trace_context_crosses_and_nothing_else_does(pair: Pair) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await pair.http.get(
        "/v1/models",
        headers={
            "traceparent": parent,
            "tracestate": "a=1",
            "baggage": "b=2",
            "cookie": "c",
            "x-forwarded-for": "1.2.3.4",
            "openai-organization": "o",
        },
    )

    [metadata] = pair.service.metadata
    assert {key for key in metadata if key != "user-agent"} == {
        "traceparent",
        "tracestate",
        "baggage",
        "x-request-id",
    }
    assert metadata["traceparent"] == parent


async def test_the_services_metadata_become_headers_by_allow_list(pair: Pair) -> None:
    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        await context.send_initial_metadata(
            (
                *((name, "7") for name in RATE_LIMIT),
                ("openai-processing-ms", "12"),
                ("x-chat-upstream", "first"),
                ("set-cookie", "a=b"),
                ("x-internal", "secret"),
            )
        )
        return completion()

    pair.service.create = create
    response = await pair.http.post(PATH, json=REQUEST)

    assert {name: response.headers.get(name) for name in RATE_LIMIT} == dict.fromkeys(
        RATE_LIMIT, "7"
    )
    assert response.headers["openai-processing-ms"] == "12"
    assert response.headers["x-chat-upstream"] == "first"
    assert "set-cookie" not in response.headers
    assert "x-internal" not in response.headers


# ----------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("reason", sorted(RULES))
async def test_each_reason_is_told_with_its_status(
    pair: Pair, reason: str, *, streamed: bool
) -> None:
    pair.service.create, pair.service.stream = refusing(reason, param="messages[0].role")
    response = await pair.http.post(PATH, json=STREAMED if streamed else REQUEST)

    rule = RULES[reason]
    assert response.status_code == rule.http_status
    assert error_of(response) == {
        "message": f"Told by the service: {reason}.",
        "type": rule.type,
        "param": "messages[0].role",
        "code": rule.code,
    }
    assert response.headers["x-should-retry"] == str(rule.retryable).lower()
    await pair.http.get("/healthz")


@pytest.mark.parametrize(
    ("delay", "seconds", "milliseconds"),
    [(0.0, "1", "0"), (0.25, "1", "250"), (1.0, "1", "1000"), (19.001, "20", "19001")],
)
async def test_a_retry_delay_becomes_both_headers(
    pair: Pair, delay: float, seconds: str, milliseconds: str
) -> None:
    pair.service.create, _ = refusing("RATE_LIMITED", retry_delay=delay)
    response = await pair.http.post(PATH, json=REQUEST)

    assert response.headers["retry-after"] == seconds
    assert response.headers["retry-after-ms"] == milliseconds


async def test_this_very_failure_says_whether_it_is_retryable(pair: Pair) -> None:
    pair.service.create, _ = refusing("DRAINING", retryable=False)
    response = await pair.http.post(PATH, json=REQUEST)

    assert response.headers["x-should-retry"] == "false"


async def test_limits_are_told_on_failures_too(pair: Pair) -> None:
    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        await context.send_initial_metadata((("x-ratelimit-remaining-requests", "0"),))
        create, _ = refusing("RATE_LIMITED")
        return await create(params, context)

    pair.service.create = create
    response = await pair.http.post(PATH, json=REQUEST)

    assert response.status_code == 429
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "service_unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "deadline_exceeded"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503, "overloaded"),
        (grpc.StatusCode.INTERNAL, 500, "internal_error"),
        (grpc.StatusCode.UNKNOWN, 500, "internal_error"),
        (grpc.StatusCode.CANCELLED, 503, "service_unavailable"),
        (grpc.StatusCode.UNAUTHENTICATED, 500, "internal_error"),
        (grpc.StatusCode.NOT_FOUND, 500, "internal_error"),
    ],
)
async def test_a_foreign_status_is_mapped_and_its_text_is_kept_back(
    pair: Pair, code: grpc.StatusCode, status: int, told: str
) -> None:
    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        await context.abort(code, "canary text")
        raise AssertionError

    pair.service.create = create
    response = await pair.http.post(PATH, json=REQUEST)

    assert response.status_code == status
    assert error_of(response)["code"] == told
    assert "canary" not in response.text


async def test_a_defect_of_the_service_is_told_by_the_request_id_alone(pair: Pair) -> None:
    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        raise ValueError("canary text")

    pair.service.create = create
    response = await pair.http.post(PATH, json=REQUEST, headers={"x-request-id": "mine"})

    assert response.status_code == 500
    assert "mine" in error_of(response)["message"]
    assert "canary" not in response.text


async def test_an_answer_that_is_not_json_is_a_defect(pair: Pair) -> None:
    async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
        broken = completion()
        broken.extra_json["x"] = "}canary{"
        return broken

    pair.service.create = create
    response = await pair.http.post(PATH, json=REQUEST)

    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    assert "canary" not in response.text


async def test_grpcs_own_limits_are_never_429() -> None:
    async with bridged(options=[("grpc.max_receive_message_length", 4096)]) as pair:
        response = await pair.http.post(PATH, json={**REQUEST, "user": "x" * 10_000})
        assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
        await pair.works()


async def test_a_service_that_is_not_there_is_503_and_found_once_it_is() -> None:
    fake = FakeService()
    async with serve(fake):
        pass
    async with bridge_to(fake) as pair:
        for path in ("/v1/models", "/readyz"):
            response = await pair.http.get(path)
            assert response.status_code == 503
            assert error_of(response)["type"] == "service_unavailable_error"
            assert response.headers["retry-after"] == "1"
            assert response.headers["x-should-retry"] == "true"
        assert (await pair.http.get("/healthz")).status_code == 200
        async with serve(fake, address=fake.address), asyncio.timeout(PATIENCE):
            while (await pair.http.get("/readyz")).status_code != 200:
                pass
            await pair.works()


async def test_a_service_that_goes_away_is_503_and_the_bridge_stays() -> None:
    fake = FakeService()
    async with serve(fake), bridge_to(fake) as pair:
        await pair.works()
        gone = asyncio.Event()

        async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
            gone.set()
            await asyncio.Event().wait()
            raise AssertionError

        fake.create = create
        asking = asyncio.create_task(pair.http.post(PATH, json=REQUEST))
        await gone.wait()
        await fake.stop()
        response = await asking
        assert (response.status_code, error_of(response)["code"]) == (503, "service_unavailable")
        assert (await pair.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("target", ["unix:{}/chat.sock", "dns:///localhost:{}"])
async def test_a_service_is_found_by_a_socket_or_a_name(target: str, tmp_path: Path) -> None:
    fake = FakeService()
    if target.startswith("unix:"):
        address = target.format(tmp_path)
    else:
        async with serve(fake, address="localhost:0"):
            pass
        address = "localhost:" + fake.address.rpartition(":")[2]
        target = target.format(address.rpartition(":")[2])
    async with serve(fake, address=address):
        fake.address = target.format(tmp_path)
        async with bridge_to(fake) as pair:
            await pair.works()


@pytest.mark.parametrize("body", [REQUEST, STREAMED], ids=["unary", "streamed"])
async def test_the_deadline_is_the_settings(body: Mapping[str, Any]) -> None:
    async with bridged(CHAT_BRIDGE_TIMEOUT="0.2") as pair:

        async def create(params: ChatCompletionParams, context: Any) -> ChatCompletion:
            assert context.time_remaining() < 0.3  # gRPC rounds it up on the wire
            await pair.service.cancelled.wait()
            raise AssertionError

        async def stream(
            params: ChatCompletionParams, context: Any
        ) -> AsyncIterator[ChatCompletionChunk]:
            await create(params, context)
            yield ChatCompletionChunk()

        pair.service.create = create
        pair.service.stream = stream
        response = await pair.http.post(PATH, json=body)

        assert (response.status_code, error_of(response)["code"]) == (504, "deadline_exceeded")
        assert response.headers["x-should-retry"] == "false"


async def test_one_request_too_many_is_503_and_probes_are_not_counted() -> None:
    async with bridged(CHAT_BRIDGE_MAX_CONCURRENCY="1") as pair:
        service = pair.service

        async def stream(
            params: ChatCompletionParams, context: Any
        ) -> AsyncIterator[ChatCompletionChunk]:
            yield ChatCompletionChunk(id="1")
            await service.cancelled.wait()

        service.stream = stream
        async with pair.http.stream("POST", PATH, json=STREAMED):
            refused = await pair.http.post(PATH, json=REQUEST)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            assert (await pair.http.get("/healthz")).status_code == 200
            assert (await pair.http.get("/readyz")).status_code == 200
        await service.cancelled.wait()
        await pair.works()


# ------------------------------------------------------------------------------- models, probes


async def test_models_are_listed(pair: Pair) -> None:
    response = await pair.http.get("/v1/models?unknown=1", headers={"accept": "text/html"})

    assert response.json()["object"] == "list"
    assert [model["id"] for model in response.json()["data"]] == ["any", "org/model:tag"]


@pytest.mark.parametrize(
    "path", ["org/model:tag", "org%2Fmodel:tag", "org%2fmodel%3Atag", "%6frg/model:tag?a=b"]
)
async def test_a_model_is_found_however_its_name_is_encoded(pair: Pair, path: str) -> None:
    response = await pair.http.get(f"/v1/models/{path}")

    assert (response.status_code, response.json()["id"]) == (200, "org/model:tag")


@pytest.mark.parametrize(
    "path", ["org%252Fmodel:tag", "..", "../chat/completions", "%2e%2e%2f%2e%2e", "any/", "%00"]
)
async def test_a_models_name_is_decoded_once_and_nothing_in_it_is_resolved(
    pair: Pair, path: str
) -> None:
    async with pair.connect() as raw:
        head = f"GET /v1/models/{path} HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = await raw.ask(head.encode())

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/models/%ff", "/v1/models%2Fany"])
async def test_a_path_that_names_no_model_is_unknown(pair: Pair, path: str) -> None:
    async with pair.connect() as raw:
        answer = await raw.ask(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    assert (answer.status, answer.error["code"]) == (404, "unknown_url")


async def test_head_answers_like_get_without_a_body(pair: Pair) -> None:
    for path in ("/v1/models", "/v1/models/any", "/health", "/healthz", "/readyz"):
        response = await pair.http.head(path)
        assert (response.status_code, response.content) == (200, b"")
        assert int(response.headers["content-length"]) > 0


async def test_ready_is_what_the_service_says(pair: Pair) -> None:
    assert (await pair.http.get("/readyz")).status_code == 200
    await pair.service.serving(2)
    assert (await pair.http.get("/readyz")).status_code == 503
    for path in ("/health", "/healthz"):
        assert (await pair.http.get(path)).json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz"])
async def test_no_cache_answers_a_probe(pair: Pair, path: str) -> None:
    response = await pair.http.get(path)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")


# ---------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/", "/v1/chat/completions/", "/healthz/", "/v1/embeddings", "/V1/models"],
)
async def test_nothing_else_is_there(pair: Pair, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        response = await pair.http.request(method, path)
        assert (response.status_code, error_of(response)["code"]) == (404, "unknown_url")
        assert error_of(response)["message"].startswith(f"Invalid URL ({method} {path}). ")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", PATH, "POST"),
        ("OPTIONS", PATH, "POST"),
        ("TRACE", PATH, "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/any", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405(pair: Pair, method: str, path: str, allow: str) -> None:
    response = await pair.http.request(method, path)

    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == allow
    route = "/v1/models/{model}" if path == "/v1/models/any" else path
    expected = f"Method {method} is not allowed for {route}; use {allow.partition(',')[0]}."
    assert error_of(response)["message"] == expected


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/vnd.x+json;a=b",
    ],
)
async def test_any_kind_of_json_is_taken(pair: Pair, kind: str) -> None:
    response = await pair.http.post(
        PATH, content=json.dumps(REQUEST), headers={"content-type": kind}
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/jsonl"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json, text/plain"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "identity, br"},
    ],
)
async def test_any_other_type_or_coding_is_415(pair: Pair, headers: dict[str, str]) -> None:
    response = await pair.http.post(PATH, content=json.dumps(REQUEST), headers=headers)

    assert response.status_code == 415
    assert error_of(response)["type"] == "invalid_request_error"
    await pair.works()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b" \xef\xbb\xbf{}", 400, "invalid_json"),
        (b'{"a":"\xff"}', 400, "invalid_json"),
        (b'{"a":NaN}', 400, "invalid_json"),
        (b'{"a":Infinity}', 400, "invalid_json"),
        (b"{} {}", 400, "invalid_json"),
        (b"[" * 10_000 + b"]" * 10_000, 400, "invalid_json"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, "invalid_json"),
        (b"[" * 5_000_000, 400, "invalid_json"),
        (b"[]", 422, "invalid_type"),
        (b"null", 422, "invalid_type"),
        (b'"text"', 422, "invalid_type"),
    ],
)
async def test_a_body_that_is_no_request_is_told_so(
    pair: Pair, body: bytes, status: int, code: str
) -> None:
    response = await pair.http.post(
        PATH, content=body, headers={"content-type": "application/json"}
    )

    assert (response.status_code, error_of(response)["code"]) == (status, code)
    await pair.works()


# --------------------------------------------------------------------------------------- CORS


async def test_cors_is_off_by_default(pair: Pair) -> None:
    response = await pair.http.get("/v1/models", headers={"origin": "https://a.example"})

    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origins", ["https://a.example, https://b.example:8443", "*"])
async def test_cors_lets_the_configured_pages_in(origins: str) -> None:
    async with bridged(CHAT_BRIDGE_CORS_ORIGINS=origins) as pair:
        asked = {
            "origin": "https://a.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-stainless-os",
        }
        preflight = await pair.http.options(PATH, headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-headers"] == (
            "authorization,content-type,x-stainless-os"
        )
        assert preflight.headers["x-request-id"]

        refused: Create = refusing("RATE_LIMITED")[0]
        for create in (pair.service.create, refused):
            pair.service.create = create
            response = await pair.http.post(PATH, json=REQUEST, headers=asked)
            assert response.headers["access-control-allow-origin"] in {"*", "https://a.example"}
            exposed = response.headers["access-control-expose-headers"].split(", ")
            assert {"x-request-id", "retry-after", "x-should-retry", *RATE_LIMIT} <= set(exposed)


async def test_cors_keeps_other_pages_out() -> None:
    async with bridged(CHAT_BRIDGE_CORS_ORIGINS="https://a.example") as pair:
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        preflight = await pair.http.options(PATH, headers=asked)
        assert (preflight.status_code, error_of(preflight)["code"]) == (400, "cors_not_allowed")
        response = await pair.http.post(PATH, json=REQUEST, headers=asked)
        assert "access-control-allow-origin" not in response.headers


async def test_metrics_and_their_labels_are_bounded(pair: Pair) -> None:
    await pair.works()
    await pair.http.request("BREW", "/secret/path?key=1")
    await pair.http.get("/v1/models/some-name")

    def count(method: str, route: str, status: str, error: str) -> float:
        return pair.metric(
            "http_server_request_duration_seconds_count",
            http_request_method=method,
            http_route=route,
            http_response_status_code=status,
            error_type=error,
        )

    assert count("POST", PATH, "200", "") == 1
    assert count("GET", "/v1/models/{model}", "404", "MODEL_NOT_FOUND") == 1
    assert pair.metric("http_server_active_requests") == 0
