"""Why a call failed: the reason, the parameter at fault, and when to try again."""

import grpc
from calls import HELLO
from connect import METADATA
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from chatcompletion.v1.error_pb2 import ErrorDetail, ErrorReason


def describe(error: grpc.RpcError) -> str:
    """Return a failure as one line."""
    status = rpc_status.from_call(error)
    found = ErrorDetail()
    retry = RetryInfo()
    if status is None or not any(detail.Unpack(found) for detail in status.details):
        return f"{error.code().name}: {error.details()}"  # not from the service
    any(detail.Unpack(retry) for detail in status.details)
    reason = ErrorReason.Name(found.reason).removeprefix("ERROR_REASON_")
    param = found.error.param or "none"
    wait = retry.retry_delay.ToMilliseconds()
    again = f"after {wait} ms" if wait else "yes" if found.retryable else "no"
    return (
        f"{reason} (HTTP {found.http_status}, param {param}, retry {again}): {found.error.message}"
    )


def errors(chat: ChatCompletionServiceStub) -> None:
    """Send a parameter that is out of range."""
    params = ChatCompletionParams()
    params.CopyFrom(HELLO)
    params.temperature = 3
    try:
        chat.CreateChatCompletion(
            CreateChatCompletionRequest(params=params), metadata=METADATA, timeout=60
        )
    except grpc.RpcError as error:
        print(describe(error))
