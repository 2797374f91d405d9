"""The schema of GET /v1/credits, which `restbridge.credits` writes.

The document has the members of the messages in account.proto under its own names. This module
lists the names and takes the descriptions from the comments.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

_INTEGER: Final[Schema] = {"type": "integer", "format": "int64"}
_STRING: Final[Schema] = {"type": "string"}
_TIME: Final = ", in seconds since the Unix epoch"
_OUTPUT: Final = "Output only. "


def schemas(comments: Mapping[str, str]) -> dict[str, Schema]:
    """Return the schema of the document and of its parts, by name.

    Args:
        comments: The comments of the messages and fields, by full name.
    """

    def about(field: str) -> str:
        return comments[f"chatcompletion.v1.{field}"].removeprefix(_OUTPUT)

    def limit(name: str, field: str | None = None) -> Schema:
        return {"description": about(f"KeyLimits.{field or name}"), "type": ["integer", "null"]}

    def optional(of: dict[str, Schema]) -> dict[str, Schema]:
        return {name: {**schema, "type": [schema["type"], "null"]} for name, schema in of.items()}

    return {
        "Credits": closed(
            "The credit of the caller's account, the limits of the API key, and its usage.",
            {
                "object": {"description": 'Always "credits".', "const": "credits"},
                "account": {"description": about("Account.name"), **_STRING},
                "key": {"description": about("ApiKey.name"), **_STRING},
                **amount("balance", about("Account.balance_nano_credits")),
                **amount("held", about("Account.held_nano_credits")),
                **amount("available", about("Account.available_nano_credits")),
                **worth("balance_worth", about("Account.balance_worth"), about),
                "payer": {"description": about("Account.payer"), "type": ["string", "null"]},
                **optional(
                    amount("payer_available", about("Account.payer_available_nano_credits"))
                ),
                "limits": {"$ref": "#/components/schemas/KeyLimits"},
                "budgets": {
                    "description": about("GetCreditsResponse.budgets"),
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/Budget"},
                },
                "usage": {
                    "description": about("GetCreditsResponse.usage"),
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/UsageTotal"},
                },
            },
        ),
        "KeyLimits": closed(
            about("KeyLimits"),
            {
                "models": {
                    "description": about("KeyLimits.models"),
                    "type": ["array", "null"],
                    "items": _STRING,
                },
                "requests_per_minute": limit("requests_per_minute"),
                "tokens_per_minute": limit("tokens_per_minute"),
                "concurrency": limit("concurrency"),
                "expires_at": {
                    "description": about("KeyLimits.expire_time").replace(
                        "expires. If", f"expires{_TIME}. If"
                    ),
                    "type": ["integer", "null"],
                },
            },
        ),
        "Budget": closed(
            about("Budget"),
            {
                "account": {"description": about("BindingBudget.account"), **_STRING},
                "key": {
                    "description": about("BindingBudget.key_name").replace("Empty", "Null"),
                    "type": ["string", "null"],
                },
                "window": {
                    "description": about("BudgetWindow"),
                    "type": "string",
                    "enum": ["day", "week", "month", "total"],
                },
                "time_zone": {
                    "description": about("Budget.time_zone").partition(" In requests")[0],
                    **_STRING,
                },
                **amount("limit", about("Budget.limit_nano_credits")),
                **amount("spent", about("Budget.spent_nano_credits")),
                **amount("held", about("Budget.held_nano_credits")),
                **amount("remaining", about("Budget.remaining_nano_credits")),
                "starts_at": {
                    "description": about("Budget.start_time").removesuffix(".") + _TIME + ".",
                    **_INTEGER,
                },
                "resets_at": {
                    "description": about("Budget.reset_time")
                    .replace("spent. Absent", f"spent{_TIME}. Null")
                    .replace("BUDGET_WINDOW_TOTAL", "`total`"),
                    "type": ["integer", "null"],
                },
            },
        ),
        "UsageTotal": closed(
            about("UsageTotal"),
            {
                "start": {
                    "description": about("UsageTotal.start_time").removesuffix(".") + _TIME + ".",
                    **_INTEGER,
                },
                "model": {"description": about("UsageTotal.model"), **_STRING},
                "requests": {"description": about("UsageTotal.requests"), **_INTEGER},
                "prompt_tokens": {"description": about("UsageTotal.prompt_tokens"), **_INTEGER},
                "completion_tokens": {
                    "description": about("UsageTotal.completion_tokens"),
                    **_INTEGER,
                },
                **amount("charged", about("UsageTotal.charged_nano_credits")),
                **worth("charged_worth", about("UsageTotal.charged_worth"), about),
            },
        ),
    }


def amount(name: str, text: str) -> dict[str, Schema]:
    """Return the two members of an amount.

    Args:
        name: The name of the member in credits.
        text: The description of the amount in nano-credits.
    """
    return {
        name: {
            "description": text.replace("nano-credits", "credits"),
            "type": "string",
            "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?$",
        },
        f"{name}_nano_credits": {"description": text, **_INTEGER},
    }


def worth(name: str, text: str, about: Callable[[str], str]) -> dict[str, Schema]:
    """Return the member of a worth.

    Args:
        name: The name of the member.
        text: Its description.
        about: Returns the comment of a field.
    """
    return {
        name: {
            "description": text,
            "type": "object",
            "required": ["currency", "amount"],
            "properties": {
                "currency": {
                    "description": about("Worth.currency_code"),
                    "type": "string",
                    "pattern": "^[A-Z]{3}$",
                },
                "amount": {
                    "description": about("Worth.amount"),
                    "type": "string",
                    "pattern": r"^-?[0-9]+(\.[0-9]{1,18})?$",
                },
            },
            "additionalProperties": False,
        }
    }


def closed(description: str, properties: dict[str, Schema]) -> Schema:
    """Return the schema of an object with these members. The worth of an amount is optional."""
    return {
        "type": "object",
        "description": description,
        "required": [name for name in properties if not name.endswith("_worth")],
        "properties": properties,
        "additionalProperties": False,
    }
