"""An upstream that answers at once: `python -m tests.load.upstream` prints its port and serves.

It reads no JSON: the name of the model in the body selects the response, and everything that it
sends is made before. One core sends more than 40,000 responses a second.

    instant      a completion; streamed, 67 chunks in one burst
    paced-MS     streamed, a chunk every MS milliseconds
    held-MS      the same, and never the last one: until the client leaves
"""

import asyncio
import json
import re
from typing import Any, Final, cast

import uvloop

CHUNKS: Final = 67
"""The chunks of a stream that ends: the role, the tokens, the end of the choice, the usage."""

TOKENS: Final = CHUNKS - 3
INSTANT: Final = "instant"

_PACED: Final = re.compile(rb'"model": ?"(?:openai/)?(paced|held)-([0-9]+)"')
_STREAMED: Final = re.compile(rb'"stream": ?true')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_USAGE: Final = {"prompt_tokens": 60, "completion_tokens": TOKENS, "total_tokens": 60 + TOKENS}
_LAST_PART: Final = b"0\r\n\r\n"


def _head(*fields: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *fields, "", "")).encode()


def _document(kind: str, **members: Any) -> bytes:
    document = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": kind,
        "created": 1741569952,
        "model": INSTANT,
        **members,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _choice(finish_reason: str | None = None, **members: Any) -> list[dict[str, Any]]:
    return [{"index": 0, **members, "logprobs": None, "finish_reason": finish_reason}]


def _part(data: bytes) -> bytes:
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    return _document("chat.completion.chunk", choices=choices, usage=usage)


_MESSAGE: Final = {"role": "assistant", "content": "The sea is wide. " * 12, "refusal": None}
COMPLETION: Final = _document(
    "chat.completion", choices=_choice("stop", message=_MESSAGE), usage=_USAGE
)
"""The document of the unary response."""
WHOLE: Final = (
    _head("content-type: application/json", f"content-length: {len(COMPLETION)}") + COMPLETION
)
"""The unary response."""

STREAM_HEAD: Final = _head("content-type: text/event-stream", "transfer-encoding: chunked")
_WORDS: Final = [_chunk(_choice(delta={"content": f" {word}"})) for word in ("the", "sea", "is")]
DOCUMENTS: Final = (
    _chunk(_choice(delta={"role": "assistant", "content": ""})),
    *(_WORDS[index % len(_WORDS)] for index in range(TOKENS)),
    _chunk(_choice("stop", delta={})),
    _chunk([], _USAGE),
)
"""The documents of the chunks of a stream."""
PARTS: Final = (
    *map(_part, DOCUMENTS[:-1]),
    _part(DOCUMENTS[-1]) + _part(b"[DONE]") + _LAST_PART,
)
"""The stream, a part for each chunk."""
BURST: Final = STREAM_HEAD + b"".join(PARTS)


class Connection(asyncio.Protocol):
    """One connection, and the response that it is in."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        while (head := received.find(b"\r\n\r\n")) >= 0:
            body = head + 4
            if length := _LENGTH.search(received, 0, body):
                end = body + int(length[1])
                if len(received) < end:
                    return
            else:  # in parts
                last = received.find(_LAST_PART, body)
                if last < 0:
                    return
                end = last + len(_LAST_PART)
            data = bytes(received[body:end])
            self.answer(data, streamed=_STREAMED.search(data) is not None)
            del received[:end]

    def answer(self, body: bytes, *, streamed: bool) -> None:
        """Answer a request."""
        if not streamed:
            self.write(WHOLE)
        elif pace := _PACED.search(body):
            self.write(STREAM_HEAD)
            self._next(0, int(pace[2]) / 1e3, endless=pace[1] == b"held")
        else:
            self.write(BURST)

    def _next(self, index: int, gap: float, *, endless: bool) -> None:
        self.write(PARTS[index % TOKENS] if endless else PARTS[index])
        if endless or index + 1 < CHUNKS:
            self._timer = self.loop.call_later(
                gap, lambda: self._next(index + 1, gap, endless=endless)
            )

    def write(self, data: bytes) -> None:
        """Send bytes, unless the client has left."""
        if self._transport is not None:
            self._transport.write(data)


async def serve() -> None:
    """Print the port, and serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
