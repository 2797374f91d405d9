from collections.abc import Callable
from typing import Any

import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    AllowedTools,
    Annotation,
    ChatCompletionParams,
    ChatMessage,
    ContentPart,
    ContentPartList,
    FunctionDefinition,
    Prediction,
    StringList,
    Tool,
    ToolCall,
    ToolChoice,
)
from service.validation import entry_counts
from tests.support.samples import params
from tests.unit.service.validation.test_contract import ACCEPTED, LONG

HELLO = ChatMessage(role="user", content_text="Hello")


def talk(*counts: int, **members: Callable[[int], Any]) -> ChatCompletionParams:
    """Return a request whose messages have these numbers of entries in one member."""
    ((name, entries),) = members.items()
    messages: list[dict[str, Any]] = [{"role": "user", name: entries(count)} for count in counts]
    return ChatCompletionParams(messages=[ChatMessage(**message) for message in messages])


def of_parts(count: int) -> ContentPartList:
    return ContentPartList(items=[ContentPart()] * count)


def of_calls(count: int) -> list[ToolCall]:
    return [ToolCall()] * count


def of_annotations(count: int) -> list[Annotation]:
    return [Annotation()] * count


def of_texts(count: int) -> dict[str, str]:
    return {str(number): "" for number in range(count)}


def of_tools(count: int) -> ToolChoice:
    return ToolChoice(allowed_tools=AllowedTools(tools=[Tool()] * count))


CROWDS: dict[str, Callable[[int], ChatCompletionParams]] = {
    "messages": lambda count: ChatCompletionParams(messages=[HELLO] * count),
    "tools": lambda count: ChatCompletionParams(tools=[Tool()] * count),
    "functions": lambda count: ChatCompletionParams(functions=[FunctionDefinition()] * count),
    "tool_choice.allowed_tools.tools": lambda count: ChatCompletionParams(
        tool_choice_object=of_tools(count)
    ),
    "prediction.content": lambda count: ChatCompletionParams(
        prediction=Prediction(content_parts=of_parts(count))
    ),
    "stop": lambda count: ChatCompletionParams(stop_list=StringList(items=["x"] * count)),
    "modalities": lambda count: ChatCompletionParams(modalities=["x"] * count),
    "metadata": lambda count: ChatCompletionParams(metadata=of_texts(count)),
    "messages[0].content": lambda count: talk(count, content_parts=of_parts),
    "messages[0].tool_calls": lambda count: talk(count, tool_calls=of_calls),
    "messages[0].annotations": lambda count: talk(count, annotations=of_annotations),
    "messages[2].content": lambda count: talk(1, 1, count - 2, 0, content_parts=of_parts),
    "messages[1].tool_calls": lambda count: talk(1000, count - 1000, tool_calls=of_calls),
}


@pytest.mark.parametrize(("param", "build"), CROWDS.items(), ids=CROWDS)
def test_more_than_can_be_walked_over_is_named(
    param: str, build: Callable[[int], ChatCompletionParams]
) -> None:
    assert entry_counts.crowd(build(entry_counts.MOST)) is None
    found = entry_counts.crowd(build(entry_counts.MOST + 1))
    assert found is not None
    assert (found.param, found.code) == (param, LONG)
    assert str(entry_counts.MOST) in found.message


@pytest.mark.parametrize(
    ("param", "most", "build"),
    [
        (
            "logit_bias",
            entry_counts.MOST_BIASES,
            lambda count: ChatCompletionParams(logit_bias=dict.fromkeys(of_texts(count), 1.0)),
        ),
        (
            "extra_json",
            openai_json.MAX_UNKNOWN,
            lambda count: ChatCompletionParams(extra_json=of_texts(count)),
        ),
        (
            "extra_json",
            openai_json.MAX_UNKNOWN,
            lambda count: ChatCompletionParams(
                extra_json=of_texts(1000),
                messages=[ChatMessage(extra_json=of_texts(part)) for part in (1000, count - 2000)],
            ),
        ),
        *(
            (
                name,
                16 * entry_counts.MOST,
                lambda count, name=name: ChatCompletionParams(
                    extra_json={name: "[" + "{}," * (count - 1) + "{}]"}
                ),
            )
            for name in ("messages", "tools", "functions")
        ),
        (
            "messages[1].content",
            16 * entry_counts.MOST,
            lambda count: ChatCompletionParams(
                messages=[
                    ChatMessage(extra_json={"content": "[" + "{}," * (part - 1) + "{}]"})
                    for part in (1000, count - 1000)
                ]
            ),
        ),
    ],
)
def test_entries_and_text_have_limits_of_their_own(
    param: str, most: int, build: Callable[[int], ChatCompletionParams]
) -> None:
    assert entry_counts.crowd(build(most)) is None
    found = entry_counts.crowd(build(most + 1))
    assert found is not None
    assert (found.param, found.code) == (param, LONG)


def test_a_request_is_no_crowd() -> None:
    for members in ACCEPTED:
        assert entry_counts.crowd(params(**members)) is None


def test_the_limits_are_these() -> None:
    assert (entry_counts.MOST, entry_counts.MOST_BIASES) == (4096, 32_768)
    assert entry_counts.crowd(ChatCompletionParams(messages=[HELLO] * 4097)) is not None
