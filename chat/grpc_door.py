"""The API over gRPC, with the stubs of the contract."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from chat.ask_error import FAILED, UNREACHABLE, AskError
from chat.events import LARGEST, parsed
from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from chatcompletion.v1.chat_completion_service_pb2 import (
    CreateChatCompletionRequest,
    StreamChatCompletionRequest,
)
from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from chatcompletion.v1.error_pb2 import ErrorDetail
from chatcompletion.v1.model_service_pb2 import ListModelsRequest
from chatcompletion.v1.model_service_pb2_grpc import ModelServiceStub

_DEADLINE: Final = 600.0
"""Seconds for a call."""
_TLS: Final = "https://"


class GrpcDoor:
    """The API over gRPC. `close` closes its channel.

    Args:
        target: HOST:PORT for plaintext, or https://HOST:PORT for TLS.
        key: The API key.
    """

    def __init__(self, target: str, key: str) -> None:
        self._target = target
        options = [("grpc.max_receive_message_length", LARGEST)]
        if target.startswith(_TLS):
            address = target.removeprefix(_TLS).rstrip("/")
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._key = (("authorization", f"Bearer {key}"),)

    def stream(self, request: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Yield the chunks of an answer. The call ends when the iteration does.

        Raises:
            AskError: There is no answer, or it broke off.
        """
        asked = {**request, "stream_options": {"include_usage": True}}
        message = StreamChatCompletionRequest(params=_params(asked))
        call = ChatCompletionServiceStub(self._channel).StreamChatCompletion(
            message, metadata=self._key, timeout=_DEADLINE
        )
        with self._ends(call):
            for answer in call:
                yield parsed(openai_json.encode_chunk(answer.chunk))

    def complete(self, request: Mapping[str, Any]) -> bytes:
        """Return an answer as one line of JSON.

        Raises:
            AskError: There is no answer.
        """
        message = CreateChatCompletionRequest(params=_params(request))
        stub = ChatCompletionServiceStub(self._channel)
        with self._ends(
            call := stub.CreateChatCompletion.future(message, metadata=self._key, timeout=_DEADLINE)
        ):
            return openai_json.encode_completion(call.result().completion)

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the key can use.

        Raises:
            AskError: There is no list.
        """
        stub = ModelServiceStub(self._channel)
        message = ListModelsRequest()
        with self._ends(
            call := stub.ListModels.future(message, metadata=self._key, timeout=_DEADLINE)
        ):
            listed = parsed(openai_json.encode_model_list(call.result()))
        models: list[dict[str, Any]] = listed["data"]
        return models

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    @contextmanager
    def _ends(self, call: Any) -> Iterator[None]:
        """Cancel a call at the end, which does nothing if it is over."""
        try:
            yield
        except grpc.RpcError as error:
            raise of_status(error, self._target) from error
        finally:
            call.cancel()


def of_status(error: Any, target: str) -> AskError:
    """Return the error for the status of a call.

    Args:
        error: The failed call.
        target: The address that was called.
    """
    details = _details(dict(error.trailing_metadata() or ()))
    detail, retry = details.get(ErrorDetail), details.get(RetryInfo)
    if detail is None:
        is_away = error.code() is grpc.StatusCode.UNAVAILABLE
        return AskError(
            f"{'Cannot reach' if is_away else error.code().name + ' from'} {target}: "
            f"{error.details()}",
            status=UNREACHABLE if is_away else FAILED,
        )
    return AskError(
        detail.error.message,
        param=detail.error.param,
        retry_after=retry.retry_delay.ToMilliseconds() / 1000 if retry else None,
    )


def _details(trailers: Mapping[str, Any]) -> dict[type[Message], Any]:
    """Return the details of a status, by type."""
    found: dict[type[Message], Any] = {}
    try:
        status = Status.FromString(trailers.get("grpc-status-details-bin", b""))
        for detail in status.details:
            for kind in (ErrorDetail, RetryInfo):
                if detail.Is(kind.DESCRIPTOR):
                    found[kind] = kind.FromString(detail.value)
    except DecodeError:
        return {}
    return found


def _params(request: Mapping[str, Any]) -> ChatCompletionParams:
    try:
        return openai_json.decode_request(json.dumps(request).encode())
    except openai_json.CodecError as error:
        raise AskError(str(error)) from error
