"""A function that the model calls."""

import json

from calls import HELLO
from connect import METADATA

from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletionParams,
    ChatMessage,
    FunctionDefinition,
    RawJson,
    Tool,
)
from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

GET_WEATHER = Tool(
    type="function",
    function=FunctionDefinition(
        name="get_weather",
        parameters=RawJson(text=json.dumps(SCHEMA)),  # JSON stays text
    ),
)


def get_weather(arguments: str) -> str:
    """Return the result of the function as JSON. A model can send arguments that are no JSON."""
    return json.dumps({"asked": arguments, "degrees": 21})


def tools(chat: ChatCompletionServiceStub) -> None:
    """Ask, run the functions that the model calls, and send their results back."""
    params = ChatCompletionParams(model=HELLO.model, tools=[GET_WEATHER])
    params.messages.add(role="user", content_text="Call get_weather for Paris.")
    while True:
        request = CreateChatCompletionRequest(params=params)
        response = chat.CreateChatCompletion(request, metadata=METADATA, timeout=60)
        message: ChatMessage = response.completion.choices[0].message
        if not message.tool_calls:
            print(message.content_text)
            return
        params.messages.append(message)  # the model reads its own calls
        for call in message.tool_calls:
            print("called", call.function.name)
            result = get_weather(call.function.arguments)
            params.messages.add(role="tool", tool_call_id=call.id, content_text=result)
