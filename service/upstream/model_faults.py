"""Recognizes that an upstream does not have a model of the catalogue, or the route to it.

    NAMES    codes and types of such errors, by vendor
    TEXTS    the beginnings of their texts
    ROUTES   the texts of a 404 about the URL: the base URL is wrong

The caller named a model of the catalogue, so this is a mistake of the operator: the name of the
model at the upstream, or the URL of the upstream, is wrong.
"""

import re
from collections.abc import Mapping
from typing import Final

from service.upstream.error_bodies import ErrorBody

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "OpenAI": ("model_not_found",),
    "Azure": ("DeploymentNotFound", "unknown_model"),
    "Mistral": ("invalid_model",),
    "Together": ("model_not_available",),
    "DashScope": ("ModelNotFound", "model_not_supported"),
    "Groq": ("model_decommissioned",),
    "others": ("model_not_exist", "ModelNotExist", "invalid_model_name", "no_such_model"),
}
"""Compared ignoring case, `_`, `-` and spaces."""

TEXTS: Final[tuple[tuple[str, str], ...]] = (
    (
        "OpenAI, vLLM, Ollama, Groq, Fireworks",
        r"(?:the )?(?:requested )?model\b.{0,300}?\b(?:does ?n[o']t exist|does not exist|not exist"
        r"|not found|is not (?:loaded|deployed|a valid model)|has been (?:deprecated|decommissioned"
        r"|removed|retired))\b",
    ),
    ("Anthropic", r"model: \S{1,200}\Z"),
    ("Mistral", r"invalid model\b"),
    ("Together", r"unable to access model\b"),
    ("OpenRouter", r"\S{1,200} is not a valid model ID\b"),
    ("Gemini", r"models/\S{1,200} is not found for API version\b"),
    ("Azure", r"the API deployment for this resource does not exist\b"),
    ("LiteLLM", r"(?:/chat/completions: )?invalid model name passed in model="),
    ("LM Studio", r"no models loaded\b"),
    ("others", r"(?:unknown model|no such model)\b"),
)
"""Matched at the beginning of a text, ignoring case."""

ROUTES: Final = (
    r"not found\.?\Z",
    r"404 page not found\Z",
    r"(?:invalid URL|unknown request URL|cannot POST|no route matched|route not found)\b",
    r"resource not found\b",
    r"the requested URL\b",
)
"""Texts of a 404, matched at their beginning, ignoring case."""

_BLAMES_THE_CALLER: Final = frozenset({400, 404, 422})
_BEFORE: Final = r"(?:[\w.]{1,48}(?:Error|Exception)(?: [A-Za-z]{1,32})?(?::| -) ){0,3}"
_NO_SEPARATORS: Final = str.maketrans("", "", "_- ")


def _key(name: str) -> str:
    return name.casefold().translate(_NO_SEPARATORS)


_KEYS: Final = frozenset(_key(name) for names in NAMES.values() for name in names)
_TEXT: Final = re.compile(_BEFORE + "(?:" + "|".join(text for _, text in TEXTS) + ")", re.I | re.S)
_ROUTE: Final = re.compile("|".join(ROUTES), re.I)


def is_model_fault(status: int, body: ErrorBody) -> bool:
    """Return whether the upstream does not have the model, or the route.

    Args:
        status: The HTTP status.
        body: The error body. A 404 without a text is about the route.
    """
    if status not in _BLAMES_THE_CALLER:
        return False
    if any(_key(name) in _KEYS for name in body.names):
        return True
    if status == 404 and (not body.texts or any(map(_ROUTE.match, body.texts))):
        return True
    return any(map(_TEXT.match, body.texts))
