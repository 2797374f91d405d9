"""Whole answers that are not the completion that was asked for."""

import gzip
import zlib
from collections.abc import Awaitable, Callable

from service.simulator.error_objects import error_body
from service.simulator.exchange import JSON, Headers
from service.simulator.faults.fault import Fault, Play
from service.simulator.response_documents import encode
from service.simulator.streaming import send_bytes

INTERNAL_DETAILS = ("gpu-7.internal.upstream.example", "org-simulated123", "sk-simulated-456")
"""What the message of `400-internal-details` gives away: a host, an organisation and a key."""
REDIRECT_TARGET = "http://elsewhere.invalid/v1/chat/completions"
"""Where `redirect` without a value sends its caller."""

_HTML = b"<!doctype html><html><body><h1>It works!</h1></body></html>"
_PIECE = 64 * 1024
_MEBIBYTE = 1024 * 1024

_Player = Callable[[Play], Awaitable[None]]


def _answer(
    status: int, body: bytes, *, content_type: str = JSON, headers: Headers = ()
) -> _Player:
    """Plays this answer, whatever was asked."""

    async def play(play: Play) -> None:
        play.exchange.reply(status, body, content_type=content_type, headers=headers)

    return play


def _error(status: int, message: str, kind: str, code: str | int | None = None) -> _Player:
    return _answer(status, error_body(message, kind=kind, code=code))


def _retry_after(status: int, message: str, kind: str, code: str) -> _Player:
    """Plays an error whose Retry-After is the fault's value."""

    async def play(play: Play) -> None:
        seconds = f"{play.number(1, highest=1_000_000):g}"
        play.exchange.reply(
            status,
            error_body(message, kind=kind, code=code),
            headers=[("retry-after", seconds)],
        )

    return play


async def _redirect(play: Play) -> None:
    target = play.value or REDIRECT_TARGET
    if not target.isascii() or not target.isprintable():
        play.refuse("The value of this fault is an address.")
    play.exchange.reply(307, b"", headers=[("location", target)])


async def _huge_error_body(play: Play) -> None:
    size = int(play.number(100 * _MEBIBYTE))
    play.exchange.head(500, content_type=JSON)
    play.exchange.body(b'{"error":{"type":"server_error","param":null,"code":null,"message":"')
    await send_bytes(play.exchange, b"x" * _PIECE, max(1, size // _PIECE))
    play.exchange.body(b'"}}')
    play.exchange.end()


async def _huge_body(play: Play) -> None:
    size = int(play.number(64 * _MEBIBYTE))
    document = play.document()
    content = document["choices"][0]["message"]["content"] = "simulated"
    before, _, after = encode(document).partition(content.encode())
    play.exchange.head(content_type=JSON)
    play.exchange.body(before)
    await send_bytes(play.exchange, b"x" * _PIECE, max(1, size // _PIECE))
    play.exchange.body(after)
    play.exchange.end()


async def _gzip(play: Play) -> None:
    play.exchange.reply(
        200,
        gzip.compress(encode(play.document()), mtime=0),
        headers=[("content-encoding", "gzip")],
    )


async def _gzip_bomb(play: Play) -> None:
    mebibytes = int(play.number(256, lowest=1, highest=65_536))
    plain = b" " * _MEBIBYTE
    body = encode(play.document())
    # After a full flush the deflated bytes depend on nothing before them: one block serves for all.
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(plain) + deflate.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    play.exchange.head(content_type=JSON, headers=[("content-encoding", "gzip")])
    play.exchange.body(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
    for _ in range(mebibytes):
        checksum = zlib.crc32(plain, checksum)
        await send_bytes(play.exchange, block, 1)
    size = (mebibytes * _MEBIBYTE + len(body)) % 2**32
    tail = zlib.crc32(body, checksum).to_bytes(4, "little") + size.to_bytes(4, "little")
    play.exchange.body(deflate.compress(body) + deflate.flush() + tail)
    play.exchange.end()


async def _early_hints(play: Play) -> None:
    play.exchange.raw(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
    play.exchange.reply(200, encode(play.document()))


async def _vendor_headers(play: Play) -> None:
    play.exchange.reply(
        200,
        encode(play.document()),
        headers=[
            ("x-request-id", "req_of_the_upstream"),
            ("openai-organization", INTERNAL_DETAILS[1]),
            ("openai-processing-ms", "12"),
            ("x-ratelimit-limit-requests", "7"),
            ("x-ratelimit-remaining-requests", "6"),
            ("set-cookie", "session=of-the-upstream; Path=/"),
            ("alt-svc", 'h3=":443"'),
            ("access-control-allow-origin", "*"),
            ("via", f"1.1 {INTERNAL_DETAILS[0]}"),
        ],
    )


async def _surplus_unary_answer(play: Play) -> None:
    play.exchange.reply(200, encode(play.document()))


_OVERLOADED = "The server is overloaded."
_SLOW_DOWN = "Rate limit reached for requests."

_STATUSES: tuple[tuple[str, str, str, _Player], ...] = (
    # name, catalogue item, sentence, answer
    (
        "500",
        "500",
        "Answers 500 with an OpenAI error object.",
        _error(500, "The server had an error.", "server_error"),
    ),
    (
        "502",
        "502",
        "Answers 502 as a proxy does, with HTML.",
        _answer(502, b"<html><h1>502 Bad Gateway</h1></html>", content_type="text/html"),
    ),
    (
        "503",
        "503",
        "Answers 503 without Retry-After.",
        _error(503, _OVERLOADED, "service_unavailable_error"),
    ),
    (
        "504",
        "504",
        "Answers 504 as a proxy does, with HTML.",
        _answer(504, b"<html><h1>504 Gateway Time-out</h1></html>", content_type="text/html"),
    ),
    (
        "503-retry-after",
        "503 with Retry-After",
        "Answers 503 with Retry-After of <value> seconds (1).",
        _retry_after(503, _OVERLOADED, "service_unavailable_error", "overloaded"),
    ),
    (
        "429",
        "429",
        "Answers 429 without Retry-After.",
        _error(429, _SLOW_DOWN, "requests", "rate_limit_exceeded"),
    ),
    (
        "429-retry-after",
        "429 with Retry-After",
        "Answers 429 with Retry-After of <value> seconds (1).",
        _retry_after(429, _SLOW_DOWN, "requests", "rate_limit_exceeded"),
    ),
    (
        "429-retry-after-date",
        "429 with Retry-After",
        "Answers 429 with Retry-After as a date that has passed.",
        _answer(
            429,
            error_body(_SLOW_DOWN, kind="requests", code="rate_limit_exceeded"),
            headers=[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")],
        ),
    ),
    (
        "429-retry-after-garbage",
        "429 with Retry-After",
        "Answers 429 with a Retry-After that is neither seconds nor a date.",
        _answer(
            429,
            error_body(_SLOW_DOWN, kind="requests", code="rate_limit_exceeded"),
            headers=[("retry-after", "soon")],
        ),
    ),
    (
        "429-quota",
        "429",
        "Answers 429 because the account has no quota left.",
        _error(429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
    ),
    (
        "401",
        "401 for our key",
        "Answers 401 as if the key were wrong.",
        _error(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    ),
    (
        "402",
        "402 for our account",
        "Answers 402 as if the account were empty.",
        _error(402, "Insufficient credits.", "insufficient_quota", "insufficient_credits"),
    ),
    (
        "403",
        "403 for our key",
        "Answers 403 as if the key might not use the model.",
        _error(403, "You have no access.", "invalid_request_error", "permission_denied"),
    ),
    (
        "400",
        "400",
        "Answers 400 with an OpenAI error object that names a parameter.",
        _answer(
            400,
            error_body(
                "Invalid value for 'temperature'.", param="temperature", code="invalid_value"
            ),
        ),
    ),
    (
        "400-integer-code",
        "400",
        "Answers 400 with an error object whose code is a number, as vLLM does.",
        _error(400, "The prompt is too long.", "BadRequestError", 400),
    ),
    (
        "400-flat",
        "400",
        "Answers 400 with the error's members at the top level, as older vLLM does.",
        _answer(
            400,
            b'{"object":"error","message":"The prompt is too long.",'
            b'"type":"BadRequestError","param":null,"code":400}',
        ),
    ),
    (
        "400-text",
        "400",
        "Answers 400 with plain text.",
        _answer(400, b"Bad Request", content_type="text/plain"),
    ),
    ("400-empty", "400", "Answers 400 without a body.", _answer(400, b"")),
    (
        "400-odd-members",
        "400",
        "Answers 400 with an error object whose members have unusual types.",
        _answer(400, b'{"error":{"message":["a","list"],"type":7,"param":{"p":1},"code":true}}'),
    ),
    (
        "400-internal-details",
        "400",
        "Answers 400 with a message that names an internal host, an organisation and a key.",
        _error(
            400,
            f"Request to https://{INTERNAL_DETAILS[0]}:8443/v1 of {INTERNAL_DETAILS[1]} with key "
            f"{INTERNAL_DETAILS[2]} failed: the prompt is too long.",
            "invalid_request_error",
            "context_length_exceeded",
        ),
    ),
    (
        "404",
        "404",
        "Answers 404 as if the model were unknown.",
        _error(404, "The model does not exist.", "invalid_request_error", "model_not_found"),
    ),
    (
        "422",
        "422",
        "Answers 422 with an OpenAI error object.",
        _answer(
            422,
            error_body(
                "Input should be a string.", param="messages[0].content", code="string_type"
            ),
        ),
    ),
    (
        "422-detail",
        "422",
        "Answers 422 with FastAPI's detail instead of an error object.",
        _answer(
            422,
            b'{"detail":[{"loc":["body","messages"],"msg":"Field required","type":"missing"}]}',
        ),
    ),
    (
        "200-html",
        "200 with HTML",
        "Answers 200 with an HTML page.",
        _answer(200, _HTML, content_type="text/html"),
    ),
    ("200-empty", "unary: empty", "Answers 200 with an empty body.", _answer(200, b"")),
    ("200-text", "unary: no JSON", "Answers 200 with a body cut from JSON.", _answer(200, b'{"id')),
    ("200-array", "unary: JSON array", "Answers 200 with a JSON array.", _answer(200, b"[]")),
    ("200-null", "unary: JSON null", "Answers 200 with JSON's null.", _answer(200, b"null")),
    (
        "200-error",
        "unary: error in a 200",
        "Answers 200 with an OpenAI error object.",
        _error(200, "The server had an error.", "server_error"),
    ),
    (
        "200-deep",
        "unary: deep JSON",
        "Answers 200 with 100,000 arrays in one another.",
        _answer(200, b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ),
    ("204", "204", "Answers 204, which has no body.", _answer(204, b"")),
)

FAULTS = (
    *(
        Fault(name=name, form="any", covers=covers, sentence=sentence, play=play)
        for name, covers, sentence, play in _STATUSES
    ),
    Fault(
        name="redirect",
        form="any",
        covers="redirect to elsewhere",
        sentence="Answers 307 with the location <value> (an address that does not resolve).",
        play=_redirect,
    ),
    Fault(
        name="huge-error-body",
        form="any",
        covers="100 MB error body",
        sentence="Answers 500 with an error object of <value> bytes (100 MiB).",
        play=_huge_error_body,
    ),
    Fault(
        name="huge-body",
        form="unary",
        covers="unary: 64 MB body",
        sentence="Answers with a valid completion of <value> bytes (64 MiB).",
        play=_huge_body,
    ),
    Fault(
        name="gzip",
        form="unary",
        covers="gzip unasked",
        sentence="Compresses a sound answer although nobody asked for it.",
        play=_gzip,
    ),
    Fault(
        name="gzip-bomb",
        form="any",
        covers="gzip bomb",
        sentence="Sends <value> MiB (256) of white space and an answer, compressed a thousandfold.",
        play=_gzip_bomb,
    ),
    Fault(
        name="early-hints",
        form="unary",
        covers="informational status",
        sentence="Sends 103 before a sound answer.",
        play=_early_hints,
    ),
    Fault(
        name="vendor-headers",
        form="unary",
        covers="headers that stay inside",
        sentence="Sends a sound answer with cookies, limits and identities of the upstream.",
        play=_vendor_headers,
    ),
    Fault(
        name="json-instead-of-stream",
        form="stream",
        covers="JSON instead of a stream",
        sentence="Answers a streaming request with a unary completion.",
        play=_surplus_unary_answer,
    ),
)
