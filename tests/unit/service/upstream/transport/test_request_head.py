import httpx
import pytest

from service.upstream.transport import request_head

HEADERS = [(b"Host", b"h"), (b"content-length", b"2"), (b"x", b"")]


def test_a_head_is_written() -> None:
    head, chunked = request_head.write(request_head.begin("POST", b"/v1?a=b"), HEADERS, b"{}")
    assert head == b"POST /v1?a=b HTTP/1.1\r\nHost: h\r\ncontent-length: 2\r\nx: \r\n\r\n"
    assert not chunked


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
def test_chunks_are_known_by_their_header(coding: bytes) -> None:
    assert request_head.write(
        request_head.begin("POST", b"/"), [(b"Transfer-Encoding", coding)], b"{}"
    )[1]


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("", b"/", []),
        ("A B", b"/", []),
        ("GET\r\n", b"/", []),
        ("G\xc9T", b"/", []),
        ("GET", b"", []),
        ("GET", b"/ HTTP/1.1\r\nx: y", []),
        ("GET", b"/a b", []),
        ("GET", b"/\x00", []),
        ("GET", b"/\xe9", []),
        ("GET", b"/", [(b"", b"x")]),
        ("GET", b"/", [(b"a b", b"x")]),
        ("GET", b"/", [(b"a:", b"x")]),
        ("GET", b"/", [(b"a\r\n", b"x")]),
        ("GET", b"/", [(b"a", b"x\r\ny: z")]),
        ("GET", b"/", [(b"a", b"x\r\n y")]),
        ("GET", b"/", [(b"a", b"x\n")]),
        ("GET", b"/", [(b"a", b"\r")]),
        ("GET", b"/", [(b"a", b"\x00")]),
        ("GET", b"/", [(b"content-length", b"1")]),
        ("GET", b"/", [(b"content-length", b"02")]),
        ("GET", b"/", [(b"content-length", b"2, 2")]),
        ("GET", b"/", [(b"transfer-encoding", b"gzip")]),
        ("GET", b"/", [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")]),
    ],
)
def test_what_would_be_another_request_is_refused(
    method: str, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_head.write(request_head.begin(method, target), headers, b"{}")
    with pytest.raises(httpx.LocalProtocolError):
        request_head.begin(method, target, headers)


def test_headers_that_requests_share_come_first() -> None:
    begun = request_head.begin("POST", b"/", [(b"Host", b"h"), (b"x", b"")])
    head, _ = request_head.write(begun, [(b"content-length", b"2")], b"{}")
    assert head == b"POST / HTTP/1.1\r\nHost: h\r\nx: \r\ncontent-length: 2\r\n\r\n"
