"""The messages for URLs that the bridge does not have. They name the right URL, if there is one.

    /v1/chat/completions/          a slash too many        -> /v1/chat/completions
    /chat/completions              a base URL without /v1  -> /v1/chat/completions
    /v1/v1/chat/completions        a base URL with two     -> /v1/chat/completions
    /health/, /v1/healthz          a route of operators    -> /health
    /v1/responses                  another API of OpenAI   -> how frameworks select Chat Completions

No I/O.
"""

import re
from typing import Final

from chatcompletion.default_messages import quoted

_CHAT: Final = "/v1/chat/completions"
_MODELS: Final = "/v1/models"
_OFFERED: Final = (
    f"This server offers POST {_CHAT} and GET {_MODELS}; the base URL of an SDK ends in /v1."
)

_RIGHT: Final = {
    "/chat/completions/quote": "POST /v1/chat/completions/quote",
    "/credits": "GET /v1/credits",
    "/health": "GET /health",
    "/healthz": "GET /healthz",
    "/readyz": "GET /readyz",
}
"""The right routes, by their paths without /v1 and without a slash at the end."""

_OTHER_APIS: Final = {
    "responses": "the Responses API",
    "embeddings": "embeddings",
    "completions": "legacy completions",
    "messages": "Anthropic's Messages API",
    "images": "image generation",
    "audio": "the audio APIs",
    "moderations": "moderations",
    "files": "files",
    "batches": "batches",
    "assistants": "assistants",
    "threads": "assistants",
    "realtime": "the Realtime API",
}
"""Other APIs, by the first segment of their paths after /v1."""

_SELECT: Final = {
    "responses": (
        "Select Chat Completions in your framework: use_responses_api=False in LangChain, "
        '.chat(model) in the Vercel AI SDK, set_default_openai_api("chat_completions") in '
        "openai-agents, openai-chat: in pydantic-ai, client.chat.completions in OpenAI's SDKs."
    ),
    "completions": (
        "Select Chat Completions in your framework: is_chat_model=True in LlamaIndex's OpenAILike, "
        "client.chat.completions in OpenAI's SDKs."
    ),
}
"""How common frameworks select Chat Completions instead of these APIs."""

_VERSIONS: Final = re.compile(r"^(/v1)*(?=/|$)")


def message(method: str, path: str) -> str:
    """Return the message for a request to a URL that the bridge does not have.

    Args:
        method: The method of the request.
        path: The decoded path of its URL.
    """
    below = _VERSIONS.sub("", re.sub("/+", "/", path).lower()).rstrip("/")
    intended = f"/v1{below}"
    if below in _RIGHT:
        right = f"Use {_RIGHT[below]}."
    elif intended.endswith("/chat/completions"):
        right = f"Use POST {_CHAT}: the base URL of an SDK ends in /v1, once."
    elif intended == _MODELS or (intended.startswith(f"{_MODELS}/") and not _is_ours(path)):
        right = f"Use GET {_MODELS}: the base URL of an SDK ends in /v1, once."
    elif (name := intended.split("/")[2] if intended != "/v1" else "") in _OTHER_APIS:
        right = f"This server offers POST {_CHAT}, not {_OTHER_APIS[name]}."
        if name in _SELECT:
            right += f" {_SELECT[name]}"
    else:
        right = _OFFERED
    return f"Invalid URL ({method} {quoted(path)[1:-1]}). {right}"


def _is_ours(path: str) -> bool:
    return path.startswith(f"{_MODELS}/")
