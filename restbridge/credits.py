"""GET /v1/credits: the caller's own account, limits and usage. OpenAI's API has no such route.

    {"object": "credits", "account": "acme", "key": "ci",
     "balance": "24.5", "balance_nano_credits": 24500000000, "held": …, "available": …,
     "payer": null, "payer_available": null, …
     "limits": {"models": null, "requests_per_minute": 60, …, "expires_at": null},
     "budgets": [{"account": "acme", "key": null, "window": "month", "limit": "10", …}],
     "usage": [{"start": 1767225600, "model": "default", "requests": 3, …, "charged": "0.25", …}]}

Each amount has two members: credits as a decimal string, and nano-credits as an integer. If the
service shows the worth of credit, `balance_worth` and `charged_worth` have it. No float is
involved. Times are seconds since the Unix epoch, as in OpenAI's objects. A null limit means "no
limit".
"""

from typing import Any

import msgspec
from google.protobuf.message import Message
from starlette.types import Receive, Scope, Send

from chatcompletion.credit_amounts import members
from chatcompletion.v1 import account_pb2
from chatcompletion.v1.credit_service_pb2 import GetCreditsRequest, GetCreditsResponse
from restbridge.channel import Service
from restbridge.forward import forward


class Credits:
    """GET /v1/credits, as an ASGI application.

    Args:
        service: The service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        await forward(
            scope,
            receive,
            send,
            rpc="chatcompletion.v1.CreditService/GetCredits",
            method=self._service.stubs().credits.GetCredits,
            request=GetCreditsRequest(),
            encode=lambda response: msgspec.json.encode(document(response)),
            deadline=self._service.timeout,
            besides=[(b"cache-control", b"no-store")],  # it changes with every request
        )


def document(response: GetCreditsResponse) -> dict[str, Any]:
    """Return the JSON document of a response."""
    account, key = response.account, response.api_key
    return {
        "object": "credits",
        "account": account.name,
        "key": key.name,
        **members("balance", account.balance_nano_credits),
        **members("held", account.held_nano_credits),
        **members("available", account.available_nano_credits),
        **_worth(account, "balance_worth"),
        "payer": account.payer or None,
        **_payer_available(account),
        "limits": _limits(key.limits),
        "budgets": [
            {"account": one.account, "key": one.key_name or None, **_budget(one.budget)}
            for one in response.budgets
        ],
        "usage": [
            {
                "start": total.start_time.seconds,
                "model": total.model,
                "requests": total.requests,
                "prompt_tokens": total.prompt_tokens,
                "completion_tokens": total.completion_tokens,
                **members("charged", total.charged_nano_credits),
                **_worth(total, "charged_worth"),
            }
            for total in response.usage
        ],
    }


def _worth(message: Message, name: str) -> dict[str, Any]:
    """Return the member for the worth of an amount, if the service shows it."""
    if not message.HasField(name):
        return {}
    worth = getattr(message, name)
    return {name: {"currency": worth.currency_code, "amount": worth.amount}}


def _payer_available(account: account_pb2.Account) -> dict[str, Any]:
    found = members("payer_available", account.payer_available_nano_credits)
    return found if account.payer else dict.fromkeys(found)


def _budget(budget: account_pb2.Budget) -> dict[str, Any]:
    window = account_pb2.BudgetWindow.Name(budget.window).rpartition("_")[2].lower()
    return {
        "window": window,
        "time_zone": budget.time_zone,
        **members("limit", budget.limit_nano_credits),
        **members("spent", budget.spent_nano_credits),
        **members("held", budget.held_nano_credits),
        **members("remaining", budget.remaining_nano_credits),
        "starts_at": budget.start_time.seconds,
        "resets_at": budget.reset_time.seconds if budget.HasField("reset_time") else None,
    }


def _limits(limits: account_pb2.KeyLimits) -> dict[str, Any]:
    return {
        "models": list(limits.models.names) if limits.HasField("models") else None,
        "requests_per_minute": _optional(limits, "requests_per_minute"),
        "tokens_per_minute": _optional(limits, "tokens_per_minute"),
        "concurrency": _optional(limits, "concurrency"),
        "expires_at": limits.expire_time.seconds if limits.HasField("expire_time") else None,
    }


def _optional(message: Message, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None
