"""Recognizes account faults: the upstream refused this service's own key, credit or permission.

    NAMES          codes, types and reasons of account faults, by vendor
    NUMBERS        numeric codes of account faults, unless the status is a caller's error
    TEXTS          the beginnings of texts, for vendors without such a name
    MEMBER_TEXTS   the same, also if the error names a member of the request
    FLAGGED        the beginnings of the texts of a 403 about the caller's input
    FLAGGED_NAMES  codes and types of such a 403

The status alone does not suffice. OpenAI returns 429 both for a rate limit and for an account
without credit, Gemini returns 400 for a wrong key, and Anthropic 400 for an account without credit.

If the status is a caller's error and the error names a member of the request, only MEMBER_TEXTS
apply. Only the beginning of a text is compared, because vendors do not quote the caller there.
Gemini's 429 with RESOURCE_EXHAUSTED stays a rate limit although it has the text of OpenAI's
`insufficient_quota`: it is a limit per minute or per day, which ends without an operator. Two of
Gemini's texts are about spent money; these are in the table.
"""

import re
from collections.abc import Mapping
from typing import Final

from service.upstream.error_bodies import ErrorBody

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "OpenAI": (
        *("insufficient_quota", "credit_balance_exhausted", "organization_usage_limit_exceeded"),
        *("organization_spend_limit_exceeded", "project_spend_limit_exceeded"),
        *("billing_hard_limit_reached", "billing_not_active", "access_terminated"),
        *("account_deactivated", "organization_deactivated", "deactivated_workspace"),
        *("invalid_api_key", "invalid_organization", "mismatched_organization"),
        *("mismatched_project", "ip_not_authorized", "token_invalidated", "token_revoked"),
        *("unsupported_country_region_territory", "not_authorized_invalid_project"),
        *("project_archived", "project_inactive", "inactive_project"),
    ),
    "Anthropic": (
        *("authentication_error", "permission_error", "billing_error"),
        "enforced_spend_limit_reached",
    ),
    "Azure": ("Unauthorized", "PermissionDenied", "AuthenticationTypeDisabled"),
    "Google": (
        *("UNAUTHENTICATED", "API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "SERVICE_DISABLED"),
        *("API_KEY_HTTP_REFERRER_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED"),
        *("API_KEY_ANDROID_APP_BLOCKED", "API_KEY_IOS_APP_BLOCKED", "BILLING_DISABLED"),
        *("CONSUMER_INVALID", "CONSUMER_SUSPENDED", "USER_PROJECT_DENIED", "GCP_SUSPENDED"),
        *("RESOURCE_PROJECT_INVALID", "ACCOUNT_STATE_INVALID", "USER_BLOCKED_BY_ADMIN"),
        *("ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
        *("ACCESS_TOKEN_TYPE_UNSUPPORTED", "CREDENTIALS_MISSING", "OVERLOADED_CREDENTIALS"),
        *("SERVICE_NOT_VISIBLE", "LOCATION_POLICY_VIOLATED", "SECURITY_POLICY_VIOLATED"),
        *("keyInvalid", "keyExpired", "accessNotConfigured"),
    ),
    "Amazon": (
        *("AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"),
        "InvalidSignatureException",
    ),
    "Groq": ("organization_restricted",),
    "Together": ("credit_limit",),
    "DashScope": (
        *("Arrearage", "InvalidApiKey", "AccessDenied", "AccessDenied.Unpurchased"),
        *("Model.AccessDenied", "AllocationQuota.FreeTierOnly"),
    ),
    "Moonshot": (
        *("exceeded_current_quota_error", "invalid_authentication_error"),
        *("incorrect_api_key_error", "permission_denied_error", "access_terminated_error"),
    ),
    "MiniMax": ("insufficient_balance_error", "authorized_error"),
    "Volcengine": (
        *("AccountOverdueError", "AuthenticationError", "ModelNotOpen", "SetLimitExceeded"),
    ),
    "LiteLLM": (
        *("budget_exceeded", "ExceededBudget", "expired_key", "token_not_found_in_db"),
        *("key_model_access_denied", "team_model_access_denied", "user_model_access_denied"),
        *("org_model_access_denied", "project_model_access_denied"),
    ),
    "New API": ("insufficient_user_quota", "pre_consume_token_quota_failed"),
    "others": (
        *("insufficient_balance", "not_enough_balance", "insufficient_credits"),
        *("insufficient_credit", "insufficient_funds", "reject_no_credit", "payment_required"),
    ),
}
"""Compared ignoring case, `_`, `-` and spaces: `InvalidApiKey` equals `invalid_api_key`."""

NUMBERS: Final[Mapping[str, tuple[int, ...]]] = {
    "HTTP": (401, 402),
    "Zhipu": (1004, 1110, 1111, 1112, 1113, 1121, 1309, 1311),
    "MiniMax": (1004, 1008, 2049),
    "SiliconFlow": (30001,),
}
"""The meaning of a number depends on the vendor. These are numbers that no vendor uses for a rate
limit or for a failure of its own."""

TEXTS: Final[tuple[tuple[str, str], ...]] = (
    ("Google", r"API key (?:not valid|not found|expired|invalid)\b"),
    ("Google", r"Multiple authentication credentials received\b"),
    ("Google", r"User location is not supported for the API use\b"),
    ("Google", r"Gemini API free tier is not available in your country\b"),
    ("Google", r"Your prepayment credits are depleted\b"),
    ("Google", r"Your project has exceeded its (?:monthly )?spend(?:ing)? cap\b"),
    ("Anthropic", r"Your credit balance is too low\b"),
    ("Anthropic", r"This organization has been disabled\b"),
    ("Anthropic", r"You have reached your specified (?:\w+ )?API usage limits\b"),
    ("Anthropic", r"(?:Extra usage is|Usage credits are) required for long context requests\b"),
    ("OpenAI", r"Incorrect API key provided\b"),
    ("OpenAI", r"Your account is not active, please check your billing details\b"),
    ("OpenAI", r"Billing hard limit has been reached\b"),
    ("OpenAI", r"(?:The|Your) project (?:you are requesting )?(?:has been archived|is inactive)\b"),
    ("Groq", r"Organization has been restricted\b"),
    ("xAI", r"Your (?:newly created )?team (?:[0-9a-f-]{36} )?has either used all available cred"),
    ("xAI", r"Your newly created team doesn't have any credits\b"),
    ("xAI", r"You have run out of credits\b"),
    ("Fireworks", r"Account [\w.-]{1,64} is suspended\b"),
    ("Moonshot", r"Your account \S{1,80}(?: <[^>]{1,80}>)? is (?:suspended|not active)\b"),
    ("DeepSeek", r"Insufficient Balance(?: \(1008\))?\.?\Z"),
    ("MiniMax", r"invalid api key(?: \(2049\))?\.?\Z"),
    ("DashScope", r"Access denied, please make sure your account is in good standing\b"),
    ("SiliconFlow", r"Sorry, your account balance is insufficient\b"),
    ("LiteLLM", r"Budget has been exceeded!"),
    ("LiteLLM", r"ExceededBudget:"),
    ("Zhipu", r"您的账户已欠费"),
    ("New API", r"user quota is not enough\b"),
)
"""Matched at the beginning of a text, ignoring case."""

MEMBER_TEXTS: Final[tuple[tuple[str, str], ...]] = (
    # OpenAI streams some models only to verified organizations; the error names `stream`.
    ("OpenAI", r"Your organization must be verified to\b"),
)
"""Matched like TEXTS, also if the error names a member of the request."""

RATES: Final = (
    r"Rate limit reached\b",
    r"You have been rate limited\b",
    r"Allocated quota exceeded\b",
    r"Requests? rate limit exceeded\b",
)
"""Texts of rate limits with other names: DashScope sends `insufficient_quota` for its limit of
tokens per minute, and Together `credit_limit` for a limit of requests per minute."""

FLAGGED: Final[tuple[tuple[str, str], ...]] = (
    ("xAI", r"Content violates usage guidelines\b"),
    (
        "OpenRouter",
        r"(?:.{1,120} requires moderation(?: on .{1,60})?\. )?Your input was flagged\b",
    ),
)
"""Texts of a 403 about the caller's input, matched like TEXTS. xAI's names our team and key."""

FLAGGED_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "OpenAI": ("content_policy_violation", "moderation_blocked"),
    "Azure": ("content_filter", "ResponsibleAIPolicyViolation"),
    "DashScope": ("DataInspectionFailed", "data_inspection_failed"),
    "others": ("content_flagged", "input_flagged", "flagged_input"),
}
"""Codes and types of a 403 about the caller's input, compared like NAMES."""

_AMBIGUOUS: Final = ("insufficient_quota", "credit_limit")
_BLAMES_THE_CALLER: Final = frozenset({400, 404, 409, 413, 422})

# LiteLLM's prefix of the text of its upstream: "litellm.BadRequestError: XaiException - ".
_BEFORE: Final = (
    r"(?:Authentication Error, )?"
    r"(?:[\w.]{1,48}(?:Error|Exception)(?: [A-Za-z]{1,32})?(?::| -) ){0,3}"
)


_FLAGGED: Final = re.compile(
    f"{_BEFORE}(?:{'|'.join(pattern for _, pattern in FLAGGED)})", re.IGNORECASE
)


def _key(name: str) -> str:
    return name.casefold().translate(_NO_SEPARATORS)


_NO_SEPARATORS: Final = str.maketrans("", "", "_- ")
_KEYS: Final = frozenset(_key(name) for names in NAMES.values() for name in names)
_FLAGGED_KEYS: Final = frozenset(_key(name) for names in FLAGGED_NAMES.values() for name in names)
_AMBIGUOUS_KEYS: Final = frozenset(map(_key, _AMBIGUOUS))
_DIGITS: Final = frozenset(str(number) for numbers in NUMBERS.values() for number in numbers)
_TEXT: Final = re.compile(
    f"{_BEFORE}(?:{'|'.join(pattern for _, pattern in TEXTS)})", re.IGNORECASE
)
_MEMBER_TEXT: Final = re.compile(
    f"{_BEFORE}(?:{'|'.join(pattern for _, pattern in MEMBER_TEXTS)})", re.IGNORECASE
)
_RATE: Final = re.compile(f"{_BEFORE}(?:{'|'.join(RATES)})", re.IGNORECASE)


def is_account_fault(status: int, body: ErrorBody) -> bool:
    """Return whether an error is an account fault.

    Args:
        status: The HTTP status, or the status in an error event; 500 if it has none.
        body: The error body.
    """
    if any(map(_MEMBER_TEXT.match, body.texts)):
        return True
    callers = status in _BLAMES_THE_CALLER
    if callers and body.blames_member:
        return False
    keys = {_key(name) for name in body.names}
    if keys & _AMBIGUOUS_KEYS and any(map(_RATE.match, body.texts)):
        keys -= _AMBIGUOUS_KEYS
    if keys & _KEYS or (keys & _DIGITS and not callers):
        return True
    return any(map(_TEXT.match, body.texts))


def is_flagged(body: ErrorBody) -> bool:
    """Return whether the error body of a 403 reports flagged input of the caller."""
    if any(_key(name) in _FLAGGED_KEYS for name in body.names):
        return True
    return any(map(_FLAGGED.match, body.texts))
