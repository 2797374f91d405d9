"""What it costs to transcode a document: `python -m tests.load.bench_openai_json`.

Prints microseconds per call on one core, the best of several rounds, and the size of the document.
A usual chunk has a target of 8 µs in each direction.
"""

import json
import sys
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from chatcompletion import openai_json

ROUNDS = 15
SECONDS_PER_ROUND = 0.05

CHUNK: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion.chunk",
    "created": 1741569952,
    "model": "google/gemma-3-4b-it",
    "system_fingerprint": "fp_44709d6fcb",
    "choices": [
        {
            "index": 0,
            "delta": {"content": " world", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ],
    "usage": None,
}

VENDOR_CHUNK = CHUNK | {
    "choices": [CHUNK["choices"][0] | {"stop_reason": None, "token_ids": [1, 2]}],
    "kv_transfer_params": None,
}

REQUEST: dict[str, Any] = {
    "model": "default",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Write a haiku about recursion in programming."},
    ],
    "temperature": 0.7,
    "max_tokens": 256,
    "stream": True,
    "stream_options": {"include_usage": True},
}

TOOL_REQUEST = REQUEST | {
    "messages": REQUEST["messages"] * 10,
    "temperature": None,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": f"tool_{index}",
                "parameters": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string", "description": "What the model reads."}
                        for name in ("city", "unit", "day")
                    },
                    "required": ["city"],
                },
            },
        }
        for index in range(5)
    ],
}

COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "google/gemma-3-4b-it",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello! " * 40, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
}


def microseconds(call: Callable[[], object]) -> float:
    """The least time that a call takes."""
    timer = timeit.Timer(call)
    calls = max(1, int(SECONDS_PER_ROUND / max(timer.timeit(100) / 100, 1e-9)))
    return min(timer.repeat(ROUNDS, calls)) / calls * 1e6


CODECS: tuple[tuple[str, Any, Any, dict[str, Any]], ...] = (
    ("chunk", openai_json.decode_chunk, openai_json.encode_chunk, CHUNK),
    ("chunk of a vendor", openai_json.decode_chunk, openai_json.encode_chunk, VENDOR_CHUNK),
    ("completion", openai_json.decode_completion, openai_json.encode_completion, COMPLETION),
    ("request", openai_json.decode_request, openai_json.encode_request, REQUEST),
    ("request with tools", openai_json.decode_request, openai_json.encode_request, TOOL_REQUEST),
)


def rows() -> Iterator[tuple[str, int, float]]:
    """What is measured, the size of its document in bytes, and its cost."""
    for name, decode, encode, value in CODECS:
        document = json.dumps(value, separators=(",", ":")).encode()
        message = decode(document)
        calls: dict[str, Callable[[], object]] = {
            "read": partial(decode, document),
            "write": partial(encode, message),
        }
        if encode is openai_json.encode_request:
            calls["canonicalize"] = partial(openai_json.canonicalize_request, message)
        for verb, call in calls.items():
            yield f"{name}, {verb}", len(document), microseconds(call)


def main() -> None:
    """Print the table."""
    sys.stdout.write(f"{'':32}{'bytes':>8}{'µs':>8}\n")
    for name, size, cost in rows():
        sys.stdout.write(f"{name:32}{size:8}{cost:8.1f}\n")


if __name__ == "__main__":
    main()
