"""Parses a request body.

    JSON -> members of the contract -> CompletionRequest, or an HttpError like OpenAI's

The simulator ignores members without an effect here, and values of a wrong type if no test needs
OpenAI's error.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

import msgspec

from service.simulator.error_objects import HttpError

Document = dict[str, Any]

MAX_CHOICES = 128
MAX_TOKENS_IN_ALL = 1_000_000
"""Maximum tokens of all choices together, which bounds the memory of a completion."""

_decode = msgspec.json.Decoder().decode


class ForcedCall(msgspec.Struct, kw_only=True, frozen=True):
    """The tool call that the completion must be."""

    kind: Literal["function", "custom", "function_call"]
    name: str
    schema: Any = None
    """The JSON Schema of a function's arguments; None if it has none."""


class CompletionRequest(msgspec.Struct, kw_only=True, frozen=True):
    """The parts of a request that have an effect."""

    model: str
    messages: list[Document]
    stream: bool
    include_usage: bool
    choices: int
    limit: int | None
    stop: tuple[str, ...]
    logprobs: int | None
    """The number of alternatives per token; None if logprobs were not requested."""
    seed: int | None
    call: ForcedCall | None
    schema: Any
    """The JSON Schema of the text; None for a free text."""
    json_object: bool


def decode(body: bytes) -> Document:
    """Decode the JSON object of a body.

    Raises:
        HttpError: The body is not a JSON object (400).
    """
    try:
        try:
            document = _decode(body)
        except msgspec.MsgspecError:
            # Unpaired surrogates are valid JSON; only the slower decoder accepts them.
            document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise HttpError(
            status=400, message="The body of the request could not be parsed as JSON."
        ) from None
    if not isinstance(document, dict):
        raise HttpError(status=400, message="The body of the request is not a JSON object.")
    return document


def model_of(document: Document) -> str:
    """Return the model's name.

    Raises:
        HttpError: The body has no model (400).
    """
    model = document.get("model")
    if isinstance(model, str) and model:
        return model
    raise HttpError(
        status=400,
        message="you must provide a model parameter",
        param="model" if model is not None else None,
    )


def parse(document: Document, *, tokens: int) -> CompletionRequest:
    """Parse a request for texts of `tokens` tokens.

    Raises:
        HttpError: A member with an effect is missing or invalid (400).
    """
    messages = _messages(document)
    choices = _integer(document, "n", 1, MAX_CHOICES)
    limit = _integer(document, "max_completion_tokens", 0, 2**31)
    if limit is None:
        limit = _integer(document, "max_tokens", 0, 2**31)
    if (choices or 1) * tokens > MAX_TOKENS_IN_ALL:
        _refuse("n", "n times the length of the text is too large for the simulator.")
    options = document.get("stream_options")
    stop = document.get("stop")
    response_format = document.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    schema = None
    if isinstance(response_format, dict) and kind == "json_schema":
        described = response_format.get("json_schema")
        if not isinstance(described, dict):
            _refuse("response_format.json_schema", "A json_schema format needs its json_schema.")
        schema = described.get("schema", True)
    return CompletionRequest(
        model=model_of(document),
        messages=messages,
        stream=document.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        choices=1 if choices is None else choices,
        limit=limit,
        stop=_strings([stop] if isinstance(stop, str) else stop),
        logprobs=_logprobs(document),
        seed=_integer(document, "seed", -(2**63), 2**63 - 1),
        call=forced_call(document, messages),
        schema=schema,
        json_object=kind == "json_object",
    )


def texts(messages: list[Document]) -> Iterator[str]:
    """Yield the texts of the messages."""
    for message in messages:
        yield from _texts_of(message)
        for call in _objects(message.get("tool_calls")):
            called = call.get("function") or call.get("custom")
            if isinstance(called, dict):
                yield from (value for value in called.values() if isinstance(value, str))


def forced_call(document: Document, messages: list[Document]) -> ForcedCall | None:
    """Return the call that `tool_choice` (or the older `function_call`) forces.

    With "auto", a tool is called if the last message is the user's and contains the tool's name. A
    test can thus select a call by its prompt, and the response to a tool's result is a text.

    Raises:
        HttpError: The request names a tool that it does not define (400).
    """
    tools = _tools(document)
    choice = document.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        if not isinstance(allowed, dict):
            _refuse("tool_choice", "allowed_tools has to be an object.")
        named = [_named(tool)[1] for tool in _objects(allowed.get("tools"))]
        tools = [tool for tool in tools if tool.name in named]
        choice = allowed.get("mode")
    elif isinstance(choice, dict):
        kind, name = _named(choice)
        for tool in tools:
            if (tool.kind, tool.name) == (kind, name):
                return tool
        _refuse("tool_choice", "Tool choice names a tool that is not in 'tools'.")
    if choice == "required":
        if not tools:
            _refuse("tool_choice", "Tool choice 'required' needs at least one tool.")
        return _mentioned(tools, messages) or tools[0]
    if tools and choice != "none":
        return _mentioned(tools, messages)
    return _function_call(document, messages)


def _function_call(document: Document, messages: list[Document]) -> ForcedCall | None:
    functions = [
        ForcedCall(kind="function_call", name=f["name"], schema=f.get("parameters"))
        for f in _objects(document.get("functions"))
        if isinstance(f.get("name"), str)
    ]
    choice = document.get("function_call")
    if isinstance(choice, dict):
        for function in functions:
            if function.name == choice.get("name"):
                return function
        _refuse("function_call", "The function that function_call names is not in 'functions'.")
    if functions and choice != "none":
        return _mentioned(functions, messages)
    return None


def _tools(document: Document) -> list[ForcedCall]:
    tools = []
    for tool in _objects(document.get("tools")):
        kind, name = _named(tool)
        if kind == "custom":
            tools.append(ForcedCall(kind="custom", name=name))
        elif kind == "function":
            schema = tool["function"].get("parameters")
            tools.append(ForcedCall(kind="function", name=name, schema=schema))
    return tools


def _named(tool: Document) -> tuple[str, str]:
    """Return the type and the name of a tool; "" if it has none."""
    kind = tool.get("type")
    described = tool.get(kind) if isinstance(kind, str) else None
    name = described.get("name") if isinstance(described, dict) else None
    return (str(kind), name) if isinstance(name, str) else ("", "")


def _mentioned(tools: list[ForcedCall], messages: list[Document]) -> ForcedCall | None:
    last = messages[-1]
    if last.get("role") != "user":
        return None
    prompt = "\n".join(_texts_of(last))
    return next((tool for tool in tools if tool.name in prompt), None)


def _texts_of(message: Document) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in _objects(content):
        if isinstance(part.get("text"), str):
            yield part["text"]


def _messages(document: Document) -> list[Document]:
    messages = document.get("messages")
    if messages is None:
        _refuse("messages", "Missing required parameter: 'messages'.", "missing_required_parameter")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        _refuse("messages", "Invalid type for 'messages': expected an array of objects.")
    if not messages:
        _refuse("messages", "Invalid 'messages': empty array.", "empty_array")
    return messages


def _integer(document: Document, name: str, lowest: int, highest: int) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        _refuse(name, f"Invalid '{name}': expected an integer of {lowest} to {highest}.")
    return value


def _logprobs(document: Document) -> int | None:
    top = _integer(document, "top_logprobs", 0, 20)
    return (top or 0) if document.get("logprobs") is True else None


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(s for s in value if isinstance(s, str) and s) if isinstance(value, list) else ()


def _objects(value: Any) -> list[Document]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _refuse(param: str, message: str, code: str = "invalid_value") -> NoReturn:
    raise HttpError(status=400, message=message, param=param, code=code)
