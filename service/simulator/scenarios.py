"""Scenarios, which the name of the model selects.

    any-name                               a plain completion
    sim:ttft=0.2,itd=0.01,tokens=500       a plain completion with its own timing and length
    sim-fault:<fault>                      a fault from `faults`
    sim-fault:<fault>=<value>,times=2      the fault with a value, for the first two requests

Options: `ttft`, the time to the first token in seconds; `itd`, the delay between two tokens in
seconds (both 0 to 3,600); `tokens`, the length of the text (0 to 100,000). For faults also `times`:
the number of requests with exactly this model name that fail before the others succeed (1 to
1,000,000).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from service.simulator.config import SimulatorConfig
from service.simulator.error_objects import HttpError

TIMED = "sim:"
FAULTY = "sim-fault:"


class Scenario(msgspec.Struct, kw_only=True, frozen=True):
    """The response to one request."""

    time_to_first_token: float
    inter_token_delay: float
    tokens: int
    tokens_given: bool = False
    """Whether the name sets the length."""
    fault: str | None = None
    value: str | None = None
    times: int | None = None


_OPTIONS: dict[str, tuple[str, Callable[[str], float | int], float, float]] = {
    # option: (field, type, lowest, highest)
    "ttft": ("time_to_first_token", float, 0, 3600),
    "itd": ("inter_token_delay", float, 0, 3600),
    "tokens": ("tokens", int, 0, 100_000),
    "times": ("times", int, 1, 1_000_000),
}


def plain(config: SimulatorConfig) -> Scenario:
    """Return the scenario of a model name without options."""
    return Scenario(
        time_to_first_token=config.time_to_first_token,
        inter_token_delay=config.inter_token_delay,
        tokens=config.completion_tokens,
    )


def parse(model: str, default: Scenario) -> Scenario:
    """Parse the name of a model. Options that it does not set are those of `default`.

    Raises:
        HttpError: The name has the prefix of a scenario and is malformed (400).
    """
    if not model.startswith((TIMED, FAULTY)):
        return default
    fields: dict[str, Any] = {}
    if model.startswith(FAULTY):
        head, *options = model.removeprefix(FAULTY).split(",")
        name, found, value = head.partition("=")
        fields["fault"] = name
        fields["value"] = value if found else None
        allowed = {"ttft", "itd", "tokens", "times"}
    else:
        options = model.removeprefix(TIMED).split(",")
        allowed = {"ttft", "itd", "tokens"}
    for option in options:
        name, _, text = option.partition("=")
        if name not in allowed:
            raise _unreadable(f"{name!r} is not one of {', '.join(sorted(allowed))}")
        field, read, lowest, highest = _OPTIONS[name]
        try:
            number = read(text)
        except ValueError:
            raise _unreadable(f"{name} is not a number") from None
        if not lowest <= number <= highest:
            raise _unreadable(f"{name} has to be {lowest} to {highest}")
        fields[field] = number
        if name == "tokens":
            fields["tokens_given"] = True
    return msgspec.structs.replace(default, **fields)


def _unreadable(why: str) -> HttpError:
    return HttpError(
        status=400,
        message=f"The simulator cannot read this model name: {why}.",
        param="model",
        code="invalid_model_name",
    )
