"""POST /v1/chat/completions/quote: what a completion would hold. OpenAI's API has no such route.

    {"object": "chat.completion.quote", "model": "default",
     "hold": "0.0015", "hold_nano_credits": 1500000, "prompt_tokens": 549, "completion_tokens": 100,
     "available": "24.5", "available_nano_credits": 24500000000, "largest_max_tokens": 8192,
     "rejection": null}

The body is that of POST /v1/chat/completions. A rejection has the `code` and the message of the
error that the completion would return. Amounts are as in `credits`; `retry_at` is in seconds since
the Unix epoch, rounded up.
"""

from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from chatcompletion.credit_amounts import members
from chatcompletion.reasons import RULES
from chatcompletion.v1.chat_completion_service_pb2 import (
    LimitScope,
    QuoteChatCompletionRequest,
    QuoteChatCompletionResponse,
    QuotedRejection,
)
from chatcompletion.v1.error_pb2 import ErrorReason
from restbridge.channel import Service
from restbridge.chat_completions import decoded
from restbridge.forward import forward
from restbridge.http.limits import Bodies, check_json

QUOTE: Final = "chatcompletion.v1.ChatCompletionService/QuoteChatCompletion"


class QuoteRoute:
    """POST /v1/chat/completions/quote, as an ASGI application.

    Args:
        service: The service.
        bodies: Reads the request bodies.
    """

    def __init__(self, service: Service, bodies: Bodies) -> None:
        self._service = service
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        check_json(scope)
        with self._bodies.holding() as body:
            params = await decoded(await body.read(scope, receive))
            await forward(
                scope,
                receive,
                send,
                rpc=QUOTE,
                method=self._service.stubs().completions.QuoteChatCompletion,
                request=QuoteChatCompletionRequest(params=params),
                encode=lambda response: msgspec.json.encode(document(response)),
                deadline=self._service.timeout,
                besides=[(b"cache-control", b"no-store")],  # it changes with every request
            )


def document(response: QuoteChatCompletionResponse) -> dict[str, Any]:
    """Return the JSON document of a response."""
    worth = response.hold_worth
    shown = {"currency": worth.currency_code, "amount": worth.amount}
    return {
        "object": "chat.completion.quote",
        "model": response.model,
        **members("hold", response.hold_nano_credits),
        **({"hold_worth": shown} if response.HasField("hold_worth") else {}),
        "prompt_tokens": response.prompt_tokens,
        "completion_tokens": response.completion_tokens,
        **members("available", response.available_nano_credits),
        "largest_max_tokens": (
            response.largest_max_tokens if response.HasField("largest_max_tokens") else None
        ),
        "rejection": _rejection(response.rejection) if response.HasField("rejection") else None,
    }


def _rejection(rejection: QuotedRejection) -> dict[str, Any]:
    reason = ErrorReason.Name(rejection.reason).removeprefix("ERROR_REASON_")
    rule, until = RULES.get(reason), rejection.retry_time
    return {
        "code": reason.lower() if rule is None else rule.code,
        "message": rejection.message,
        "scope": LimitScope.Name(rejection.scope).removeprefix("LIMIT_SCOPE_").lower(),
        "limit": rejection.limit,
        "retry_at": (
            until.seconds + bool(until.nanos) if rejection.HasField("retry_time") else None
        ),
    }
