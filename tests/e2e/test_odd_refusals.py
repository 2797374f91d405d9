"""Refusals of upstreams in the shapes of many vendors: the reason that the caller gets.

    REASONS     the caller's mistake: status, message, type, param, code and members
    OPERATORS   the operator's mistake, under any status: 502 without a text of the vendor
    BUSY        no work was done: 502, retryable, after one retry of the service
    BROKEN      500: the text of the server's own error object

Each refusal goes through every door, whole and streamed, and is charged 0.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from process.log import JsonFormatter
from tests.support.accounts_stack import accounts_stack
from tests.support.asking import DOORS, document
from tests.support.odd_answers import Failure, call, http, json_answer, raw_server
from tests.support.priced_models import priced
from tests.support.running_service import UPSTREAM_KEY

INVALID: Final = "invalid_request_error"
TRUE_NAME: Final = "0"
"""The upstream's name of the first model; each row has the name of its number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A refusal, and the failure that the caller gets."""

    name: str
    body: Any
    """A document, or bytes that are none."""
    status: int = 400
    """The HTTP status of the upstream."""
    told: int = 0
    """The HTTP status for the caller; 0 for that of the upstream."""
    message: str = ""
    type: str = INVALID
    param: str | None = None
    code: str | int = "invalid_value"
    members: Mapping[str, Any] = field(default_factory=dict)
    retryable: bool = False
    coding: str | None = None
    """The content coding that the response names."""

    @property
    def answer(self) -> bytes:
        """The bytes of the response."""
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return json_answer(body, status=self.status, coding=self.coding)

    def failure(self) -> Failure:
        """The failure for the caller."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return Failure(
            status=self.told or self.status,
            error={**error, **self.members},
            retryable=self.retryable,
        )


INNER: Final = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {}}}
PROBLEM: Final = {"type": "int_parsing", "loc": ["body", "top_k"], "msg": "Not an integer"}
OTHER: Final = {"type": "missing", "loc": ["body", "messages", 0, "role"], "msg": "Missing"}
TOO_LONG: Final = b'data: {"error":"Too long."}\n\n'
MANY: Final = "a" * 2**17
LONG: Final = {f"m{number}": "x" * 200 for number in range(50)}

REASONS: Final = (
    # A text.
    Row(name="detail", body={"detail": "max_tokens is 2048"}, message="max_tokens is 2048"),
    Row(name="error", body={"error": "no vision here"}, message="no vision here"),
    Row(
        name="error with a type beside",
        body={"error": "Too long.", "error_type": "validation"},
        status=422,
        message="Too long.",
        members={"error_type": "validation"},
    ),
    Row(
        name="error with a code beside",
        body={"error": "Too long.", "code": "too_long"},
        message="Too long.",
        code="too_long",
    ),
    Row(name="message", body={"message": "Too long."}, message="Too long."),
    Row(name="msg", body={"error": {"msg": "Too long.", "code": 7}}, message="Too long.", code=7),
    Row(name="description", body={"error": {"description": "Too long."}}, message="Too long."),
    Row(name="err", body={"err": "Too long."}, message="Too long."),
    Row(
        name="Apigee",
        body={"fault": {"faultstring": "Too long.", "detail": {"errorcode": "large"}}},
        message="Too long.",
        members={"detail": {"errorcode": "large"}},
    ),
    Row(name="no JSON", body=b"unknown field `foo`\n", status=422, message="unknown field `foo`"),
    Row(name="a JSON text", body="Too long.", message="Too long."),
    # Lists.
    Row(
        name="FastAPI",
        body={"detail": [PROBLEM]},
        status=422,
        message="top_k: Not an integer",
        param="top_k",
        members={"detail": [PROBLEM]},
    ),
    Row(
        name="two problems",
        body={"detail": [OTHER, PROBLEM]},
        message="messages[0].role: Missing; top_k: Not an integer",
        param="messages[0].role",
        members={"detail": [OTHER, PROBLEM]},
    ),
    Row(
        name="Mistral",
        body={"object": "error", "message": {"detail": [PROBLEM]}, "type": "t", "code": None},
        status=422,
        message="top_k: Not an integer",
        type="t",
        param="top_k",
        members={"detail": [PROBLEM]},
    ),
    Row(
        name="a list of one",
        body=[{"error": {"code": 400, "message": "No 'foo'.", "status": "INVALID_ARGUMENT"}}],
        message="No 'foo'.",
        code=400,
        members={"status": "INVALID_ARGUMENT"},
    ),
    Row(
        name="errors",
        body={"errors": [{"code": 7000, "message": "No route for it."}], "success": False},
        message="No route for it.",
        code=7000,
    ),
    Row(name="a list of texts", body={"error": ["Too long.", "x"]}, message="Too long."),
    # Members beside the message.
    Row(
        name="innererror",
        body={
            "error": {
                "message": "It was filtered.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "innererror": INNER,
            }
        },
        message="It was filtered.",
        param="prompt",
        code="content_filter",
        members={"innererror": INNER},
    ),
    Row(
        name="n_ctx",
        body={"error": {"code": 400, "message": "Too long.", "type": "exceeds", "n_ctx": 8192}},
        message="Too long.",
        type="exceeds",
        code=400,
        members={"n_ctx": 8192},
    ),
    Row(
        name="metadata",
        body={"error": {"code": 400, "message": "No.", "metadata": {"raw": UPSTREAM_KEY}}},
        message="No.",
        code=400,
        members={"metadata": {"raw": "[redacted]"}},
    ),
    Row(
        name="members that do not fit",
        body={"error": {"message": "No.", "large": LONG, "n_ctx": 1}},
        message="No.",
        members={"n_ctx": 1},
    ),
    # The status stays.
    Row(
        name="404 of something else",
        body={"error": {"message": "No such File object: f", "param": "id"}},
        status=404,
        message="No such File object: f",
        param="id",
    ),
    Row(
        name="404 of OpenRouter",
        body={"error": {"message": "No endpoints found that support image input", "code": 404}},
        status=404,
        message="No endpoints found that support image input",
        code=404,
    ),
    Row(name="409", body={"error": "Busy thread."}, status=409, told=422, message="Busy thread."),
    Row(
        name="flagged",
        body={
            "error": {
                "code": 403,
                "message": "m requires moderation on X. Your input was flagged for 'violence'.",
                "metadata": {"reasons": ["violence"]},
            }
        },
        status=403,
        message="m requires moderation on X. Your input was flagged for 'violence'.",
        code="content_filter",
        members={"metadata": {"reasons": ["violence"]}},
    ),
    Row(
        name="flagged by name",
        body={"error": {"code": "content_policy_violation", "message": "Not this."}},
        status=403,
        message="Not this.",
        code="content_filter",
    ),
    Row(
        name="flagged for our team",
        body={"code": "x", "error": "Content violates usage guidelines. Team: t-1, Model: m"},
        status=403,
        message="Content violates usage guidelines. Team: [redacted], Model: m",
        code="content_filter",
    ),
    # Events.
    *(
        Row(name=f"{kind} event", body=body, message="Too long.")
        for kind, body in (
            ("an", TOO_LONG),
            ("a named", b"event: error\n" + TOO_LONG),
            ("a finished", TOO_LONG + b"data: [DONE]\n\n"),
            ("a late", b"data: {no}\n\n" + TOO_LONG),
        )
    ),
    # Bytes that are no text, and bodies that quote a large request.
    Row(name="Latin-1", body=b'{"error":"Too l\xf6ng."}', message="Too l\ufffdng."),
    Row(name="NaN", body=b'{"error":"Too long.","code":NaN}', message="Too long."),
    Row(
        name="a quoted request",
        body={"detail": [{**PROBLEM, "input": MANY}]},
        status=422,
        message="Not an integer",
    ),
    Row(
        name="a long message",
        body={"error": {"message": f"Long: {MANY}"}},
        message="Long: " + "a" * 506,
    ),
    Row(
        name="a long escape",
        body={"error": {"message": "a" * 510 + "\ud83d\ude00" + MANY}},
        message="a" * 510,
    ),
    Row(name="a large page", body=b"<html>" + MANY.encode(), message="The request is not valid."),
    # Compressed, although the service asks for no coding.
    *(
        Row(name=coding, body=b"?", coding=coding, message="The request is not valid.")
        for coding in ("gzip", "br")
    ),
    # Nothing is said.
    Row(name="a page", body=b"<html>Bad</html>", message="The request is not valid."),
    Row(name="the status", body=b"Bad Request", message="The request is not valid."),
    Row(name="no body", body=b"", status=422, message="The request is not valid."),
)

ACCOUNT: Final = "The model provider rejected this server's credentials."
NO_MODEL: Final = "The model provider does not have this model."
IS_BUSY: Final = "The model provider is overloaded or loads the model. Try again later."


def ours(name: str, status: int, body: Any) -> Row:
    """Return a fault of our account at the upstream."""
    return Row(
        name=name,
        body=body,
        status=status,
        told=502,
        message=ACCOUNT,
        type="server_error",
        code="upstream_account",
    )


def no_model(name: str, status: int, body: Any) -> Row:
    """Return a model or URL of the catalogue that the upstream does not have."""
    return Row(
        name=name,
        body=body,
        status=status,
        told=502,
        message=NO_MODEL,
        type="server_error",
        code="upstream_error",
    )


OPERATORS: Final = (
    ours("quota", 429, {"error": {"message": "Quota.", "code": "insufficient_quota"}}),
    ours("key", 400, {"error": {"code": 400, "message": "API key not valid. Pass one."}}),
    ours("limit", 400, {"error": {"message": "No.", "code": "billing_hard_limit_reached"}}),
    ours("credit", 400, {"error": {"message": "Your credit balance is too low to go on."}}),
    ours("Message", 400, {"Message": "Your credit balance is too low to go on."}),
    ours("errorMessage", 400, {"errorMessage": "API key expired. Renew it."}),
    ours("title", 422, {"title": "Your project has been archived.", "status": 422}),
    ours("fault", 400, {"fault": {"faultstring": "Invalid API Key"}}),
    ours("project", 400, {"error": {"message": "The project has been archived."}}),
    replace(ours("compressed", 401, b"?"), coding="gzip"),
    ours("permission", 403, {"error": {"message": "No."}}),
    no_model("OpenAI", 404, {"error": {"message": "No.", "code": "model_not_found"}}),
    no_model("vLLM", 404, {"object": "error", "message": "The model `1` does not exist."}),
    no_model("Ollama", 404, {"error": "model '1' not found, try pulling it first"}),
    no_model("OpenRouter", 400, {"error": {"message": "1 is not a valid model ID", "code": 400}}),
    no_model("LiteLLM", 400, {"error": {"message": "Invalid model name passed in model=1."}}),
    no_model("Mistral", 400, {"message": "Invalid model: 1", "type": "invalid_model"}),
    no_model("no route", 404, {"detail": "Not Found"}),
    no_model("a page", 404, b"<html>404</html>"),
)


def busy(name: str, status: int, body: Any) -> Row:
    """Return a refusal of an upstream that did no work."""
    return Row(
        name=name,
        body=body,
        status=status,
        told=502,
        message=IS_BUSY,
        type="server_error",
        code="upstream_unavailable",
        retryable=True,
    )


BUSY: Final = (
    busy("Ollama", 503, {"error": "server busy, please try again. maximum pending requests"}),
    busy("llama.cpp", 503, {"error": {"message": "Loading model", "code": 503}}),
    busy("Anthropic", 529, {"type": "error", "error": {"type": "overloaded_error"}}),
    busy("a page", 503, b"<html>503</html>"),
    replace(busy("compressed", 503, b"?"), coding="gzip"),
)


def broken(name: str, body: Any, message: str) -> Row:
    """Return a failure of the upstream itself."""
    return Row(
        name=name,
        body=body,
        status=500,
        told=502,
        message=message,
        type="server_error",
        code="upstream_error",
    )


FAILED: Final = "The model provider failed to complete the request."
BROKEN: Final = (
    broken(
        "a picture",
        {"error": {"code": 500, "message": "image input is not supported", "type": "server_error"}},
        "The model provider failed: image input is not supported",
    ),
    broken(
        "a schema",
        {"error": {"message": "Error resolving ref #/$defs/a", "type": "api_error"}},
        "The model provider failed: Error resolving ref #/$defs/a",
    ),
    broken("a text", {"error": "no such tool"}, "The model provider failed: no such tool"),
    broken("a stack", {"error": {"message": "Traceback (most recent call last): x"}}, FAILED),
    broken("a page", b"<html>500</html>", FAILED),
    broken("the status", {"error": "Internal Server Error"}, FAILED),
)

KINDS: Final = {"reasons": REASONS, "operator": OPERATORS, "busy": BUSY, "broken": BROKEN}


async def outcomes(rows: tuple[Row, ...]) -> dict[Any, list[Any]]:
    """Return the distinct failures of each row, through every door, whole and streamed."""
    found: dict[Any, list[Any]] = {row.name: [] for row in rows}
    async with raw_server([(row.answer,) for row in rows]) as upstream:
        entries = {
            f"row-{number}": priced(upstream_model=f"{number}", upstream="raw")
            for number in range(len(rows))
        }
        async with accounts_stack(entries, base_urls={"raw": upstream.url}) as stack:
            for door in DOORS:
                for streamed in (False, True):
                    team = stack.books.team()
                    told = await asyncio.gather(
                        *(
                            call(stack, door, team.key, document(f"row-{n}"), streamed=streamed)
                            for n in range(len(rows))
                        )
                    )
                    for row, (failure, said) in zip(rows, told, strict=True):
                        assert failure is not None, row.name
                        assert said == []
                        if failure not in found[row.name]:
                            found[row.name].append(failure)
                    assert stack.books.charges(team) == []
            await stack.rests()
            stack.books.nothing_is_open()
    return found


@pytest.mark.parametrize("kind", ["reasons", "busy", "broken"])
async def test_a_reason_reaches_the_caller(kind: str) -> None:
    rows = KINDS[kind]

    assert await outcomes(rows) == {row.name: [row.failure()] for row in rows}


@pytest.mark.parametrize("row", OPERATORS, ids=[row.name for row in OPERATORS])
async def test_a_mistake_of_the_operator_is_not_the_callers(
    row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service")
    found = await outcomes((row,))
    wanted = row.failure()
    for failure in found[row.name]:
        text = failure.error["message"]
        assert text.startswith(f"{row.message} Contact the operator and give request id "), row
        assert {**failure.error, "message": row.message} == wanted.error
        assert (failure.status, failure.retryable) == (502, False)
    formatter = JsonFormatter()
    lines = [json.loads(formatter.format(record)) for record in caplog.records]
    calls = [line for line in lines if line["event"] == "call"]
    assert len(calls) == 6
    for line in calls:
        assert (line["level"], line["upstream"]) == ("error", "raw")
        assert line["upstream_status"] == row.status
        cause = "account" if row.message == ACCOUNT else "model"
        assert line["cause"] == cause
        assert line.get("upstream_model") == (TRUE_NAME if cause == "model" else None)


@pytest.mark.parametrize("row", BUSY, ids=[row.name for row in BUSY])
async def test_a_busy_upstream_is_asked_once_more(row: Row) -> None:
    sound = http(b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n')
    async with (
        raw_server([(row.answer, sound)]) as upstream,
        accounts_stack(
            {"m": priced(upstream_model="0", upstream="raw")}, base_urls={"raw": upstream.url}
        ) as stack,
    ):
        team = stack.books.team()
        failure, said = await call(stack, "rest", team.key, document("m"), streamed=True)
        assert failure is None
        assert [each["choices"][0]["delta"]["content"] for each in said] == ["a"]
        assert len(upstream.bodies) == 2
        await stack.rests()
        assert len(stack.books.charges(team)) == 1
        assert stack.service.metric("chat_upstream_retries_total") == 1


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ('"messages":[{"role":"user","content":"a\\ud83d"}]', "messages[0].content"),
        ('"messages":[{"role":"user","content":[{"type":"text","text":"\\udc00b"}]}]', None),
        ('"messages":[{"role":"user","content":"a"}],"user":"\\uD800"', "user"),
        (
            '"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":'
            '{"name":"f","parameters":{"description":"\\ude00"}}}]',
            "tools[0].function.parameters.description",
        ),
    ],
)
async def test_half_of_a_pair_is_refused_before_the_upstream(
    members: str, param: str | None
) -> None:
    request = json.loads('{"model":"default",' + members + "}")
    async with accounts_stack() as stack:
        for door in DOORS:
            for streamed in (False, True):
                team = stack.books.team()
                failure, _ = await call(stack, door, team.key, request, streamed=streamed)
                assert failure is not None
                assert failure.status == 422
                assert failure.error["param"] == (param or "messages[0].content[0].text")
                assert failure.error["message"] == (
                    f"Invalid '{failure.error['param']}': expected Unicode text, but got half of a "
                    "surrogate pair."
                )
                assert stack.books.charges(team) == []
        await stack.rests()
        assert not stack.upstream.records
