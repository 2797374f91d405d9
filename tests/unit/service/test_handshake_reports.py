"""Lines of gRPC's core -> log lines of failed handshakes; other lines pass."""

import logging
import sys
from typing import Final

import pytest

from process.settings import Address
from process.tls.plaintext import Listener
from service import handshake_reports
from service.handshake_reports import MOST_LINES, Lines, Report, cause

PREFIX: Final = b"I1127 23:05:11.184948   29267 ssl_transport_security.cc:2563] "
SSL: Final = (
    b"Handshake failed with error SSL_ERROR_SSL: error:100000c0:SSL routines:OPENSSL_internal:"
)
NO_CONTEXT: Final = b": Invalid certificate verification context"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (SSL + b"PEER_DID_NOT_RETURN_A_CERTIFICATE" + NO_CONTEXT, "the client has no certificate"),
        (
            SSL + b"CERTIFICATE_VERIFY_FAILED: certificate has expired",
            "the client's certificate is not accepted: certificate has expired",
        ),
        (SSL + b"WRONG_VERSION_NUMBER" + NO_CONTEXT, "the client sent plaintext, not TLS"),
        (SSL + b"NO_SHARED_CIPHER" + NO_CONTEXT, "the client shares no cipher"),
        (SSL + b"BLOCK_CIPHER_PAD_IS_WRONG" + NO_CONTEXT, "block cipher pad is wrong"),
        (b"Handshake failed", None),
        (b"Log level INFO is not suitable for production.", None),
    ],
)
def test_the_cause_is_in_words(line: bytes, why: str | None) -> None:
    assert cause(line) == why


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [getattr(record, "chat_fields") for record in caplog.records]  # noqa: B009


def test_lines_may_arrive_in_pieces(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    others: list[bytes] = []
    lines = Lines(Report(lambda: 0.0), others.append)
    text = PREFIX + SSL + b"NO_SHARED_CIPHER" + NO_CONTEXT + b"\n"
    for piece in (text[:9], text[9:80], text[80:] + text[:5], text[5:]):
        lines.take(piece)
    assert logged(caplog) == [{"why": "the client shares no cipher"}] * 2
    assert not others


def test_only_lines_of_others_and_fatal_ones_pass() -> None:
    others: list[bytes] = []
    lines = Lines(Report(lambda: 0.0), others.append)
    fatal = PREFIX.replace(b"I", b"F", 1) + b"Check failed: is_sound\n"
    lines.take(b"libpq: a notice\n" + PREFIX + b"an event\n" + fatal + b"unfinished")
    assert others == [b"libpq: a notice\n", fatal]


def test_a_second_has_a_limited_number_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 10.0
    report = Report(lambda: now)
    for _ in range(MOST_LINES + 5):
        report.failed("why")
    assert len(caplog.records) == MOST_LINES
    now = 11.0
    report.failed("why")
    report.failed("why")
    assert logged(caplog)[-2:] == [{"why": "why", "unlogged": 5}, {"why": "why"}]


@pytest.mark.parametrize(
    ("has_tls", "level", "expected"),
    [(False, None, None), (True, "INFO", "INFO"), (True, None, "INFO"), (True, "NONE", "INFO")],
)
def test_the_core_writes_only_with_tls_and_if_the_operator_has_not_chosen(
    monkeypatch: pytest.MonkeyPatch, has_tls: bool, level: str | None, expected: str | None
) -> None:
    monkeypatch.delitem(sys.modules, "grpc", raising=False)
    environment = {} if level is None else {"GRPC_VERBOSITY": level}
    listener = Listener(
        setting="CHAT_LISTEN",
        listen=Address("127.0.0.1", 1),
        certificate="CHAT_TLS_CERT_FILE",
        has_tls=has_tls,
    )
    assert handshake_reports.prepare(environment, [listener]) is (has_tls and level != "INFO")
    assert environment.get("GRPC_VERBOSITY") == expected
