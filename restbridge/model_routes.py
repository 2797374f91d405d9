"""GET /v1/models and GET /v1/models/{model}.

A model's name can contain "/" and ":", which SDKs send percent-encoded or not. The bridge decodes
the name once and resolves nothing in it: `..` is an ordinary name.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope, Send

from chatcompletion.openai_json import encode_model, encode_model_list
from chatcompletion.v1.model_service_pb2 import GetModelRequest, ListModelsRequest
from restbridge import wrong_urls
from restbridge.channel import Service
from restbridge.error_responses import ErrorResponse, RefusedError, of_reason
from restbridge.forward import forward

_PREFIX: Final = b"/v1/models/"


def unknown_url(scope: Scope) -> ErrorResponse:
    """Return the failure of a request to a URL that the bridge does not have."""
    return of_reason("UNKNOWN_URL", message=wrong_urls.message(scope["method"], scope["path"]))


class ModelListRoute:
    """GET /v1/models, as an ASGI application.

    Args:
        service: The service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await forward(
            scope,
            receive,
            send,
            rpc="chatcompletion.v1.ModelService/ListModels",
            method=self._service.stubs().models.ListModels,
            request=ListModelsRequest(),
            encode=encode_model_list,
            deadline=self._service.timeout,
        )


class ModelRoute:
    """GET /v1/models/{model}, as an ASGI application.

    Args:
        service: The service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        name = model_name(scope["raw_path"])
        if name is None:
            raise RefusedError(unknown_url(scope))
        await forward(
            scope,
            receive,
            send,
            rpc="chatcompletion.v1.ModelService/GetModel",
            method=self._service.stubs().models.GetModel,
            request=GetModelRequest(model=name),
            encode=lambda response: encode_model(response.model),
            deadline=self._service.timeout,
        )


def model_name(raw_path: bytes) -> str | None:
    """Return the name of the model in a path, or None if the path has no valid name."""
    if not raw_path.startswith(_PREFIX):
        return None
    try:
        return unquote_to_bytes(raw_path.removeprefix(_PREFIX)).decode("utf-8") or None
    except UnicodeDecodeError:
        return None
