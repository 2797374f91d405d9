"""Every row of the tables, and what looks alike, but is the caller's mistake."""

import json
import re
import time
from typing import Any

import pytest

from service.upstream.error_bodies import ErrorBody, read
from service.upstream.model_faults import NAMES, ROUTES, TEXTS, is_model_fault

SENTENCES = (
    "The model `vendor/gemma` does not exist.",
    "The model 'x' does not exist or you do not have access to it.",
    "The requested model doesn't exist",
    "model 'llama3' not found, try pulling it first",
    'model "llama3" not found',
    "Model Not Exist",
    "Model not found, inaccessible, and/or not deployed",
    "The model `x` has been decommissioned and is no longer supported.",
    "Model x is not loaded",
    "model: claude-9",
    "Invalid model: x",
    "Unable to access model x. Please visit our list.",
    "vendor/gemma is not a valid model ID",
    "models/x is not found for API version v1beta, or is not supported for generateContent.",
    "The API deployment for this resource does not exist.",
    "/chat/completions: Invalid model name passed in model=x. Call `/v1/models`.",
    "litellm.BadRequestError: OpenAIException - The model `x` does not exist",
    "No models loaded. Please load a model in the developer page.",
    "Unknown model x",
)
WRONG_URLS = (
    "Not Found",
    "404 page not found",
    "Invalid URL (POST /v2/chat/completions)",
    "Resource not found",
    "The requested URL was not found on the server.",
)


def found(status: int, document: Any) -> bool:
    body = read(json.dumps(document).encode())
    return body is not None and is_model_fault(status, body)


@pytest.mark.parametrize("name", sorted(name for names in NAMES.values() for name in names))
def test_every_name_decides(name: str) -> None:
    for status in (400, 404, 422):
        assert found(status, {"error": {"message": "No.", "code": name}})
        assert found(status, {"error": {"message": "No.", "type": name}})
    assert not found(500, {"error": {"message": "No.", "code": name}})


@pytest.mark.parametrize("text", SENTENCES)
def test_every_sentence_decides(text: str) -> None:
    for document in ({"error": {"message": text}}, {"error": text}, {"detail": text}):
        for status in (400, 404, 422):
            assert found(status, document), (status, document)


@pytest.mark.parametrize("text", WRONG_URLS)
def test_a_wrong_url_is_a_404_only(text: str) -> None:
    assert found(404, {"detail": text})
    assert not found(400, {"detail": text})


def test_every_row_has_a_sentence() -> None:
    for _, pattern in TEXTS:
        assert any(re.match(pattern, text, re.IGNORECASE) for text in SENTENCES), pattern
    for pattern in ROUTES:
        assert any(re.match(pattern, text, re.IGNORECASE) for text in WRONG_URLS), pattern


def test_a_404_without_a_text_is_the_operators() -> None:
    assert is_model_fault(404, ErrorBody())
    assert not is_model_fault(400, ErrorBody())


@pytest.mark.parametrize(
    "text",
    [
        "This model does not support image input.",
        "The model 'x' is not supported with tools.",
        "No endpoints found that support tool use",
        "No such File object: file-1",
        "'The model does not exist' is not one of ['user', 'assistant']",
        "messages[0].content: invalid model",
        "No route for that model",
        "Tool 'model' not found",
    ],
)
def test_what_the_caller_can_mend_is_the_callers(text: str) -> None:
    for status in (400, 404, 422):
        assert not found(status, {"error": {"message": text, "type": "invalid_request_error"}})


@pytest.mark.alone
@pytest.mark.parametrize("unit", ["model ", "aError: ", "models/", "x", "model: ", "the "])
def test_the_cost_of_a_text_is_bounded(unit: str) -> None:
    body = read(json.dumps({"error": {"message": unit * (60_000 // len(unit))}}).encode())
    assert body is not None
    started = time.process_time()
    for _ in range(100):
        is_model_fault(400, body)

    assert time.process_time() - started < 0.5
