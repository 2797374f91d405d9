"""`python -m service check`: verify the settings, and ask each upstream for its models.

    ok    settings: …
    ok    upstream default at http://127.0.0.1:11434/v1: lists 3 models
    FAIL  model default -> llama3.1:8b: the upstream does not list it. Did you mean llama3.2:3b? …

The exit status is 0 if no line begins with FAIL, 1 if an upstream or a model fails, and 2 if a
setting is wrong. The command changes nothing and calls no model.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

from process.settings import SettingsError
from process.variables import NAMES
from service.config import Settings, load
from service.models import Catalogue, Model, Upstream
from service.start_lines import start_lines
from service.upstream.client import transport
from service.upstream.model_listing import Listing, list_models

_WITHIN: Final = 10.0
"""Maximum seconds for the answer of an upstream."""

_MOST_SHOWN: Final = 10

OK: Final = "ok  "
NOTE: Final = "note"
FAIL: Final = "FAIL"


def run(environment: Mapping[str, str], show: Callable[[str], object]) -> int:
    """Write the results, and return the exit status.

    Args:
        environment: The environment with the settings.
        show: Writes a text with a line for each result.
    """
    status, lines = _results(environment)
    show("".join(f"{line}\n" for line in lines))
    return status


def _results(environment: Mapping[str, str]) -> tuple[int, list[str]]:
    try:
        settings, catalogue = load(environment)
    except SettingsError as error:
        return 2, [f"{FAIL} {line}" for line in error.lines]
    lines = asyncio.run(_check(settings, catalogue, environment))
    return int(any(line.startswith(FAIL) for line in lines)), lines


async def _check(
    settings: Settings, catalogue: Catalogue, environment: Mapping[str, str]
) -> list[str]:
    named = [name for name in NAMES if environment.get(name)]
    lines = [f"{OK} settings: {', '.join(named) or 'all defaults'}"]
    if settings.models_file:
        lines.append(f"{OK} models file {settings.models_file}")
    lines += [f"{OK} model {line}" for line in start_lines(catalogue)]
    connections = transport(
        max_connections=settings.upstream_max_connections,
        verify=settings.upstream_ca_file or True,
    )
    asked = _asked(catalogue)
    async with connections:
        listings = await asyncio.gather(
            *(list_models(connections, upstream, within=_WITHIN) for upstream, _ in asked)
        )
    for (upstream, models), listing in zip(asked, listings, strict=True):
        lines.append(upstream_line(upstream, models, listing))
        if not listing.error:
            lines += [
                line for model in models if (line := model_line(model, listing.names)) is not None
            ]
    return list(dict.fromkeys(lines))


def _asked(catalogue: Catalogue) -> list[tuple[Upstream, list[Model]]]:
    """Return each upstream with its models, once for each key and set of headers and query.

    The dialect of each returned upstream is that of its models.
    """
    asked: dict[object, tuple[Upstream, list[Model]]] = {}
    for model in (way for entry in catalogue for way in entry.ways):
        dialect = model.dialect
        place = model.upstream.name, dialect.headers, dialect.query
        for key in model.upstream.keys:
            upstream = replace(model.upstream, dialect=dialect, api_key=key)
            asked.setdefault((*place, key), (upstream, []))[1].append(model)
    return [each for each in asked.values() if each[0].base_url]


def upstream_line(upstream: Upstream, models: Collection[Model], listing: Listing) -> str:
    """Return the result for an upstream.

    Args:
        upstream: The upstream, with the dialect in which it was asked.
        models: The models with this dialect.
        listing: Its answer.
    """
    place = f"upstream {upstream.name} at {upstream.base_url}"
    keys = next((model.upstream.keys for model in models), ())
    if len(keys) > 1:
        place += f", key {keys.index(upstream.api_key) + 1} of {len(keys)}"
    own = {(model.upstream.dialect.headers, model.upstream.dialect.query) for model in models}
    if own - {(upstream.dialect.headers, upstream.dialect.query)}:
        place += f", for {', '.join(model.name for model in models)}"
    if not listing.error:
        return f"{OK} {place}: lists {len(listing.names)} models"
    if listing.status in {401, 403}:
        has_key = upstream.api_key or upstream.dialect.secrets
        found = "its key was refused" if has_key else "it wants a key, and none is set"
        return (
            f"{FAIL} {place}: {listing.error}: {found}. Set CHAT_UPSTREAM_API_KEY, or the variable "
            "that api_key_variable, api_key_variables or header_variables names, to a valid key"
        )
    if listing.status in {404, 405}:
        return (
            f"{NOTE} {place}: {listing.error}: the names of models cannot be verified. If the base "
            "URL of this server ends in another path, such as /v1, add it"
        )
    hint = "" if listing.status else ". Check that the server runs and that the URL is right"
    return f"{FAIL} {place}: {listing.error}{hint}"


def model_line(model: Model, names: Collection[str]) -> str | None:
    """Return the result for a model if its upstream does not list it."""
    # Ollama lists NAME as NAME:latest, and accepts both.
    if model.is_pattern or {model.upstream_model, f"{model.upstream_model}:latest"} & {*names}:
        return None
    near = get_close_matches(model.upstream_model, names, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    shown = ", ".join(sorted(names)[:_MOST_SHOWN]) or "no model"
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return (
        f"{FAIL} model {model.name} -> {model.upstream_model}: the upstream does not list it. "
        f"{hint}It lists {shown}{more}. Set CHAT_UPSTREAM_MODEL, or upstream_model in the models "
        "file, to one of these names"
    )
