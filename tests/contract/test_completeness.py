"""Each member in the types of the installed openai package has a field at the same place.

A member that a newer release adds is reported by its name and place. It is lossless all the same,
for it stands in extra_json; the answer is a field, or a line in EXCEPTIONS with its reason.
"""

from typing import Any, get_args

import pytest
from openai.types import CompletionUsage, Model
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionTokenLogprob,
    completion_create_params,
)
from openai.types.shared import ErrorObject

from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.v1 import chat_completion_pb2, error_pb2, model_service_pb2
from tests.contract.sdk_types import differences, members

ROOTS: tuple[tuple[str, Any, Any], ...] = (
    (
        "request",
        completion_create_params.CompletionCreateParamsNonStreaming,
        chat_completion_pb2.ChatCompletionParams,
    ),
    (
        "request",
        completion_create_params.CompletionCreateParamsStreaming,
        chat_completion_pb2.ChatCompletionParams,
    ),
    ("completion", ChatCompletion, chat_completion_pb2.ChatCompletion),
    ("chunk", ChatCompletionChunk, chat_completion_pb2.ChatCompletionChunk),
    ("message", ChatCompletionMessage, chat_completion_pb2.ChatMessage),
    ("message", ChatCompletionMessageParam, chat_completion_pb2.ChatMessage),
    ("usage", CompletionUsage, chat_completion_pb2.Usage),
    ("logprob", ChatCompletionTokenLogprob, chat_completion_pb2.TokenLogprob),
    ("model", Model, model_service_pb2.Model),
    ("error", ErrorObject, error_pb2.ApiError),
)

EXCEPTIONS = {
    # OpenAI's own product; its object grows, and travels in extra_json.
    "error.misalignment: unknown",
}
"""The intended differences between SDK and contract, each with its reason."""


def test_each_member_of_the_sdk_has_its_field() -> None:
    found = {
        line
        for place, sdk_type, message in ROOTS
        for line in differences(SHAPES, sdk_type, SHAPES[message.DESCRIPTOR.full_name], place)
    }
    assert sorted(found - EXCEPTIONS) == []
    assert sorted(EXCEPTIONS - found) == [], "exceptions that are none any more"


@pytest.mark.parametrize(
    ("place", "sdk_type", "name"),
    [
        ("request", completion_create_params.CompletionCreateParamsStreaming, "model"),
        ("chunk", ChatCompletionChunk, "choices"),
        ("message", get_args(ChatCompletionMessageParam)[0], "role"),
    ],
)
def test_walk_sees_the_members(place: str, sdk_type: Any, name: str) -> None:
    assert name in members(sdk_type)


def test_a_new_member_is_reported_by_its_place() -> None:
    usage = SHAPES[chat_completion_pb2.Usage.DESCRIPTOR.full_name]
    chunk = SHAPES[chat_completion_pb2.ChatCompletionChunk.DESCRIPTOR.full_name]
    assert list(differences(SHAPES, Model, usage, "usage")) == [
        f"usage.{name}: unknown" for name in members(Model)
    ]
    without = {name: member for name, member in usage.members.items() if name != "total_tokens"}
    poorer = SHAPES | {usage.name: type(usage)(name="", message=usage.message, members=without)}
    assert list(differences(poorer, ChatCompletionChunk, chunk, "chunk")) == [
        "chunk.usage.total_tokens: unknown"
    ]
