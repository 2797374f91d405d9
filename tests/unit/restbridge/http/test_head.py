import pytest

from restbridge.http.head import BadHeadError, Head
from restbridge.http.limits import Limits

LIMITS = Limits(head_bytes=1000, headers=5)
HOST = (b"Host", b"a.example:80")
CHUNKED = (b"Transfer-Encoding", b"chunked")


def check(*headers: tuple[bytes, bytes], version: str = "1.1") -> None:
    head = Head(LIMITS)
    head.line(b"/")
    for name, value in headers:
        head.header(name, value)
    head.complete(version)


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ([HOST], "1.1"),
        ([(b"hOsT", b"")], "1.1"),
        ([(b"Host", b"[::1]:8080")], "1.1"),
        ([], "1.0"),
        ([HOST], "1.0"),
        ([HOST, CHUNKED], "1.1"),
        ([HOST, (b"transfer-encoding", b" Chunked ")], "1.1"),
    ],
)
def test_a_proper_head_passes(headers: list[tuple[bytes, bytes]], version: str) -> None:
    check(*headers, version=version)


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ([], "1.1"),
        ([HOST, HOST], "1.1"),
        ([HOST, HOST], "1.0"),
        ([(b"Host", b"a/b")], "1.1"),
        ([(b"Host", b"a b")], "1.1"),
        ([(b"Host", b"a@b")], "1.1"),
        ([(b"Host", b"\xff")], "1.1"),
        ([HOST], "0.9"),
        ([HOST], "2.0"),
        ([HOST, CHUNKED], "1.0"),
        ([HOST, CHUNKED, CHUNKED], "1.1"),
        ([HOST, (b"Transfer-Encoding", b"gzip, chunked")], "1.1"),
        ([HOST, (b"Transfer-Encoding", b"identity")], "1.1"),
        ([HOST, (b"Transfer-Encoding", b"")], "1.1"),
    ],
)
def test_an_ambiguous_head_is_400(headers: list[tuple[bytes, bytes]], version: str) -> None:
    with pytest.raises(BadHeadError) as caught:
        check(*headers, version=version)
    assert (caught.value.failure.status, caught.value.failure.closes) == (400, True)


@pytest.mark.parametrize(
    "headers",
    [
        [HOST, (b"x", b"a" * 1000)],
        [HOST, (b"x" * 1000, b"a")],
        [HOST, *[(b"x", b"a" * 240)] * 4],
        [HOST, *[(b"x", b"a")] * 5],
    ],
)
def test_too_long_a_head_is_431(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadHeadError) as caught:
        check(*headers)
    assert caught.value.failure.status == 431


def test_a_long_request_line_is_431() -> None:
    head = Head(LIMITS)
    head.line(b"/" + b"a" * 500)
    with pytest.raises(BadHeadError):
        head.line(b"a" * 500)


def test_what_never_becomes_a_header_is_431() -> None:
    head = Head(LIMITS)
    assert not head.has_begun
    head.unfinished(1000)
    assert head.has_begun
    with pytest.raises(BadHeadError) as caught:
        head.unfinished(1)
    assert caught.value.failure.status == 431
