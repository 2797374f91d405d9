"""The OpenAPI document describes what the bridge serves.

the committed file      equals what `make openapi` generates
routes                  restbridge.app.METHODS
failures                chatcompletion.reasons.RULES and restbridge.error_responses.BRIDGE
headers                 restbridge.headers.EXPOSED
schemas                 every golden document, and no request with a member of a wrong type
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from google.protobuf import text_format
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.reasons import RULES
from chatcompletion.v1.chat_completion_service_pb2 import QuoteChatCompletionResponse
from chatcompletion.v1.credit_service_pb2 import GetCreditsResponse
from restbridge.app import METHODS
from restbridge.credits import document as credits_document
from restbridge.error_responses import BRIDGE, REASONS, of_reason
from restbridge.headers import EXPOSED
from restbridge.quote_route import document as quote_document
from service.validation.contract import LENGTHS, RANGES
from tests.support.golden import Golden, MistypedGolden
from tests.support.golden_requests import MISTYPED, REQUESTS
from tests.support.golden_responses import CHUNKS, COMPLETIONS, ERRORS
from tools.openapi import document, failures

DOCUMENT: Final = json.loads(document.PLACE.read_text(encoding="utf-8"))
SCHEMAS: Final = DOCUMENT["components"]["schemas"]
UNTYPED: Final = {"wrong types", "any param"}
"""Golden responses that depart from OpenAI's contract: a completion, which is returned as it is,
and an error of an upstream, whose param and code are not."""

KINDS: Final = (
    ("ChatCompletionParams", REQUESTS),
    ("ChatCompletion", COMPLETIONS),
    ("ChatCompletionChunk", CHUNKS),
    ("ErrorResponse", ERRORS),
)


def errors(schema: str, instance: object) -> list[str]:
    """Return what a schema of the document rejects in an instance."""
    validator = Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{schema}"})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(instance)]


def operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def test_the_committed_document_is_fresh() -> None:
    fresh = document.text() == document.PLACE.read_text(encoding="utf-8")
    assert fresh, "run `make openapi`"


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


def test_the_document_has_the_routes_of_the_bridge() -> None:
    routes = {(path, method) for path, methods in METHODS.items() for method in methods}
    assert {(path, method) for path, method, _ in operations()} == {
        (path, method) for path, method in routes if method != "HEAD"
    }


def test_an_operation_has_a_name_of_its_own_and_says_whether_it_needs_a_key() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for path, _, operation in operations():
        assert bool(operation["security"]) == path.startswith("/v1/")
        assert ("401" in operation["responses"]) == path.startswith("/v1/")


def test_every_failure_is_a_response_with_its_status_and_code() -> None:
    found = {
        (int(status), line.split("`")[1])
        for _, _, operation in operations()
        for status, response in operation["responses"].items()
        if status != "200"
        for line in response["description"].splitlines()
    }
    left_out = failures.NEVER_SENT | failures.OF_OPERATORS | failures.OF_NO_ROUTE
    assert left_out < REASONS
    assert found == {
        (rule.http_status, rule.code) for reason, rule in RULES.items() if reason not in left_out
    } | {(rule.status, rule.code) for reason, rule in BRIDGE.items() if reason not in left_out}


def test_a_failure_of_no_route_is_in_the_description() -> None:
    for reason in ("UNKNOWN_URL", "METHOD_NOT_ALLOWED"):
        assert f"`{BRIDGE[reason].code}`" in DOCUMENT["info"]["description"]


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_the_error_object_of_each_reason_is_valid(reason: str) -> None:
    assert errors("ErrorResponse", json.loads(of_reason(reason).body())) == []


def test_the_headers_are_those_that_web_pages_can_read() -> None:
    assert {*DOCUMENT["components"]["headers"]} == {*EXPOSED, "www-authenticate"}


def test_every_message_has_its_schema_and_every_member_its_description() -> None:
    for shape in SHAPES.values():
        schema = SCHEMAS[shape.name.rpartition(".")[2]]
        assert schema["description"]
        assert [*schema["properties"]] == [*shape.members]
        assert all(member["description"] for member in schema["properties"].values())


def test_the_limits_are_those_of_the_service() -> None:
    properties = SCHEMAS["ChatCompletionParams"]["properties"]
    for name, (least, most) in RANGES.items():
        assert properties[name]["minimum"] == least
        assert properties[name].get("maximum", float("inf")) == most
    for name, (_, most) in LENGTHS.items():
        lengths = {properties[name].get(f"max{unit}") for unit in ("Length", "Items", "Properties")}
        assert lengths == {None, most}


@pytest.mark.parametrize(
    ("schema", "golden"),
    [
        pytest.param(schema, golden, id=f"{schema}: {golden.name}")
        for schema, goldens in KINDS
        for golden in goldens
    ],
)
def test_a_golden_document_is_valid(schema: str, golden: Golden) -> None:
    found = errors(schema, json.loads(golden.json))
    assert bool(found) == (golden.name in UNTYPED), found


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param(golden, id=golden.name)
        for golden in MISTYPED
        if not golden.out_of_range  # of int64 or double, which JSON Schema does not have
    ],
)
def test_a_member_of_a_wrong_type_is_not(golden: MistypedGolden) -> None:
    assert errors("ChatCompletionParams", json.loads(golden.json)) != []


@pytest.mark.parametrize(
    "members",
    [
        {"temperature": 2.1},
        {"n": 0},
        {"top_logprobs": -2},
        {"messages": []},
        {"messages": None},
        {"model": None},
        {"messages": [{"content": "Hi"}]},
        {"metadata": {str(number): "" for number in range(17)}},
        {"safety_identifier": "x" * 65},
    ],
    ids=str,
)
def test_a_request_that_the_service_rejects_is_not_valid(members: dict[str, object]) -> None:
    request = {"model": "default", "messages": [{"role": "user", "content": "Hi"}], **members}
    assert errors("ChatCompletionParams", request) != []


CREDITS: Final = """
account { name: "acme" balance_nano_credits: 24500000000 available_nano_credits: -1 }
api_key { name: "ci" limits { requests_per_minute: 60 models { names: "default" } } }
usage { start_time { seconds: 1767225600 } model: "default" requests: 3 charged_nano_credits: 25 }
"""


WORTHS: Final = """
account { balance_worth { currency_code: "EUR" amount: "-0.245" } }
usage { charged_worth { currency_code: "EUR" amount: "0.000000000000000001" } }
"""


@pytest.mark.parametrize("text", [CREDITS, WORTHS, ""], ids=["full", "worths", "empty"])
def test_the_credits_document_is_valid(text: str) -> None:
    response = text_format.Parse(text, GetCreditsResponse())
    assert errors("Credits", credits_document(response)) == []
    assert errors("Credits", {**credits_document(response), "more": 1}) != []


QUOTE: Final = """
model: "default" hold_nano_credits: 4200000 prompt_tokens: 549 completion_tokens: 2000
available_nano_credits: 1100000 largest_max_tokens: 118
hold_worth { currency_code: "EUR" amount: "0.000042" }
rejection {
    reason: ERROR_REASON_BUDGET_EXCEEDED message: "Budget exceeded." scope: LIMIT_SCOPE_API_KEY
    limit: "budget_day" retry_time { seconds: 1793491199 nanos: 1 }
}
"""
GOLDEN_QUOTE: Final = {
    "object": "chat.completion.quote",
    "model": "default",
    "hold": "0.0042",
    "hold_nano_credits": 4200000,
    "hold_worth": {"currency": "EUR", "amount": "0.000042"},
    "prompt_tokens": 549,
    "completion_tokens": 2000,
    "available": "0.0011",
    "available_nano_credits": 1100000,
    "largest_max_tokens": 118,
    "rejection": {
        "code": "budget_exceeded",
        "message": "Budget exceeded.",
        "scope": "api_key",
        "limit": "budget_day",
        "retry_at": 1793491200,
    },
}


def test_the_quote_document_is_valid_and_golden() -> None:
    response = text_format.Parse(QUOTE, QuoteChatCompletionResponse())
    assert quote_document(response) == GOLDEN_QUOTE
    for made in (response, QuoteChatCompletionResponse()):
        assert errors("Quote", quote_document(made)) == []
        assert errors("Quote", {**quote_document(made), "more": 1}) != []


def test_the_examples_are_valid() -> None:
    content = DOCUMENT["paths"]["/v1/chat/completions"]["post"]
    for example in content["requestBody"]["content"]["application/json"]["examples"].values():
        assert errors("ChatCompletionParams", example["value"]) == []
    stream = content["responses"]["200"]["content"]["text/event-stream"]["example"]
    *chunks, done, rest = stream.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    for chunk in chunks:
        assert errors("ChatCompletionChunk", json.loads(chunk.removeprefix("data: "))) == []
