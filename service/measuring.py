"""`python -m service models measure`: what the template of a model adds to a prompt.

    ok    model default at upstream main: 9 tokens for the prompt, 5 for each message

    [models."default"]
    template_tokens = 41  # 9 measured + 32
    message_tokens = 9  # 5 measured + 4

The command sends up to five requests with one token of output to each upstream of each model. The
exit status is 0 if all were measured, 1 if not, and 2 if a setting is wrong.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from process.settings import SettingsError
from service.check import FAIL, OK
from service.config import Settings, load
from service.models import Catalogue, Model
from service.upstream.client import transport
from service.upstream.prompt_sizes import prompt_sizes

TEMPLATE_MARGIN: Final = 32
"""Tokens that are added to the measured ones of a prompt: the date and other text that varies."""
MESSAGE_MARGIN: Final = 4
"""Tokens that are added to the measured ones of each message."""

_WITHIN: Final = 60.0
"""Maximum seconds for an answer: a local server may load the model first."""


class Overhead(NamedTuple):
    """What a template adds."""

    prompt: int
    message: int


def overhead(sizes: Mapping[tuple[str, ...], int]) -> Overhead:
    """Return the least numbers of tokens that cover every measured prompt.

    The content of the messages counts as nothing, so that the numbers are not too small.

    Args:
        sizes: The tokens of conversations by the roles of their messages, at least one.
    """
    message = 0
    for roles, tokens in sizes.items():
        for earlier, fewer in sizes.items():
            more = len(roles) - len(earlier)
            if more > 0 and roles[: len(earlier)] == earlier:
                message = max(message, -(-(tokens - fewer) // more))
    prompt = max(tokens - message * len(roles) for roles, tokens in sizes.items())
    return Overhead(max(prompt, 0), message)


def run(environment: Mapping[str, str], names: Sequence[str], show: Callable[[str], object]) -> int:
    """Write the results, and return the exit status.

    Args:
        environment: The environment with the settings.
        names: The models; none for all that are not patterns.
        show: Writes a text with a line for each result.
    """
    try:
        settings, catalogue = load(environment)
    except SettingsError as error:
        show("".join(f"{FAIL} {line}\n" for line in error.lines))
        return 2
    lines = asyncio.run(_measure(settings, catalogue, names))
    show("".join(f"{line}\n" for line in lines))
    return int(any(line.startswith(FAIL) for line in lines))


async def _measure(settings: Settings, catalogue: Catalogue, names: Sequence[str]) -> list[str]:
    asked = names or [model.name for model in catalogue if not model.is_pattern]
    lines: list[str] = []
    tables: list[str] = []
    connections = transport(
        max_connections=settings.upstream_max_connections,
        verify=settings.upstream_ca_file or True,
    )
    async with connections:
        for name in asked:
            model = catalogue.get(name)
            if model is None:
                known = ", ".join(catalogue.models)
                lines.append(f"{FAIL} model {name}: there is no such model. The models are {known}")
                continue
            found: list[Overhead] = []
            for way in model.ways:
                place = f"model {name} at upstream {way.upstream.name}"
                if not way.upstream.base_url:
                    lines.append(f"{FAIL} {place}: the built-in simulator has no template")
                    continue
                sizes = await prompt_sizes(connections, way, within=_WITHIN)
                if sizes.error:
                    lines.append(f"{FAIL} {place}: {sizes.error}")
                    continue
                found.append(overhead(sizes.tokens))
                lines.append(
                    f"{OK} {place}: {found[-1].prompt} tokens for the prompt, "
                    f"{found[-1].message} for each message"
                )
            if len(found) == len(model.ways):
                tables += _table(model, found)
    return [*lines, *tables]


def _table(model: Model, found: Sequence[Overhead]) -> list[str]:
    """Return the members of a model's entry that cover each of its upstreams."""
    prompt = max(each.prompt for each in found)
    message = max(each.message for each in found)
    return [
        "",
        f"[models.{json.dumps(model.entry, ensure_ascii=False)}]",
        f"template_tokens = {prompt + TEMPLATE_MARGIN}  # {prompt} measured + {TEMPLATE_MARGIN}",
        f"message_tokens = {message + MESSAGE_MARGIN}  # {message} measured + {MESSAGE_MARGIN}",
    ]
