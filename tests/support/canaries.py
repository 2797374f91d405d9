"""Secrets that appear nowhere, over the whole suite.

    keys        of callers, operators and upstreams, and every key that a store creates
    password    of the database, in its address
    prompts     the texts of messages of calls over gRPC and REST, of at least 12 characters
    completions the texts that the simulator writes

    logs        of our code in this process, and of processes at the level debug, with their output
    metrics     of every service and bridge in this process, and of processes as scraped over HTTP
    exports     spans and metrics by OTLP, with their metadata, as the receiver gets them
    errors      of calls over gRPC and REST: their texts, details and headers, except for prompts,
                which the error about a value can quote

The plugin `shown_secrets` fails a test in which one is found.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import httpx

DATABASE_PASSWORD: Final = "canary-database-password"
_CREATED: Final = re.compile(r"\bsk-live-[\w-]{24,}")
"""The keys that a store creates."""
_COMPLETIONS: Final = ("; no model was called",)
"""A part of each text of the simulator."""
_SHORTEST_PROMPT: Final = 12

_secrets: Final[set[str]] = {DATABASE_PASSWORD}
_prompts: Final[set[str]] = set()
_found: Final[list[str]] = []


def secret(value: str) -> str:
    """Register a secret for the rest of the run, and return it."""
    _secrets.add(value)
    return value


def prompts(texts: Iterable[object]) -> None:
    """Register texts of callers for the rest of the test."""
    _prompts.update(
        text for text in texts if isinstance(text, str) and len(text) >= _SHORTEST_PROMPT
    )


def registered() -> set[str]:
    """Return the secrets and prompts that are searched."""
    return _secrets | _prompts


def search(where: str, text: str, *, quotes_prompts: bool = False) -> None:
    """Search a text for secrets. The test fails when it ends.

    Args:
        where: Where the text is from, for the failure.
        text: The text.
        quotes_prompts: Whether texts of callers are allowed in it.
    """
    hits = [value for value in _secrets if value in text]
    hits += _CREATED.findall(text)
    if not quotes_prompts:
        hits += [value for value in (*_prompts, *_COMPLETIONS) if value in text]
    _found.extend(f"{where} has {hit!r}" for hit in hits)


def begin() -> None:
    """Forget what earlier tests have shown, and the texts of their callers."""
    _found.clear()
    _prompts.clear()


def found() -> Sequence[str]:
    """Return the secrets that were shown since `begin`, and where."""
    return sorted(set(_found))


async def register_prompts(request: httpx.Request) -> None:
    """Register the texts of a request for the rest of the test: a hook of httpx."""
    try:
        document = json.loads(request.content)
    except (ValueError, RecursionError, httpx.RequestNotRead):
        return  # it is no JSON, or it is a stream
    if isinstance(document, dict):
        prompts(_texts(document.get("messages")))


def _texts(messages: Any) -> Iterator[object]:
    """Yield the contents of messages, and the texts of their parts."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        yield content
        for part in content if isinstance(content, list) else ():
            yield part.get("text") if isinstance(part, dict) else None


async def search_refusal(response: httpx.Response) -> None:
    """Search the headers and, if it is an error, the body of a response: a hook of httpx."""
    text = str(dict(response.headers))
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        await response.aread()
        text += response.text
    search("a response", text, quotes_prompts=True)


HOOKS: Final[dict[str, list[Any]]] = {"request": [register_prompts], "response": [search_refusal]}
"""The hooks of httpx for clients of the bridge."""


def search_message(where: str, data: bytes) -> None:
    """Search a serialized message of protobuf, in which texts are as they are."""
    search(where, data.decode("utf-8", errors="replace"))
