"""Complete responses other than the requested completion."""

import gzip
import zlib

from service.simulator.error_objects import error_body
from service.simulator.exchange import JSON, Headers
from service.simulator.faults.fault import Fault, Play, Player, plays
from service.simulator.response_documents import encode
from service.simulator.streaming import send_bytes

INTERNAL_DETAILS = ("gpu-7.internal.upstream.example", "org-simulated123", "sk-simulated-456")
"""The secrets in the message of `400-internal-details`: a host, an organization and a key."""
REDIRECT_TARGET = "http://elsewhere.invalid/v1/chat/completions"
"""The default location of `redirect`."""

_HTML = b"<!doctype html><html><body><h1>It works!</h1></body></html>"
_PIECE = 64 * 1024
_MEBIBYTE = 1024 * 1024

FAULTS: list[Fault] = []


def _answer(status: int, body: bytes, *, content_type: str = JSON, headers: Headers = ()) -> Player:
    """Return a function that sends this response to any request."""

    async def play(play: Play) -> None:
        play.exchange.reply(status, body, content_type=content_type, headers=headers)

    return play


def _error(status: int, message: str, kind: str, code: str | int | None = None) -> Player:
    return _answer(status, error_body(message, kind=kind, code=code))


def _retry_after(status: int, message: str, kind: str, code: str) -> Player:
    """Return a function that sends an error whose Retry-After is the fault's value."""

    async def play(play: Play) -> None:
        seconds = f"{play.number(1, highest=1_000_000):g}"
        play.exchange.reply(
            status,
            error_body(message, kind=kind, code=code),
            headers=[("retry-after", seconds)],
        )

    return play


@plays(FAULTS, "redirect", "any", "redirect to elsewhere")
async def _redirect(play: Play) -> None:
    """Return 307 with the location <value> (an address that does not resolve)."""
    target = play.value or REDIRECT_TARGET
    if not target.isascii() or not target.isprintable():
        play.refuse("The value of this fault is an address.")
    play.exchange.reply(307, b"", headers=[("location", target)])


@plays(FAULTS, "huge-error-body", "any", "100 MB error body")
async def _huge_error_body(play: Play) -> None:
    """Return 500 with an error object of <value> bytes (100 MiB)."""
    size = int(play.number(100 * _MEBIBYTE))
    play.exchange.head(500, content_type=JSON)
    play.exchange.body(b'{"error":{"type":"server_error","param":null,"code":null,"message":"')
    await send_bytes(play.exchange, b"x" * _PIECE, max(1, size // _PIECE))
    play.exchange.body(b'"}}')
    play.exchange.end()


@plays(FAULTS, "huge-body", "unary", "unary: 64 MB body")
async def _huge_body(play: Play) -> None:
    """Return a valid completion of <value> bytes (64 MiB)."""
    size = int(play.number(64 * _MEBIBYTE))
    document = play.document()
    content = document["choices"][0]["message"]["content"] = "simulated"
    before, _, after = encode(document).partition(content.encode())
    play.exchange.head(content_type=JSON)
    play.exchange.body(before)
    await send_bytes(play.exchange, b"x" * _PIECE, max(1, size // _PIECE))
    play.exchange.body(after)
    play.exchange.end()


@plays(FAULTS, "gzip", "unary", "gzip unasked")
async def _gzip(play: Play) -> None:
    """Send a valid response with compression that the request did not ask for."""
    play.exchange.reply(
        200,
        gzip.compress(encode(play.document()), mtime=0),
        headers=[("content-encoding", "gzip")],
    )


@plays(FAULTS, "gzip-bomb", "any", "gzip bomb")
async def _gzip_bomb(play: Play) -> None:
    """Send <value> MiB (256) of white space and a response, compressed a thousandfold."""
    mebibytes = int(play.number(256, lowest=1, highest=65_536))
    plain = b" " * _MEBIBYTE
    body = encode(play.document())
    # After a full flush, the deflated bytes do not depend on earlier ones: one block is repeated.
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


@plays(FAULTS, "early-hints", "unary", "informational status")
async def _early_hints(play: Play) -> None:
    """Send 103 before a valid response."""
    play.exchange.raw(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
    play.exchange.reply(200, encode(play.document()))


@plays(FAULTS, "vendor-headers", "unary", "headers that stay inside")
async def _vendor_headers(play: Play) -> None:
    """Send a valid response with the upstream's cookies, limits and ids."""
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


@plays(FAULTS, "json-instead-of-stream", "stream", "JSON instead of a stream")
async def _surplus_unary_answer(play: Play) -> None:
    """Send a unary completion for a streaming request."""
    play.exchange.reply(200, encode(play.document()))


_OVERLOADED = "The server is overloaded."
_SLOW_DOWN = "Rate limit reached for requests."

_STATUSES: tuple[tuple[str, str, Player], ...] = (
    # name, catalogue item, answer
    ("500", "500", _error(500, "The server had an error.", "server_error")),
    (
        "502",
        "502",
        _answer(502, b"<html><h1>502 Bad Gateway</h1></html>", content_type="text/html"),
    ),
    ("503", "503", _error(503, _OVERLOADED, "service_unavailable_error")),
    (
        "504",
        "504",
        _answer(504, b"<html><h1>504 Gateway Time-out</h1></html>", content_type="text/html"),
    ),
    (
        "503-retry-after",
        "503 with Retry-After",
        _retry_after(503, _OVERLOADED, "service_unavailable_error", "overloaded"),
    ),
    ("429", "429", _error(429, _SLOW_DOWN, "requests", "rate_limit_exceeded")),
    (
        "429-retry-after",
        "429 with Retry-After",
        _retry_after(429, _SLOW_DOWN, "requests", "rate_limit_exceeded"),
    ),
    (
        "429-retry-after-date",
        "429 with Retry-After",
        _answer(
            429,
            error_body(_SLOW_DOWN, kind="requests", code="rate_limit_exceeded"),
            headers=[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")],
        ),
    ),
    (
        "429-retry-after-garbage",
        "429 with Retry-After",
        _answer(
            429,
            error_body(_SLOW_DOWN, kind="requests", code="rate_limit_exceeded"),
            headers=[("retry-after", "soon")],
        ),
    ),
    (
        "429-quota",
        "429",
        _error(429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
    ),
    (
        "401",
        "401 for our key",
        _error(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    ),
    (
        "402",
        "402 for our account",
        _error(402, "Insufficient credits.", "insufficient_quota", "insufficient_credits"),
    ),
    (
        "403",
        "403 for our key",
        _error(403, "You have no access.", "invalid_request_error", "permission_denied"),
    ),
    (
        "400",
        "400",
        _answer(
            400,
            error_body(
                "Invalid value for 'temperature'.", param="temperature", code="invalid_value"
            ),
        ),
    ),
    ("400-integer-code", "400", _error(400, "The prompt is too long.", "BadRequestError", 400)),
    (
        "400-flat",
        "400",
        _answer(
            400,
            b'{"object":"error","message":"The prompt is too long.",'
            b'"type":"BadRequestError","param":null,"code":400}',
        ),
    ),
    ("400-text", "400", _answer(400, b"Bad Request", content_type="text/plain")),
    ("400-empty", "400", _answer(400, b"")),
    (
        "400-odd-members",
        "400",
        _answer(400, b'{"error":{"message":["a","list"],"type":7,"param":{"p":1},"code":true}}'),
    ),
    (
        "400-internal-details",
        "400",
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
        _error(404, "The model does not exist.", "invalid_request_error", "model_not_found"),
    ),
    (
        "422",
        "422",
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
        _answer(
            422, b'{"detail":[{"loc":["body","messages"],"msg":"Field required","type":"missing"}]}'
        ),
    ),
    ("200-html", "200 with HTML", _answer(200, _HTML, content_type="text/html")),
    ("200-empty", "unary: empty", _answer(200, b"")),
    ("200-text", "unary: no JSON", _answer(200, b'{"id')),
    ("200-array", "unary: JSON array", _answer(200, b"[]")),
    ("200-null", "unary: JSON null", _answer(200, b"null")),
    ("200-error", "unary: error in a 200", _error(200, "The server had an error.", "server_error")),
    (
        "200-deep",
        "unary: deep JSON",
        _answer(200, b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ),
    ("204", "204", _answer(204, b"")),
)
FAULTS += [
    Fault(name=name, form="any", covers=covers, play=play) for name, covers, play in _STATUSES
]
