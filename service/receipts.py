"""Receipts: the charge of a call, as its response has it. Pure.

    ending, charge in the store -> charge_of -> Charge -> add -> usage.cost, usage.cost_details
    the upstream's usage.cost -> make_room -> usage.cost_details.upstream_inference_cost

The members have the names of OpenRouter. `cost` is credits as a number with up to nine decimals,
which is exact; a JSON parser with doubles keeps 15 digits of it. Only a service writes `cost` and
`cost_details`: those of the upstream are removed from every usage of a call with a receipt.
"""

import re
from collections.abc import MutableMapping
from typing import Final

from chatcompletion import openai_json
from chatcompletion.credit_amounts import to_text
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, Usage
from chatcompletion.v1.chat_completion_service_pb2 import Charge
from service.credit_worth import CreditWorth
from service.ledger.journal import Ending
from service.ledger.rows import Settle
from service.metering.progress import Used

_COST: Final = "cost"
_DETAILS: Final = "cost_details"
_OF_UPSTREAM: Final = "upstream_inference_cost"
_NUMBER: Final = re.compile(r"-?[0-9][0-9.eE+-]{0,63}")
"""The JSON texts of numbers, and of nothing else that a member can have."""


def charge_of(ending: Ending, charged: int, worth: CreditWorth | None = None) -> Charge:
    """Return the receipt of a call.

    Args:
        ending: The ending of its hold.
        charged: The charge that the store or the journal has, in nano-credits: less than that of
            the ending if it is above the hold.
        worth: The worth of a credit, if it is shown.
    """
    shown = None if worth is None else worth.of(charged)
    if not isinstance(ending, Settle):
        return Charge(hold_id=ending.hold_id, worth=shown)
    prompt = min(ending.prompt_charge, charged)
    return Charge(
        hold_id=ending.hold_id,
        amount_nano_credits=charged,
        prompt_nano_credits=prompt,
        completion_nano_credits=charged - prompt,
        estimated=ending.estimated,
        partial=ending.partial,
        worth=shown,
    )


def make_room(extra: MutableMapping[str, str]) -> None:
    """Remove the costs of the upstream that have the names of a receipt, and keep the amount.

    Args:
        extra: The members of a usage beyond the contract, as JSON texts.
    """
    own = extra.pop(_COST, None)
    extra.pop(_DETAILS, None)
    if own is not None and _NUMBER.fullmatch(own):
        extra[_DETAILS] = f'{{"{_OF_UPSTREAM}":{own}}}'


def add(usage: Usage, charge: Charge) -> None:
    """Add a receipt to the usage of a call, whose upstream has made room."""
    extra = usage.extra_json
    told = extra.get(_DETAILS, f'{{"{_OF_UPSTREAM}":null}}')
    prompt, completion = charge.prompt_nano_credits, charge.completion_nano_credits
    extra[_COST] = to_text(charge.amount_nano_credits)
    extra[_DETAILS] = (
        f'{told[:-1]},"upstream_inference_prompt_cost":{to_text(prompt)},'
        f'"upstream_inference_completions_cost":{to_text(completion)},'
        f'"nano_credits":{charge.amount_nano_credits},"hold_id":"{charge.hold_id}",'
        f'"estimated":{_boolean(charge.estimated)},"partial":{_boolean(charge.partial)}'
        f"{_worth(charge)}}}"
    )


def add_to_completion(completion: ChatCompletion, charge: Charge, used: Used) -> None:
    """Add a receipt to a unary completion.

    If the upstream sent no usage, or null, the completion gets the usage that is charged, with the
    member `estimated`, as streams do. A usage that is not an object stays as it is.
    """
    if not completion.HasField("usage"):
        if "usage" in completion.extra_json:
            return
        openai_json.clear_member(completion, "usage")
        usage = completion.usage
        usage.prompt_tokens, usage.completion_tokens = used.prompt, used.completion
        usage.total_tokens = used.prompt + used.completion
        usage.extra_json["estimated"] = "true"
    add(completion.usage, charge)


def _worth(charge: Charge) -> str:
    if not charge.HasField("worth"):
        return ""
    # A code and decimal text, which need no escapes.
    worth = charge.worth
    return f',"worth":{{"currency":"{worth.currency_code}","amount":"{worth.amount}"}}'


def _boolean(value: bool) -> str:
    return "true" if value else "false"
