"""Prints the line of each scenario for a library in Python.

report(whole=..., streamed=..., tools=..., structured=..., refused=..., history=...)
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

BASE_URL = os.environ["BASE_URL"]
API_KEY = os.environ["API_KEY"]
HELLO = "Hello"
AGAIN = "And once more?"
ASK = "Which weather?"
"""The simulator calls a tool whose name is in the user's message."""
RAIN = "Rain."
BROKEN = ("broken-error", "broken-cut", "broken-end", "broken-first")

Outcome = dict[str, Any]


def report(
    *,
    whole: Callable[[], Outcome],
    streamed: Callable[[str], Iterator[str]],
    tools: Callable[[], Outcome],
    structured: Callable[[], Outcome],
    refused: Callable[[], object],
    history: Callable[[], Outcome],
) -> None:
    """Run every scenario. Each function returns the members of its line, or raises.

    Args:
        whole: Returns the text and the tokens.
        streamed: Yields the pieces of a stream of the model that it gets.
        tools: Returns the call and the text.
        structured: Returns the object.
        refused: Sends a request with `top_p` 3.
        history: Returns the second text.
    """
    _line("whole", whole)
    for name in ("streamed", *BROKEN):
        pieces: list[str] = []
        _line(name, lambda name=name, pieces=pieces: _collected(streamed(name), pieces))
    _line("tools", tools)
    _line("structured", structured)
    _line("refused", lambda: {"answer": str(refused())})
    _line("history", history)


def _collected(stream: Iterator[str], pieces: list[str]) -> Outcome:
    outcome: Outcome = {}
    try:
        pieces.extend(piece for piece in stream if piece)
    except Exception as error:
        outcome = _described(error)
    return {**outcome, "text": "".join(pieces), "pieces": len(pieces)}


def _line(scenario: str, function: Callable[[], Outcome]) -> None:
    try:
        outcome = function()
    except Exception as error:
        outcome = _described(error)
    print(json.dumps({"scenario": scenario, **outcome}), flush=True)


def _described(error: Exception) -> Outcome:
    return {"error": {"class": type(error).__name__, "message": str(error)[:2000]}}
