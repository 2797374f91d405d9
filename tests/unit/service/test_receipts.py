import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatcompletion.v1.chat_completion_pb2 import ChatCompletion, Usage
from chatcompletion.v1.chat_completion_service_pb2 import Charge
from service import receipts
from service.credit_worth import CreditWorth
from service.ledger.rows import Release, Settle
from service.metering.progress import Used

NANO = 10**9
USED = Used(7, 5, estimated=True)
SETTLE = Settle(
    hold_id="h",
    account_id=1,
    key_id=2,
    charge=100,
    prompt_charge=30,
    prompt_tokens=3,
    completion_tokens=7,
    estimated=True,
)
CHARGE = Charge(
    hold_id="h", amount_nano_credits=100, prompt_nano_credits=30, completion_nano_credits=70
)


@pytest.mark.parametrize(("charged", "prompt"), [(100, 30), (40, 30), (20, 20), (0, 0)])
def test_a_receipt_has_the_charge_of_the_ledger(charged: int, prompt: int) -> None:
    assert receipts.charge_of(SETTLE, charged) == Charge(
        hold_id="h",
        amount_nano_credits=charged,
        prompt_nano_credits=prompt,
        completion_nano_credits=charged - prompt,
        estimated=True,
    )


def test_a_receipt_shows_what_is_charged_in_a_currency() -> None:
    worth = CreditWorth(10_000_000, "EUR")
    charge = receipts.charge_of(SETTLE, 40, worth)
    usage = Usage()
    receipts.add(usage, charge)

    assert (charge.worth.amount, charge.worth.currency_code) == ("0.0000000004", "EUR")
    shown = read(usage)["cost_details"]
    assert shown["worth"] == {"currency": "EUR", "amount": "0.0000000004"}
    assert shown["partial"] is False
    free = receipts.charge_of(Release(hold_id="h", account_id=1, key_id=2), 0, worth)
    assert free.worth.amount == "0"


def test_a_released_hold_costs_nothing() -> None:
    release = Release(hold_id="h", account_id=1, key_id=2)

    assert receipts.charge_of(release, 0) == Charge(hold_id="h")


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({}, None),
        ({"cost": "0.5"}, "0.5"),
        ({"cost": "1e-7", "cost_details": '{"upstream_inference_cost":3}'}, "1e-7"),
        ({"cost_details": "{}"}, None),
        ({"cost": "null"}, None),
        ({"cost": '"0.5"'}, None),
        ({"cost": '{"a":1}'}, None),
    ],
)
def test_the_upstreams_cost_makes_room(own: dict[str, str], kept: str | None) -> None:
    usage = Usage(extra_json={"queue_time": "2", **own})
    receipts.make_room(usage.extra_json)
    assert "cost" not in usage.extra_json

    receipts.add(usage, CHARGE)

    members = read(usage)
    assert members["cost"] == Decimal("0.0000001")
    assert members["queue_time"] == 2
    found = members["cost_details"]["upstream_inference_cost"]
    assert found == (None if kept is None else Decimal(kept))


def read(usage: Usage) -> dict[str, Any]:
    def strict(text: str) -> Any:
        return json.loads(text, parse_float=Decimal)

    return {name: strict(text) for name, text in usage.extra_json.items()}


@given(st.integers(0, 10**18), st.integers(0, 10**18))
def test_amounts_are_exact_and_add_up(prompt: int, completion: int) -> None:
    usage = Usage()
    receipts.add(
        usage,
        Charge(
            amount_nano_credits=prompt + completion,
            prompt_nano_credits=prompt,
            completion_nano_credits=completion,
        ),
    )

    members = read(usage)
    details = members["cost_details"]
    assert Decimal(members["cost"]) * NANO == prompt + completion == details["nano_credits"]
    shares = (
        details["upstream_inference_prompt_cost"],
        details["upstream_inference_completions_cost"],
    )
    assert [Decimal(share) * NANO for share in shares] == [prompt, completion]
    if prompt + completion < 10**15:
        # A parser with doubles finds the same nano-credits.
        assert round(float(usage.extra_json["cost"]) * NANO) == prompt + completion


def test_a_usage_of_another_type_stays_as_it_is() -> None:
    completion = ChatCompletion(extra_json={"usage": '"much"'})

    receipts.add_to_completion(completion, CHARGE, USED)

    assert completion == ChatCompletion(extra_json={"usage": '"much"'})


def test_a_reported_usage_keeps_its_counts() -> None:
    completion = ChatCompletion(usage=Usage(prompt_tokens=1, completion_tokens=2))

    receipts.add_to_completion(completion, CHARGE, USED)

    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (1, 2)
    assert sorted(usage.extra_json) == ["cost", "cost_details"]
