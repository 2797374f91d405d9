"""The API over REST."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx
import msgspec

from chat.ask_error import UNREACHABLE, AskError, of_response
from chat.events import LARGEST, chunks, event_data, parsed

_TIMEOUT: Final = httpx.Timeout(600, connect=10)
"""Seconds without a byte, and for a connection."""


class RestDoor:
    """The API over REST. `close` closes its connections.

    Args:
        base_url: The base URL, as for OpenAI's SDKs: it usually ends in /v1.
        key: The API key.

    Raises:
        ValueError: The base URL is not one.
    """

    def __init__(self, base_url: str, key: str) -> None:
        try:
            is_http = httpx.URL(base_url).scheme in {"http", "https"} and httpx.URL(base_url).host
        except httpx.InvalidURL:
            is_http = ""
        if not is_http:
            raise ValueError(f"the base URL is {base_url!r}; expected http://HOST:PORT/v1")
        self._client = httpx.Client(
            base_url=base_url, headers={"authorization": f"Bearer {key}"}, timeout=_TIMEOUT
        )

    def stream(self, request: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Yield the chunks of an answer. The request ends when the iteration does.

        Raises:
            AskError: There is no answer, or it broke off.
        """
        streamed = {**request, "stream": True, "stream_options": {"include_usage": True}}
        with self._called("POST", "/chat/completions", streamed) as response:
            yield from chunks(event_data(response.iter_bytes()))

    def complete(self, request: Mapping[str, Any]) -> bytes:
        """Return an answer as one line of JSON.

        Raises:
            AskError: There is no answer.
        """
        with self._called("POST", "/chat/completions", request) as response:
            body = _body(response)
        parsed(body)
        return msgspec.json.format(body, indent=-1)

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the key can use.

        Raises:
            AskError: There is no list.
        """
        with self._called("GET", "/models") as response:
            found = parsed(_body(response)).get("data")
        return [model for model in found if isinstance(model, dict)] if found else []

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def _called(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(method, path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    url = str(response.request.url)
                    raise of_response(response.status_code, response.headers, _body(response), url)
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            reason = f"Cannot reach {self._client.base_url}: {error or 'timeout'}"
            raise AskError(reason, status=UNREACHABLE) from error
        except httpx.HTTPError as error:
            raise AskError(f"The connection broke: {error or type(error).__name__}") from error


def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > LARGEST:
            raise AskError("The server sent an answer that is too large.")
    return bytes(body)
