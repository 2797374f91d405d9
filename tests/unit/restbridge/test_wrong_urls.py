import re

import pytest

from restbridge.wrong_urls import message
from tests.support.tree import ROOT

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/chat/completions",
        "/chat/completions/",
        "/v1/v1/chat/completions",
        "/v1/v1/v1/chat/completions",
        "//v1//chat/completions",
        "/v1/chat/completions/chat/completions",
        "/V1/Chat/Completions",
    ],
)
def test_a_wrong_base_url_is_corrected(path: str) -> None:
    assert message("POST", path) == (
        f"Invalid URL (POST {path}). Use POST {CHAT}: the base URL of an SDK ends in /v1, once."
    )


@pytest.mark.parametrize("path", ["/models", "/v1/models/", "/v1/v1/models", "/models/a/b"])
def test_so_is_that_of_the_models(path: str) -> None:
    assert "Use GET /v1/models: the base URL" in message("GET", path)


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/health/", "GET /health"),
        ("/v1/health", "GET /health"),
        ("/healthz/", "GET /healthz"),
        ("/v1/readyz", "GET /readyz"),
        ("/credits", "GET /v1/credits"),
        ("/chat/completions/quote/", "POST /v1/chat/completions/quote"),
    ],
)
def test_so_are_those_of_other_routes(path: str, right: str) -> None:
    assert message("GET", path) == f"Invalid URL (GET {path}). Use {right}."


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/responses", "the Responses API"),
        ("/responses", "the Responses API"),
        ("/v1/v1/responses/", "the Responses API"),
        ("/v1/responses/r_1/cancel", "the Responses API"),
        ("/v1/completions", "legacy completions"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/messages", "Anthropic's Messages API"),
    ],
)
def test_another_api_is_named_with_what_is_offered(path: str, api: str) -> None:
    assert f"This server offers POST {CHAT}, not {api}." in message("POST", path)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions"])
def test_whoever_can_select_chat_completions_is_told_how(path: str) -> None:
    said = message("POST", path)
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")

    assert "Select Chat Completions in your framework: " in said
    named = re.findall(
        r"use_responses_api=False|is_chat_model=True|openai-chat:|\.chat\(model\)", said
    )
    assert named
    assert all(name in page for name in named)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/V1/x", "/x", "/v1/chat"])
def test_any_other_url_gets_what_is_offered(path: str) -> None:
    assert message("GET", path) == (
        f"Invalid URL (GET {path}). This server offers POST {CHAT} and GET /v1/models; "
        "the base URL of an SDK ends in /v1."
    )


def test_a_path_is_shortened_and_printable() -> None:
    assert len(message("GET", "/" + "a" * 10_000)) < 250
    assert message("GET", "/a\n\x1b[1m").isprintable()
