"""A whole answer, a stream, a deadline and a cancellation."""

import grpc
from connect import METADATA, MODEL

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

HELLO = ChatCompletionParams(model=MODEL, messages=[ChatMessage(role="user", content_text="Hello")])


def unary(chat: ChatCompletionServiceStub) -> None:
    """Print a whole answer and its number of tokens."""
    # The deadline bounds all work for the call, including the upstream's.
    request = CreateChatCompletionRequest(params=HELLO)
    response = chat.CreateChatCompletion(request, metadata=METADATA, timeout=60)
    for choice in response.completion.choices:
        print(choice.message.content_text)
    print(response.completion.usage.total_tokens, "tokens")


def stream(chat: ChatCompletionServiceStub) -> None:
    """Print an answer while it arrives. A stream that ends without an error is complete."""
    request = StreamChatCompletionRequest(params=HELLO)
    for response in chat.StreamChatCompletion(request, metadata=METADATA, timeout=60):
        for choice in response.chunk.choices:
            print(choice.delta.content_text, end="", flush=True)
    print()


def deadline(chat: ChatCompletionServiceStub) -> None:
    """Give a call less time than it needs."""
    request = CreateChatCompletionRequest(params=HELLO)
    try:
        chat.CreateChatCompletion(request, metadata=METADATA, timeout=0.05)
    except grpc.RpcError as error:
        print(error.code().name)


def cancel(chat: ChatCompletionServiceStub) -> None:
    """Stop after the first chunk. The service then closes its request to the upstream."""
    request = StreamChatCompletionRequest(params=HELLO)
    call = chat.StreamChatCompletion(request, metadata=METADATA, timeout=60)
    next(call)
    call.cancel()
    print(call.code().name)
