"""The RPCs for callers. Each is one straight line: authenticate, accept, admit, call the upstream.

Nothing is caught here: the interceptor turns each exception into a status, and the admission
settles the usage when it ends.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from grpc.aio import ServicerContext

from chatcompletion import openai_json
from chatcompletion.default_messages import quoted, too_large
from chatcompletion.v1 import (
    chat_completion_service_pb2,
    chat_completion_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionParams,
)
from process.in_process import InProcessContext
from service import errors, receipts, validation
from service.accounts.keys import Caller
from service.authentication import Authentication
from service.call import CURRENT, Call
from service.metering.bound import output_limit
from service.metering.progress import Progress
from service.model_names import allows
from service.models import Models
from service.quotes import Quotes
from service.request import AcceptedRequest
from service.upstream.chunks import Response

# Quoted, because it is generic for type checkers only.
_Context: TypeAlias = "ServicerContext[Any, Any]"


class Admits(Protocol):
    """Holds the cost of a call and settles it: `Admission`."""

    def admit(
        self, caller: Caller, call: Call, request: AcceptedRequest, *, wants_usage: bool
    ) -> AbstractAsyncContextManager[Progress]:
        """Hold the maximum cost of a call. Settle its usage when the context ends in any way."""


class Completes(Protocol):
    """Asks the upstreams: `UpstreamClient`."""

    async def complete(
        self, request: AcceptedRequest, call: Call, progress: Progress
    ) -> ChatCompletion:
        """Return the completion."""

    def stream(
        self, request: AcceptedRequest, call: Call, progress: Progress, *, in_process: bool
    ) -> AsyncGenerator[list[Response]]:
        """Yield the responses for the caller as they arrive."""


class ChatCompletionServicer(chat_completion_service_pb2_grpc.ChatCompletionServiceServicer):
    """The RPCs of ChatCompletionService.

    Args:
        authentication: Finds the caller.
        admission: Holds the cost of a call and settles it.
        catalogue: The models.
        upstream: The client of the upstreams.
        quotes: Quotes completions.
        max_request_bytes: Maximum size of a request message, in bytes.
        clock: A monotonic clock in seconds, for durations.
    """

    def __init__(
        self,
        authentication: Authentication,
        admission: Admits,
        catalogue: Models,
        upstream: Completes,
        *,
        quotes: Quotes,
        max_request_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._authentication = authentication
        self._admission = admission
        self._catalogue = catalogue
        self._upstream = upstream
        self._quotes = quotes
        self._max_request_bytes = max_request_bytes

    async def CreateChatCompletion(  # noqa: N802  (named by the contract)
        self, request: chat_completion_service_pb2.CreateChatCompletionRequest, context: _Context
    ) -> chat_completion_service_pb2.CreateChatCompletionResponse:
        """Return the whole completion."""
        call = CURRENT.get()
        caller = await self._authentication.authenticate(call)
        accepted = self._accept(request.params, call, context, streamed=False)
        admitted = self._admission.admit(caller, call, accepted, wants_usage=True)
        async with admitted as progress:
            completion = await self._upstream.complete(accepted, call, progress)
            progress.take(completion)
        if call.charge is not None:
            receipts.add_to_completion(completion, call.charge, progress.used)
        return chat_completion_service_pb2.CreateChatCompletionResponse(
            completion=completion, charge=call.charge
        )

    async def StreamChatCompletion(  # type: ignore[override]  # noqa: N802  (named by the contract; the interceptor writes what it yields)
        self, request: chat_completion_service_pb2.StreamChatCompletionRequest, context: _Context
    ) -> AsyncGenerator[list[Response]]:
        """Yield the chunks as they arrive: for a caller in this process, all that are there."""
        call = CURRENT.get()
        caller = await self._authentication.authenticate(call)
        accepted = self._accept(request.params, call, context, streamed=True)
        del request  # the request message takes more memory than the rest of an open stream
        wants_usage = accepted.params.stream_options.include_usage
        admitted = self._admission.admit(caller, call, accepted, wants_usage=wants_usage)
        async with admitted as progress:
            in_process = isinstance(context, InProcessContext)
            stream = self._upstream.stream(accepted, call, progress, in_process=in_process)
            del accepted
            try:
                async for responses in stream:
                    call.record.note_chunks(len(responses), self._clock())
                    yield responses
            finally:
                await stream.aclose()
        if progress.kept is not None and call.charge is not None:
            call.record.note_chunks(1, self._clock())
            receipts.add(progress.kept.chunk.usage, call.charge)
            progress.kept.charge.CopyFrom(call.charge)
            yield [progress.kept]

    async def QuoteChatCompletion(  # noqa: N802  (named by the contract)
        self, request: chat_completion_service_pb2.QuoteChatCompletionRequest, context: _Context
    ) -> chat_completion_service_pb2.QuoteChatCompletionResponse:
        """Return what a completion would hold, and whether it would be admitted."""
        call = CURRENT.get()
        caller = await self._authentication.authenticate(call)
        params = request.params
        accepted = self._accept(params, call, context, streamed=params.stream)
        return await self._quotes.quote(caller, accepted)

    def _accept(
        self, params: ChatCompletionParams, call: Call, context: _Context, *, streamed: bool
    ) -> AcceptedRequest:
        """Return the canonical request.

        Raises:
            Failure: The request is too large, or it violates the contract or the model's rules.
        """
        data = params.SerializeToString()  # once: each of these rules needs its size or its bytes
        _check_crowd(params, len(data))
        if len(data) > self._max_request_bytes:
            raise errors.RequestTooLarge(too_large(self._max_request_bytes, len(data)))
        try:
            openai_json.check_size(params, data)
            # The bridge in this process has decoded the request, so that it is canonical.
            is_decoded = isinstance(context, InProcessContext)
            canonical = params if is_decoded else openai_json.canonicalize_request(params)
        except openai_json.DecodeError as error:
            param = error.param or "params"
            message = f"Invalid {quoted(param)}: {error.message[:1].lower()}{error.message[1:]}"
            violation = errors.Violation(param=param, message=message, code=error.code)
            raise _invalid([violation]) from error
        if canonical is not params:
            # Some members moved from extra_json to fields.
            _check_crowd(canonical)
            params = canonical
            data = params.SerializeToString()
        formed, survey = params, validation.survey_of(params, data)
        del data  # of a large request, it would take as much memory again until the response
        if validation.UNTYPED in survey:
            formed = validation.in_contract_form(params)
            if formed is not params:
                _check_crowd(formed)
                survey = validation.survey_of(formed)
        _refuse(validation.violations(formed, streamed=streamed, survey=survey))
        model = self._catalogue.get(params.model)
        if model is None:
            raise _not_found(params.model)
        call.record.model, call.record.pattern = model.name, model.pattern
        limit = output_limit(params, model)
        _refuse(validation.unaccepted(params, model))
        _refuse(validation.refused(formed, model, survey=survey))
        validation.take_out_what_says_nothing(params, model)
        return AcceptedRequest(
            params=params, priced=formed, model=model, output_limit=limit, survey=survey
        )


def _check_crowd(params: ChatCompletionParams, size: int | None = None) -> None:
    crowd = validation.crowd(params, size)
    if crowd is not None:
        raise _invalid([crowd])


def _refuse(violations: Sequence[errors.Violation]) -> None:
    if violations:
        raise _invalid(violations)


def _invalid(violations: Sequence[errors.Violation]) -> errors.InvalidRequest:
    """Return the failure of a request, with the path of each violation in the message `params`."""
    return errors.InvalidRequest.of(
        [
            replace(each, field=f"params.{openai_json.field_path(each.param)}")
            if each.param != "params"
            else each
            for each in violations
        ]
    )


def _not_found(name: str) -> errors.ModelNotFound:
    return errors.ModelNotFound(
        f"The model {quoted(name)} does not exist. "
        "GET /v1/models (ListModels in gRPC) lists the models.",
        param="model",
    )


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """The RPCs of ModelService.

    Args:
        authentication: Finds the caller.
        catalogue: The models.
        wall_clock: Nanoseconds since the Unix epoch, which select the prices.
    """

    def __init__(
        self,
        authentication: Authentication,
        catalogue: Models,
        *,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._wall_clock = wall_clock
        self._authentication = authentication
        self._catalogue = catalogue

    async def ListModels(  # noqa: N802  (named by the contract)
        self, request: model_service_pb2.ListModelsRequest, context: _Context
    ) -> model_service_pb2.ListModelsResponse:
        """Return the models that the key can use."""
        caller = await self._authentication.authenticate(CURRENT.get())
        listed = self._catalogue.listed(caller.models)
        now = self._wall_clock()
        return model_service_pb2.ListModelsResponse(
            object="list", data=[model.at(now).message() for model in listed]
        )

    async def GetModel(  # noqa: N802  (named by the contract)
        self, request: model_service_pb2.GetModelRequest, context: _Context
    ) -> model_service_pb2.GetModelResponse:
        """Return one model."""
        caller = await self._authentication.authenticate(CURRENT.get())
        model = self._catalogue.get(request.model)
        if model is None:  # it can be a pattern, as ListModels lists it
            listed = self._catalogue.listed(caller.models)
            model = next((entry for entry in listed if entry.name == request.model), None)
        if model is None or not allows(caller.models, model.name):
            raise _not_found(request.model)
        shown = model.at(self._wall_clock()).message()
        return model_service_pb2.GetModelResponse(model=shown)
