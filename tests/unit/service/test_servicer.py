import json
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import httpx
import pytest

from chatcompletion import openai_json
from chatcompletion.v1 import chat_completion_service_pb2, model_service_pb2
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletionParams,
    ChatMessage,
    ContentPart,
    ContentPartList,
    Tool,
)
from service import errors
from service.accounts.bootstrap import bootstrap
from service.accounts.directory import Directory
from service.accounts.keys import Caller
from service.admission import Admission
from service.authentication import Authentication
from service.call import Call
from service.ledger.batches import PATIENCE, Batches
from service.ledger.journal import Journal
from service.ledger.migrations import migrate
from service.ledger.store import Store
from service.models import Catalogue
from service.servicer import ChatCompletionServicer, ModelServicer
from service.settlement import Settlement
from service.telemetry import Telemetry
from service.upstream.client import UpstreamClient
from service.upstream.client_limits import UpstreamLimits
from tests.support.samples import (
    CALLER_KEY,
    DONE,
    MODEL,
    FakeContext,
    call,
    chunk,
    completion,
    event,
    model,
    params,
    serving,
    usage_chunk,
)

PARTICULAR = model(name="a/b:c", refused_members=frozenset({"service_tier"}))
STRICT = model(name="strict", unknown_members="harmless")
CATALOGUE = Catalogue(
    models=MappingProxyType({"default": MODEL, "a/b:c": PARTICULAR, "strict": STRICT})
)
PRICING = json.loads(openai_json.encode_model(MODEL.message()))["pricing"]
CONTEXT: Any = FakeContext()
Handler = Callable[[httpx.Request], httpx.Response]


ADMISSION: ContextVar[tuple[Authentication, Admission]] = ContextVar("admission")


@pytest.fixture(autouse=True)
async def _admission(tmp_path: Path) -> AsyncIterator[None]:
    store = Store(f"sqlite:///{tmp_path}/accounts.sqlite3")
    migrate(store)
    bootstrap(store, CALLER_KEY, Decimal(1))
    batches = Batches(store)
    journal = Journal(str(tmp_path / "journal"))
    authentication = Authentication(batches, Directory(store), patience=PATIENCE, clock=lambda: 0.0)
    settlement = Settlement(batches, journal, Telemetry(), patience=PATIENCE)
    admission = Admission(batches, settlement, owner="test", patience=PATIENCE)
    token = ADMISSION.set((authentication, admission))
    yield
    ADMISSION.reset(token)
    await settlement.settled()
    journal.close()
    await batches.close()
    store.close()


def servicer(handler: Handler, *, max_request_bytes: int = 10_000) -> ChatCompletionServicer:
    upstream = UpstreamClient(
        httpx.MockTransport(handler),
        UpstreamLimits(
            connect=5, first_byte=5, idle=5, longest_retry_after=0, max_response_bytes=1_000_000
        ),
        Telemetry(),
        now=lambda: datetime.now(UTC),
        random=lambda: 0.0,
    )
    clock = iter(range(1000))
    return ChatCompletionServicer(
        *ADMISSION.get(),
        CATALOGUE,
        upstream,
        quotes=cast("Any", None),
        max_request_bytes=max_request_bytes,
        clock=lambda: float(next(clock)),
    )


def never(request: httpx.Request) -> httpx.Response:
    raise AssertionError("nothing is sent")


def whole(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=completion())


def in_pieces(request: httpx.Request) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        for document in (chunk("a"), chunk("b"), chunk(None, "stop"), usage_chunk()):
            yield event(document)
        yield DONE

    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body())


async def create(
    handler: Handler, request: ChatCompletionParams, current: Call | None = None, **options: Any
) -> Any:
    message = chat_completion_service_pb2.CreateChatCompletionRequest(params=request)
    with serving(current or call()):
        made = await servicer(handler, **options).CreateChatCompletion(message, CONTEXT)
    return json.loads(openai_json.encode_completion(made.completion))


async def stream(
    handler: Handler, request: ChatCompletionParams, current: Call | None = None, **options: Any
) -> list[Any]:
    message = chat_completion_service_pb2.StreamChatCompletionRequest(params=request)
    with serving(current or call()):
        answers = servicer(handler, **options).StreamChatCompletion(message, CONTEXT)
        return [
            json.loads(openai_json.encode_chunk(answer.chunk))
            async for some in answers
            for answer in some
        ]


async def test_a_completion_is_returned_and_recorded() -> None:
    current = call()

    created = await create(whole, params(), current)

    assert created.pop("usage") == completion()["usage"] | receipt(current)
    assert created == without_usage(completion(model="default"))
    record = current.record
    assert record.model == "default"
    assert record.key_name.startswith("bootstrap-")
    assert (record.prompt_tokens, record.completion_tokens, record.estimated) == (3, 5, False)


async def test_chunks_are_returned_and_recorded() -> None:
    current = call()
    chunks = await stream(in_pieces, params(), current)

    assert [document["choices"][0]["delta"].get("content") for document in chunks] == [
        *("a", "b"),
        None,
    ]
    assert {document["model"] for document in chunks} == {"default"}
    record = current.record
    assert (record.chunks, record.first_chunk, record.last_chunk) == (3, 0.0, 2.0)
    assert (record.prompt_tokens, record.completion_tokens) == (3, 5)


async def test_the_usage_chunk_comes_where_it_was_asked_for() -> None:
    current = call()
    chunks = await stream(in_pieces, params(stream_options={"include_usage": True}), current)

    assert current.record.chunks == len(chunks) == 4
    assert chunks[-1].pop("usage") == usage_chunk()["usage"] | receipt(current)
    assert chunks[-1] == without_usage(usage_chunk()) | {"model": "default"}


def receipt(current: Call) -> dict[str, Any]:
    """Return the members of the receipt of a call of the free model."""
    assert current.charge is not None
    details = {
        "upstream_inference_cost": None,
        "upstream_inference_prompt_cost": 0,
        "upstream_inference_completions_cost": 0,
        "nano_credits": 0,
        "hold_id": current.charge.hold_id,
        "estimated": False,
        "partial": False,
    }
    return {"cost": 0, "cost_details": details}


def without_usage(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "usage"}


@pytest.mark.parametrize("usage", [{}, {"usage": None}])
async def test_a_completion_without_usage_gets_the_usage_that_is_charged(
    usage: dict[str, Any],
) -> None:
    current = call()
    document = without_usage(completion()) | usage

    created = await create(lambda _: httpx.Response(200, json=document), params(), current)

    record = current.record
    assert created["usage"]["estimated"] is True
    assert created["usage"]["prompt_tokens"] == record.prompt_tokens > 0
    assert created["usage"]["completion_tokens"] == record.completion_tokens > 0
    assert created["usage"]["cost_details"]["estimated"] is True


async def test_a_stream_that_fails_after_the_usage_chunk_delivers_it_without_a_receipt() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield event(chunk("a"))
        yield event(usage_chunk())
        yield event({"error": {"message": "no"}})

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body())

    current = call()
    asked = params(stream_options={"include_usage": True})
    message = chat_completion_service_pb2.StreamChatCompletionRequest(params=asked)
    received: list[Any] = []

    async def read() -> None:
        async for some in servicer(handler).StreamChatCompletion(message, CONTEXT):
            received.extend(some)

    with serving(current), pytest.raises(errors.UpstreamError):
        await read()

    assert [answer.chunk.usage.completion_tokens for answer in received] == [0, 5]
    assert not received[-1].chunk.usage.extra_json
    assert current.charge is not None
    assert current.charge.partial


@pytest.mark.parametrize(
    ("members", "failure", "param"),
    [
        ({"model": "nobody"}, errors.ModelNotFound, "model"),
        ({"model": "Default"}, errors.ModelNotFound, "model"),
        ({"model": "\ud83d"}, errors.ModelNotFound, "model"),
        ({"temperature": 3}, errors.InvalidRequest, "temperature"),
        ({"max_tokens": 1001}, errors.InvalidRequest, "max_tokens"),
        ({"user": "x" * 20_000}, errors.RequestTooLarge, None),
        ({"model": "nobody", "temperature": 3}, errors.InvalidRequest, "temperature"),
        ({"best_of": 64}, errors.InvalidRequest, "best_of"),
        ({"MAX_TOKENS": 4000}, errors.InvalidRequest, "max_tokens"),
        ({"service_tier": "priority", "model": "a/b:c"}, errors.InvalidRequest, "service_tier"),
        ({"x": 1, "model": "strict"}, errors.InvalidRequest, "x"),
    ],
)
async def test_a_request_that_is_refused_does_not_reach_the_upstream(
    members: dict[str, Any], failure: type[errors.Failure], param: str | None
) -> None:
    for run in (create, stream):
        current = call()
        with pytest.raises(failure) as refused:
            await run(never, params(**members), current)

        assert refused.value.param == param
        assert not refused.value.dispatched
        assert current.record.upstream_attempts == 0


@pytest.mark.parametrize(
    ("text", "sent"), [("[]", False), (" [ ] ", False), ("null", True), ('["x"]', None)]
)
async def test_a_refused_member_that_says_nothing_is_left_out(text: str, sent: bool | None) -> None:
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return whole(request)

    request = params(model="strict", top_k=5)
    request.extra_json["fallbacks"] = text
    if sent is None:
        with pytest.raises(errors.InvalidRequest, match="fallbacks"):
            await create(handler, request)
    else:
        await create(handler, request)
        assert ("fallbacks" in bodies[0], bodies[0]["top_k"]) == (sent, 5)


@pytest.mark.parametrize("run", [create, stream])
async def test_without_a_key_nothing_is_looked_at(run: Any) -> None:
    with pytest.raises(errors.InvalidApiKey):
        await run(never, params(temperature=3, model="nobody"), call(authorization=None))


@pytest.mark.parametrize(
    ("smuggled", "code"),
    [
        ({"x": '1,"model":"expensive"'}, "invalid_json"),
        ({"x": ""}, "invalid_json"),
        ({"x": "NaN"}, "invalid_json"),
        ({"model": '"expensive"'}, "duplicate_member"),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": "5000"}, "number_out_of_range"),
        ({"x": "[" * 1000 + "]" * 1000}, "invalid_json"),
    ],
)
async def test_nothing_is_smuggled_past_the_rules(
    smuggled: dict[str, str], code: str | None
) -> None:
    sent: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return whole(request)

    request = params()
    request.extra_json.update(smuggled)
    if code is None:
        await create(handler, request)
        assert sent[0]["max_tokens"] == 5
    else:
        with pytest.raises(errors.InvalidRequest) as refused:
            await create(handler, request)
        assert refused.value.code == code
        assert sent == []


@pytest.mark.parametrize(
    ("build", "param"),
    [
        (lambda: ChatCompletionParams(messages=[ChatMessage()] * 5000), "messages"),
        (
            lambda: ChatCompletionParams(
                model="default", extra_json={"messages": "[" + "{}," * 5000 + "{}]"}
            ),
            "messages",
        ),
        (
            lambda: ChatCompletionParams(
                messages=[ChatMessage(extra_json={"content": "[" + "{}," * 5000 + "{}]"})]
            ),
            "messages[0].content",
        ),
        (
            lambda: ChatCompletionParams(
                messages=[ChatMessage(content_parts=ContentPartList(items=[ContentPart()] * 5000))]
            ),
            "messages[0].content",
        ),
        (
            lambda: ChatCompletionParams(
                tools=[Tool(extra_json={str(name): "null" for name in range(20_000)})]
            ),
            "extra_json",
        ),
    ],
)
async def test_a_crowd_is_refused_before_it_is_walked_over(
    build: Callable[[], ChatCompletionParams], param: str
) -> None:
    for run in (create, stream):
        with pytest.raises(errors.InvalidRequest) as refused:
            await run(never, build(), max_request_bytes=1_000_000)

        assert refused.value.param == param
        assert len(refused.value.violations) == 1


async def test_text_of_too_many_values_is_refused_like_a_document_of_as_many() -> None:
    text = "[" + "0," * openai_json.MAX_VALUES + "0]"
    request = params()
    request.extra_json["x"] = text
    document = json.loads(openai_json.encode_request(params())) | {"x": json.loads(text)}
    with pytest.raises(errors.InvalidRequest) as refused:
        await create(never, request, max_request_bytes=1_000_000)
    with pytest.raises(openai_json.DecodeError) as undecoded:
        openai_json.decode_request(json.dumps(document).encode())

    assert refused.value.code == undecoded.value.code == "invalid_json"
    assert undecoded.value.message.removeprefix("The ") in refused.value.message


async def test_a_crowd_is_told_before_the_size() -> None:
    request = ChatCompletionParams(messages=[ChatMessage(role="user")] * 5000)
    with pytest.raises(errors.InvalidRequest):
        await create(never, request)


async def test_a_model_in_extra_json_is_the_model() -> None:
    request = params()
    request.ClearField("model")
    request.extra_json["model"] = '"expensive"'

    with pytest.raises(errors.ModelNotFound):
        await create(never, request)


async def test_a_request_is_measured_as_a_message() -> None:
    size = params().ByteSize()

    assert await create(whole, params(), max_request_bytes=size)
    expected = f"expected at most {size - 1} bytes, but got {size} bytes"
    with pytest.raises(errors.RequestTooLarge, match=expected):
        await create(whole, params(), max_request_bytes=size - 1)


async def test_a_failure_of_the_upstream_is_recorded_as_no_use() -> None:
    current = call()
    with pytest.raises(errors.UpstreamError):
        await create(lambda _: httpx.Response(500), params(), current)

    assert (current.record.prompt_tokens, current.record.completion_tokens) == (0, 0)
    assert current.record.model == "default"


# --------------------------------------------------------------------------------------- models


async def test_all_models_are_listed() -> None:
    with serving(call()):
        listed = await ModelServicer(ADMISSION.get()[0], CATALOGUE).ListModels(
            model_service_pb2.ListModelsRequest(), CONTEXT
        )

    assert json.loads(openai_json.encode_model_list(listed)) == {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": 1,
                "owned_by": "tests",
                "max_output_tokens": MODEL.maximum_output_tokens,
                "pricing": PRICING,
            }
            for name in ("default", "a/b:c", "strict")
        ],
    }


async def test_a_key_sees_only_the_models_that_it_can_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def limited(_: Authentication, asked: Call) -> Caller:
        return Caller(
            account_id=1,
            account_name="a",
            key_id=1,
            key_name="k",
            models=frozenset({"strict", "local/*", "other/b"}),
        )

    monkeypatch.setattr(Authentication, "authenticate", limited)
    patterns = {name: model(name=name, upstream_model="*") for name in ("local/*", "other/*")}
    catalogue = Catalogue(models=MappingProxyType({**CATALOGUE.models, **patterns}))
    servicer = ModelServicer(ADMISSION.get()[0], catalogue)
    with serving(call()):
        listed = await servicer.ListModels(model_service_pb2.ListModelsRequest(), CONTEXT)
        assert [entry.id for entry in listed.data] == ["strict", "local/*", "other/b"]
        for name in ("strict", "local/*", "local/a", "other/b"):
            request = model_service_pb2.GetModelRequest(model=name)
            assert (await servicer.GetModel(request, CONTEXT)).model.id == name
        for name in ("default", "other/*", "other/a", "local/", "nothing"):
            with pytest.raises(errors.ModelNotFound):
                await servicer.GetModel(model_service_pb2.GetModelRequest(model=name), CONTEXT)


async def test_a_model_is_found_by_its_name() -> None:
    with serving(call()):
        found = await ModelServicer(ADMISSION.get()[0], CATALOGUE).GetModel(
            model_service_pb2.GetModelRequest(model="a/b:c"), CONTEXT
        )

    assert found.model.id == "a/b:c"


@pytest.mark.parametrize("name", ["nobody", "", "a", "a%2Fb:c"])
async def test_other_models_are_not_found(name: str) -> None:
    with serving(call()), pytest.raises(errors.ModelNotFound) as refused:
        await ModelServicer(ADMISSION.get()[0], CATALOGUE).GetModel(
            model_service_pb2.GetModelRequest(model=name), CONTEXT
        )

    assert refused.value.param == "model"


async def test_models_are_for_callers_with_a_key() -> None:
    with serving(call(authorization="Bearer nobody")):
        with pytest.raises(errors.InvalidApiKey):
            await ModelServicer(ADMISSION.get()[0], CATALOGUE).ListModels(
                model_service_pb2.ListModelsRequest(), CONTEXT
            )
        with pytest.raises(errors.InvalidApiKey):
            await ModelServicer(ADMISSION.get()[0], CATALOGUE).GetModel(
                model_service_pb2.GetModelRequest(model="default"), CONTEXT
            )
