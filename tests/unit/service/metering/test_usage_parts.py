import json
from typing import Any

import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import Usage
from service.metering.progress import Progress
from service.metering.usage_parts import NO_PARTS, Parts, parts_of, prompt_of
from tests.support.samples import chunk_message, usage_chunk


def usage(**members: Any) -> Usage:
    counts = {"prompt_tokens": 10, "completion_tokens": 5, **members}
    document = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": counts}
    return openai_json.decode_chunk(json.dumps(document).encode()).usage


@pytest.mark.parametrize(
    ("members", "parts"),
    [
        ({}, NO_PARTS),
        ({"prompt_tokens_details": {"cached_tokens": 3}}, Parts(cached=3)),
        ({"prompt_tokens_details": {"cache_write_tokens": 4}}, Parts(written=4)),
        ({"prompt_tokens_details": {"audio_tokens": 5, "image_tokens": 6}}, Parts(0, 0, 5, 6)),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, Parts(reasoning=2)),
        ({"completion_tokens_details": {"audio_tokens": 1}}, Parts(spoken=1)),
        (
            {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 4},
            Parts(cached=3, written=4),
        ),
        ({"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 3}, Parts(cached=7)),
        ({"cached_tokens": 8}, Parts(cached=8)),
        (
            {"prompt_tokens_details": {"cached_tokens": 3}, "cache_read_input_tokens": 3},
            Parts(cached=3),
        ),
        ({"prompt_tokens_details": {"cached_tokens": -3}}, NO_PARTS),
        ({"cached_tokens": -3}, NO_PARTS),
        ({"cached_tokens": "3"}, NO_PARTS),
        ({"cached_tokens": 3.5}, NO_PARTS),
        ({"cached_tokens": 10**19}, NO_PARTS),
        ({"cached_tokens": None, "prompt_tokens_details": None}, NO_PARTS),
    ],
)
def test_the_parts_of_a_usage(members: dict[str, Any], parts: Parts) -> None:
    assert parts_of(usage(**members)) == parts


@pytest.mark.parametrize(("outside", "prompt"), [(False, 10), (True, 17)])
def test_cached_tokens_are_inside_the_prompt_or_outside(outside: bool, prompt: int) -> None:
    anthropic = usage(cache_read_input_tokens=3, cache_creation_input_tokens=4)

    assert prompt_of(anthropic, cached_outside=outside) == prompt


def test_a_negative_prompt_stays_implausible() -> None:
    assert prompt_of(usage(prompt_tokens=-1, cached_tokens=5), cached_outside=True) == -1


def test_progress_has_the_parts_of_the_report_that_is_charged() -> None:
    progress = Progress(wants_usage=False, cached_outside=True)
    assert progress.parts == NO_PARTS
    document = usage_chunk()
    document["usage"]["prompt_tokens_details"] = {"cached_tokens": 2}

    progress.observe(chunk_message(document))

    assert progress.parts == Parts(cached=2)
    assert progress.used.prompt == 5
    progress.observe(chunk_message({**document, "usage": {"prompt_tokens": "x"}}))
    assert progress.parts == Parts(cached=2)
