"""Other forms of members that frameworks send, in the form of the contract.

    a caller sends                                         rules and prices read
    content: ["a", {…}]                                    content: [{type: text, text: a}, {…}]
    image_url: "https://…"                                 image_url: {url: https://…}
    tool_calls: [{id: 7, function: {arguments: {…}}}]      tool_calls: [{id: "7", … "{…}"}]
    tool_call_id: 7                                        tool_call_id: "7"
    an assistant's images: [{image_url: {url: …}}]         parts of its content

The upstream receives the request as the caller sent it. Rules and prices read the result of this
module, so that a picture costs the same in every form.
"""

import json
from typing import Final

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletionParams,
    ChatMessage,
    ContentPart,
    FunctionCall,
    ToolCall,
)
from service.validation.entry_counts import MOST

_NUMBER: Final = frozenset("-0123456789")
_NOTHING: Final = frozenset({"[]", "null"})
_WAS: Final = "value"
"""The name of a value that has no place in the contract."""


def in_contract_form(params: ChatCompletionParams) -> ChatCompletionParams:
    """Return a request in the form of the contract: `params` itself if it has that form.

    Arrays of more than `entry_counts.MOST` entries are cut to one more entry, which
    `entry_counts.crowd` rejects.

    Args:
        params: The parameters, canonical. They are not changed.
    """
    other = [index for index, message in enumerate(params.messages) if _has_other_form(message)]
    if not other:
        return params
    formed = ChatCompletionParams()
    formed.CopyFrom(params)
    for index in other:
        _form(formed.messages[index])
    return formed


def _has_other_form(message: ChatMessage) -> bool:
    extra = message.extra_json
    if "content" in extra or "tool_call_id" in extra:
        return True
    if message.HasField("content_parts") and any(
        "image_url" in part.extra_json for part in message.content_parts.items
    ):
        return True
    if message.role != "assistant":
        return False
    return (
        any(extra.get(name, "null") not in _NOTHING for name in ("images", "tool_calls"))
        or any(
            call.extra_json or call.function.extra_json or call.custom.extra_json
            for call in message.tool_calls
        )
        or bool(message.function_call.extra_json)
    )


def _form(message: ChatMessage) -> None:
    extra = message.extra_json
    is_assistant = message.role == "assistant"
    _form_content(message, is_assistant=is_assistant)
    if extra.get("tool_call_id", "")[:1] in _NUMBER:
        message.tool_call_id = extra.pop("tool_call_id")
    if not is_assistant:
        return
    if extra.get("tool_calls", "")[:1] == "[":
        entries = openai_json.elements(extra.pop("tool_calls"))[: MOST + 1]
        message.tool_calls.extend(openai_json.of_members(ToolCall, _object(e)) for e in entries)
    for call in message.tool_calls:
        if call.extra_json.get("id", "")[:1] in _NUMBER:
            call.id = call.extra_json.pop("id")
        _form_arguments(call.function)
        if "input" in call.custom.extra_json:
            call.custom.input = call.custom.extra_json.pop("input")
    _form_arguments(message.function_call)
    if extra.get("images", "")[:1] == "[":
        _form_images(message)


def _form_arguments(function: FunctionCall) -> None:
    if "arguments" in function.extra_json:
        function.arguments = function.extra_json.pop("arguments")


def _form_content(message: ChatMessage, *, is_assistant: bool) -> None:
    content = message.extra_json.get("content", "")
    entries: list[str] = []
    if content[:1] == "[":
        entries = openai_json.elements(content)[: MOST + 1]
    elif content[:1] == "{" and is_assistant:
        entries = [content]
    if entries and (is_assistant or all(entry[0] in '"{' for entry in entries)):
        del message.extra_json["content"]
        message.content_parts.items.extend(map(_part, entries))
    elif entries:
        # An entry has another type; the others are not at fault.
        texts = (f'{{"text":{e}}}' if e[0] == '"' else e for e in entries)
        message.extra_json["content"] = f"[{','.join(texts)}]"
    if message.HasField("content_parts"):
        for part in message.content_parts.items:
            if part.extra_json.get("image_url", "")[:1] == '"':
                url = {"url": part.extra_json.pop("image_url")}
                part.image_url.CopyFrom(openai_json.of_members(type(part.image_url), url))


def _part(entry: str) -> ContentPart:
    if entry[0] == '"':
        return openai_json.of_members(ContentPart, {"type": '"text"', "text": entry})
    return openai_json.of_members(ContentPart, _object(entry))


def _object(entry: str) -> dict[str, str]:
    return openai_json.members(entry) if entry[0] == "{" else {_WAS: entry}


def _form_images(message: ChatMessage) -> None:
    """Move the images of an assistant's message into its content."""
    if message.HasField("content_text"):
        message.content_parts.items.add(type="text", text=message.content_text)
    for entry in openai_json.elements(message.extra_json.pop("images"))[: MOST + 1]:
        members = _object(entry)
        image = members.pop("image_url", '""') if _WAS not in members else members.pop(_WAS)
        inner = openai_json.members(image) if image[0] == "{" else {"url": image}
        url = {"url": inner.pop("url", '""')}
        part = message.content_parts.items.add(type="image_url")
        part.image_url.CopyFrom(openai_json.of_members(type(part.image_url), url))
        # The rest counts by its bytes, as text does.
        part.text = "".join(json.dumps(name) + text for name, text in (members | inner).items())
