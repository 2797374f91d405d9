"""Every row of the tables, in every shape and at every status; and what looks alike, but is not."""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from service.upstream.account_faults import (
    FLAGGED_NAMES,
    MEMBER_TEXTS,
    NAMES,
    NUMBERS,
    RATES,
    TEXTS,
    is_account_fault,
    is_flagged,
)
from service.upstream.error_bodies import read

ALL_NAMES = sorted({name for names in NAMES.values() for name in names})
ALL_NUMBERS = sorted({number for numbers in NUMBERS.values() for number in numbers})
STATUSES = (400, 404, 409, 422, 429, 500, 503)
CALLERS = (400, 404, 409, 413, 422)


def found(status: int, document: Any) -> bool:
    body = read(json.dumps(document).encode())
    return body is not None and is_account_fault(status, body)


Shape = Callable[[str | int], Any]

SHAPES: dict[str, Shape] = {
    "code": lambda name: {"error": {"message": "No.", "type": "invalid", "code": name}},
    "type": lambda name: {"error": {"message": "No.", "type": name, "code": None}},
    "status": lambda name: {"error": {"message": "No.", "code": 400, "status": name}},
    "a list of one": lambda name: [{"error": {"message": "No.", "code": name}}],
    "a reason": lambda name: [
        {"error": {"code": 400, "message": "No.", "details": [{"@type": "t", "reason": name}]}}
    ],
    "bare": lambda name: {"code": name, "message": "No.", "request_id": "r"},
    "beside a text": lambda name: {"code": name, "error": "No."},
    "a detail": lambda name: {"detail": {"code": name}},
    "errors": lambda name: {"success": False, "errors": [{"code": name, "message": "No."}]},
    "base_resp": lambda name: {"base_resp": {"status_code": name, "status_msg": "no"}},
}


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_name_decides_in_every_shape_at_every_status(name: str) -> None:
    for shape in SHAPES.values():
        for status in STATUSES:
            assert found(status, shape(name)), (status, shape(name))


@pytest.mark.parametrize("number", ALL_NUMBERS)
def test_every_number_decides_unless_the_status_blames_the_caller(number: int) -> None:
    for shape in SHAPES.values():
        for status in STATUSES:
            for value in (number, str(number)):
                assert found(status, shape(value)) is (status not in CALLERS), status


@pytest.mark.parametrize(
    "name",
    [
        *("INVALID_API_KEY", "InvalidApiKey", "invalid-api-key", "Invalid API Key"),
        *("arrearage", "ARREARAGE", "InsufficientQuota"),
    ],
)
def test_the_spelling_of_a_name_does_not_matter(name: str) -> None:
    assert found(400, SHAPES["code"](name))


@pytest.mark.parametrize(
    "name",
    [
        *("", "error", "invalid_request_error", "BadRequest", "INVALID_ARGUMENT", "content_filter"),
        *("rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
        *("rateLimitExceeded", "Throttling.RateQuota", "Throttling.AllocationQuota", "1302"),
        *("RESOURCE_QUOTA_EXCEEDED", "rate_limit_reached_error", "engine_overloaded_error", "1300"),
        *("context_length_exceeded", "invalid_value", "model_not_found", "unsupported_value"),
        *("auth_error", "FAILED_PRECONDITION", "ResponsibleAIPolicyViolation", "invalid_api_keys"),
        *(
            "not_invalid_api_key",
            "1000",
            "1001",
            "1002",
            "1210",
            "1213",
            "1301",
            "400",
            "403",
            "429",
        ),
    ],
)
def test_other_names_do_not_decide(name: str) -> None:
    for status in STATUSES:
        assert not found(status, SHAPES["code"](name)), status


# Errors of vendors without a specific name for account faults: at least one for each row.
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "Google": (
        "API key not valid. Please pass a valid API key.",
        "API key expired. Please renew the API key.",
        "API Key not found. Please pass a valid API key.",
        "API key invalid",
        "Multiple authentication credentials received. Please pass only one.",
        "User location is not supported for the API use.",
        "Gemini API free tier is not available in your country. Please enable billing on your "
        "project in Google AI Studio.",
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project.",
        "Your project has exceeded its monthly spending cap. Please go to AI Studio.",
    ),
    "Anthropic": (
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing "
        "to upgrade or purchase credits.",
        "This organization has been disabled.",
        "You have reached your specified API usage limits. You will regain access on 2026-04-01.",
        "You have reached your specified workspace API usage limits.",
        "Extra usage is required for long context requests.",
        "Usage credits are required for long context requests.",
    ),
    "OpenAI": (
        "Incorrect API key provided: sk-ab***yz. You can find your API key at https://a.example.",
        "Your account is not active, please check your billing details on our website.",
        "Billing hard limit has been reached",
        "The project you are requesting has been archived and is no longer accessible",
        "Your organization must be verified to generate reasoning summaries. Please go to: "
        "https://a.example and click on Verify Organization.",
    ),
    "Groq": ("Organization has been restricted. Please reach out to support.",),
    "xAI": (
        "Your team 16f2151a-40f4-4a80-8ad0-cae00c27e8dd has either used all available credits or "
        "reached its monthly spending limit.",
        "Your newly created team doesn't have any credits or licenses yet.",
        "You have run out of credits or need a Grok subscription.",
    ),
    "Fireworks": ("Account some-team is suspended, possibly due to reaching the spending limit.",),
    "Moonshot": (
        "Your account org-1 <ak-1> is suspended due to insufficient balance, please recharge.",
        "Your account org-1<ak-1> is not active, organization <org-1> exceeded current quota.",
    ),
    "DeepSeek": ("Insufficient Balance", "insufficient balance (1008)"),
    "MiniMax": ("invalid api key (2049)", "invalid api key"),
    "DashScope": ("Access denied, please make sure your account is in good standing.",),
    "SiliconFlow": ("Sorry, your account balance is insufficient",),
    "LiteLLM": (
        "Budget has been exceeded! Current cost: 26.075, Max budget: 0.25",
        "ExceededBudget: End User=u over budget. Spend=0.0009, Budget=0.0001",
        "litellm.BadRequestError: OpenAIException - Budget has been exceeded! Current cost: 14",
        "litellm.BadRequestError: XaiException - Incorrect API key provided: sk***YA.",
        "litellm.BadRequestError: AnthropicException - Your credit balance is too low",
        "Authentication Error, ExceededBudget: End User=u over budget.",
    ),
    "Zhipu": ("您的账户已欠费",),
    "New API": ("user quota is not enough (request id: 2025)",),
}


@pytest.mark.parametrize("text", [text for texts in SENTENCES.values() for text in texts])
def test_every_sentence_decides_where_there_is_no_name(text: str) -> None:
    for document in (
        {"error": {"message": text, "type": "invalid_request_error", "code": None}},
        [{"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}],
        {"error": text, "code": "Client specified an invalid argument"},
        {"detail": text},
        {"message": text},
    ):
        for status in STATUSES:
            assert found(status, document), (status, document)


def test_every_row_has_a_sentence() -> None:
    for vendor, pattern in (*TEXTS, *MEMBER_TEXTS):
        assert any(re.match(pattern, text, re.IGNORECASE) for text in SENTENCES[vendor]), pattern


# --------------------------------------------------------------------- what is not our account's


@pytest.mark.parametrize(
    "text",
    [
        "Your message mentions an API key, which this model does not allow.",
        "messages[0].content: 'API key not valid' is not allowed.",
        "'API key not valid' is not one of ['user', 'assistant']",
        'Unknown role: "Incorrect API key provided".',
        "Invalid value: 'Your credit balance is too low'. Supported values are: 'auto'.",
        "The text 'invalid_api_key, insufficient_quota' is too long.",
        "The response was filtered: the prompt asks about billing_hard_limit_reached.",
        "This model's maximum context length is 8192 tokens; the account has 9000.",
        "Billing codes must be strings.",
        "API keys not valid in tool schemas",
        "Insufficient Balance of messages: a user message must follow.",
        "Please say: Your account is not active, please check your billing details.",
        "\nAPI key not valid",
        " API key not valid",
    ],
)
def test_a_callers_own_mistake_stays_the_callers(text: str) -> None:
    for status in STATUSES:
        assert not found(status, {"error": {"message": text, "type": "invalid_request_error"}})


@pytest.mark.parametrize("status", CALLERS)
def test_an_error_that_names_a_member_of_the_request_is_the_callers(status: int) -> None:
    error = {"message": "API key not valid", "code": "invalid_api_key", "param": "tools[0].server"}

    assert not found(status, {"error": error})
    assert found(500, {"error": error})


@pytest.mark.parametrize("before", ["", "litellm.BadRequestError: OpenAIException - "])
def test_openai_names_the_member_that_our_organization_may_not_use(before: str) -> None:
    text = f"{before}Your organization must be verified to stream this model. Please go to: …"
    error = {"message": text, "type": "invalid_request_error", "code": "unsupported_value"}

    for status in STATUSES:
        assert found(status, {"error": {**error, "param": "stream"}})
    quoted = {**error, "message": f"Invalid value: '{text}'.", "param": "messages[0].role"}
    assert not found(400, {"error": quoted})


RATE_LIMITS: tuple[Any, ...] = (
    {
        "error": {
            "message": "Rate limit reached for gpt-4o in organization org-1 on requests per min "
            "(RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
            "type": "requests",
            "code": "rate_limit_exceeded",
        }
    },
    # Gemini: the text is that of OpenAI's insufficient_quota.
    [
        {
            "error": {
                "code": 429,
                "message": "You exceeded your current quota, please check your plan and billing "
                "details.\n* Quota exceeded for metric: generate_content_free_tier_requests",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                        "violations": [{"quotaMetric": "m", "quotaId": "RequestsPerDay-FreeTier"}],
                    },
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "44s"},
                ],
            }
        }
    ],
    {"code": 429, "message": "Resource has been exhausted (e.g. check quota)."},
    {"error": {"message": "Quota exceeded for quota metric 'requests'", "code": 429}},
    {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": "This request would exceed your account's rate limit.",
        },
    },
    # DashScope's limit of tokens per minute, and Together's of requests.
    {
        "error": {
            "message": "Allocated quota exceeded, please increase your quota limit.",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
        }
    },
    {
        "error": {
            "message": "You have been rate limited. Your rate limit is 60 queries per minute.",
            "type": "credit_limit",
        }
    },
    {"error": {"message": "Requests rate limit exceeded", "type": "insufficient_quota"}},
    {"error": {"code": "1302", "message": "您的账户已达到速率限制"}},
    {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
)


@pytest.mark.parametrize("document", RATE_LIMITS, ids=range(len(RATE_LIMITS)))
def test_a_rate_limit_stays_one(document: Any) -> None:
    assert not found(429, document)


def test_every_text_of_a_rate_limit_is_met() -> None:
    told = json.dumps(RATE_LIMITS)

    assert all(re.search(pattern, told, re.IGNORECASE) for pattern in RATES)


@pytest.mark.parametrize(
    ("document", "flagged"),
    [
        (
            {
                "code": "The caller does not have permission to execute the specified operation",
                "error": "Content violates usage guidelines. Team: t, API key ID: k, Model: grok-4",
            },
            True,
        ),
        (
            {
                "error": {
                    "code": 403,
                    "message": "anthropic/claude-3 requires moderation on Anthropic. Your input "
                    'was flagged for "violence". No credits were charged.',
                    "metadata": {"reasons": ["violence"]},
                }
            },
            True,
        ),
        ({"error": {"code": 403, "message": "Your input was flagged"}}, True),
        (
            {
                "error": {
                    "code": 403,
                    "message": "openai/gpt-5 requires moderation. Your input was flagged for "
                    '"hate".',
                }
            },
            True,
        ),
        ({"error": {"message": "m requires moderation. The key has no permission."}}, False),
        *(
            ({"error": {"code": name, "message": "No."}}, True)
            for names in FLAGGED_NAMES.values()
            for name in names
        ),
        ({"error": {"code": 403, "message": "Key limit exceeded (total limit)."}}, False),
        ({"error": {"message": "Your key says: Your input was flagged"}}, False),
        ({"detail": "Forbidden"}, False),
    ],
)
def test_flagged_input_is_the_callers(document: Any, *, flagged: bool) -> None:
    body = read(json.dumps(document).encode())

    assert body is not None
    assert is_flagged(body) is flagged


@pytest.mark.alone
@pytest.mark.parametrize(
    "unit",
    [
        *("aError: ", "aError a", "a.", "Error", "Your account ", "<", "x", " "),
        *("Account a", "a" * 48 + "Error: ", "Your team a-", " requires moderation"),
        " requires moderation on ",
    ],
)
def test_the_cost_of_a_text_is_bounded(unit: str) -> None:
    body = read(json.dumps({"error": {"message": unit * (60_000 // len(unit))}}).encode())
    assert body is not None
    started = time.process_time()
    for _ in range(100):
        is_account_fault(400, body)
        is_flagged(body)

    assert time.process_time() - started < 0.5
