from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from service import errors
from service.upstream.error_bodies import ErrorBody
from service.upstream.error_reasons import ErrorObject
from service.upstream.refusals import (
    bare_account_fault,
    failure,
    failure_in_success,
    retry_after,
    status_of,
)
from service.upstream_report import UpstreamReport
from tests.support.samples import MODEL, UPSTREAM_KEY

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
SAID = ErrorObject(message="The prompt is bad.", type="their_type", param="messages", code="bad")

# status: the failure, whether the upstream's text is forwarded, its wait, whether dispatched
TABLE: dict[int, tuple[type[errors.Failure], bool, bool, bool]] = {
    400: (errors.InvalidRequest, True, False, True),
    401: (errors.UpstreamAccount, False, False, True),
    402: (errors.UpstreamAccount, False, False, True),
    403: (errors.UpstreamAccount, False, False, True),
    404: (errors.InvalidRequest, True, False, True),
    408: (errors.UpstreamTimeout, False, False, True),
    409: (errors.InvalidRequest, True, False, True),
    412: (errors.UpstreamAccount, False, False, True),
    413: (errors.RequestTooLarge, False, False, True),
    422: (errors.InvalidRequest, True, False, True),
    429: (errors.UpstreamRateLimited, False, True, False),
    503: (errors.UpstreamUnavailable, False, True, False),
    529: (errors.UpstreamUnavailable, False, True, False),
}
HTTP = {400: 400, 404: 404, 409: 422, 422: 422}
"""The HTTP status of the caller, if the upstream blames the caller."""
BUSY = "The model provider is overloaded or loads the model. Try again later."
BROKEN = "The model provider failed: The prompt is bad."


def expected(status: int) -> tuple[type[errors.Failure], bool, bool, bool]:
    if status < 400:
        return (errors.UpstreamInvalidResponse, False, False, True)
    return TABLE.get(status, (errors.UpstreamError, False, False, True))


def test_every_status_becomes_what_the_table_says() -> None:
    for status in (*range(100, 600), 0, -1, 600, 999):
        kind, words, waits, dispatched = expected(status)
        found = failure(status, ErrorBody(error=SAID, texts=(SAID.message,)), 7.0, MODEL)

        assert type(found) is kind, status
        ours = {500: BROKEN, 503: BUSY, 529: BUSY}.get(status, kind.default_message)
        assert found.message == ("The prompt is bad." if words else ours)
        assert (found.kind, found.param, found.code) == (
            ("their_type", "messages", "bad") if words else (None, None, None)
        )
        assert found.retry_after == (7.0 if waits else None)
        assert found.dispatched is dispatched
        assert found.http_status == HTTP.get(status)


@pytest.mark.parametrize("status", [200, 400, 404, 418, 422, 429, 500, 503])
def test_a_fault_of_our_account_is_told_by_its_names(status: int) -> None:
    said = ErrorObject(message="Pay!", type="their_type", code="insufficient_quota")
    body = ErrorBody(error=said, names=("insufficient_quota", "their_type"), texts=("Pay!",))
    found = failure(status, body, 7.0, MODEL)

    assert isinstance(found, errors.UpstreamAccount)
    assert found.message == found.default_message
    assert (found.kind, found.param, found.code, found.retry_after) == (None, None, None, None)
    assert found.dispatched
    assert not found.retryable
    assert found.report == UpstreamReport(
        cause="account", names=("insufficient_quota", "their_type")
    )


@pytest.mark.parametrize(
    ("names", "logged"),
    [
        (("a_b", "A.b-c", "INVALID_ARGUMENT", "400"), ("a_b", "A.b-c", "INVALID_ARGUMENT", "400")),
        (("1113", "Model.AccessDenied", "1113"), ("1113", "Model.AccessDenied")),
        (("a", "b", "c", "d", "e"), ("a", "b", "c", "d")),
        ((UPSTREAM_KEY, UPSTREAM_KEY.upper(), f"x-{UPSTREAM_KEY}"), ()),
        (("sk-abcdefgh", "sk-ab*yz", "org-abcdefgh", "Bearer abc", "vllm.example"), ()),
        (("vendor/gemma", "a b", "a\nb", "", "né", "1234567", "a1b2c3d4e5", "{}"), ()),
        (("a-12345", "eyJhbGciOiJIUzI1NiJ9.eyJz"), ()),
    ],
)
def test_only_names_without_secrets_are_for_the_log(
    names: tuple[str, ...], logged: tuple[str, ...]
) -> None:
    found = failure(401, ErrorBody(names=names), None, MODEL)

    assert found.report == UpstreamReport(cause="account", names=logged)


FAULT = ErrorBody(names=("insufficient_quota",), texts=("Pay!",))


def test_a_success_that_reports_a_failure_is_one() -> None:
    for body, kind in (
        (ErrorBody(error=ErrorObject(message="No.", code=429)), errors.UpstreamRateLimited),
        (ErrorBody(error=ErrorObject(message="No.")), errors.UpstreamError),
        (ErrorBody(error=ErrorObject(message="No.", code=402)), errors.UpstreamAccount),
        (FAULT, errors.UpstreamAccount),
    ):
        found = failure_in_success(body, MODEL)
        assert type(found) is kind
    assert failure_in_success(None, MODEL) is None
    assert failure_in_success(ErrorBody(names=("x",), texts=("No.",)), MODEL) is None


def test_of_a_chunk_without_an_error_only_an_account_fault_is_read() -> None:
    assert type(bare_account_fault(FAULT, MODEL)) is errors.UpstreamAccount
    for body in (None, ErrorBody(), ErrorBody(error=ErrorObject(message="Hi.", code=429))):
        assert bare_account_fault(body, MODEL) is None


@pytest.mark.parametrize("status", TABLE)
@pytest.mark.parametrize("body", [None, ErrorBody(), ErrorBody(error=ErrorObject())])
def test_an_upstream_that_says_nothing_gets_our_words(status: int, body: ErrorBody | None) -> None:
    found = failure(status, body, None, MODEL)

    ours = {404: "The model provider does not have this model.", 503: BUSY, 529: BUSY}
    assert found.message == ours.get(status, type(found).default_message)
    assert (found.kind, found.param, found.code) == (None, None, None)


def test_a_numeric_code_is_passed_on_as_a_number() -> None:
    body = ErrorBody(error=ErrorObject(message="No.", code=40013))

    assert failure(400, body, None, MODEL).code == 40013


def test_all_that_is_passed_on_is_scrubbed() -> None:
    secret = f"at {UPSTREAM_KEY}"
    error = ErrorObject(message=secret, type=secret, param=secret, code=secret)
    found = failure(422, ErrorBody(error=error), None, MODEL)

    assert (found.message, found.kind, found.param, found.code) == ("at [redacted]",) * 4


DATE = format_datetime(NOW + timedelta(seconds=30), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "121"}, 120.0),
        ({"retry-after": "1e300"}, 120.0),
        ({"retry-after": "0"}, 0.001),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0.1"}, 0.001),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after": DATE}, 30.0),
        ({"retry-after": "Sat, 31 Jan 2026 12:00:30"}, 30.0),
        ({"retry-after": "Sat, 31 Jan 2026 13:00:30 +0100"}, 30.0),
        ({"retry-after": "Sat, 31 Jan 2026 11:00:00 GMT"}, 0.001),
        ({"retry-after": "Sat, 31 Jan 2099 11:00:00 GMT"}, 120.0),
        *(
            ({"retry-after": garbage}, None)
            for garbage in (
                *("", " ", "soon", "-1", "-0.001", "nan", "inf", "-inf", "1e400", "1,2", "0x10"),
                *("2 s", "Sat", "31 Jan", "Sat, 31 Feb 2026 12:00:00 GMT", "9" * 5000),
                "Sat, 31 Jan 99999999999999 12:00:00 GMT",
                "Sat, 31 Jan 2026 12:00:00 +99999999999999999999",
                "Sat, 31 Jan 2026 99:99:99 GMT",
                "\x00\r\n",
            )
        ),
    ],
)
def test_the_wait_that_headers_ask_for(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(headers, NOW) == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ErrorObject(code=404), 404),
        (ErrorObject(code=429), 429),
        (ErrorObject(code=599), 599),
        (ErrorObject(code=399), 500),
        (ErrorObject(code=600), 500),
        (ErrorObject(code=-400), 500),
        (ErrorObject(code="400"), 400),
        (ErrorObject(code="503"), 503),
        (ErrorObject(code="0400"), 500),
        (ErrorObject(code="200"), 500),
        (ErrorObject(code="context_length_exceeded"), 400),
        (ErrorObject(code="other", type="rate_limit_error"), 429),
        (ErrorObject(code="other", type="another"), 500),
        (ErrorObject(type="BadRequestError"), 400),
        (ErrorObject(type="invalid_request_error", code=503), 503),
        (ErrorObject(members={"status": "UNAVAILABLE"}), 503),
        (ErrorObject(members={"status": 429}), 429),
        (ErrorObject(members={"status_code": "422"}, type="overloaded_error"), 422),
        (ErrorObject(members={"status": [400], "status_code": True}), 500),
        (ErrorObject(code="\u0664\u0660\u0660"), 500),
        (ErrorObject(code="²00"), 500),
        (ErrorObject(), 500),
    ],
)
def test_the_status_that_an_error_object_tells(error: ErrorObject, status: int) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("status", "names", "refuses"),
    [
        (401, (), True),
        (402, (), True),
        (403, (), True),
        (429, ("insufficient_quota",), True),
        (400, ("API_KEY_INVALID",), True),
        (429, (), False),
        # Some work may have been done.
        (500, ("insufficient_quota",), False),
    ],
)
def test_a_refused_key_is_one_for_which_no_work_was_done(
    status: int, names: tuple[str, ...], refuses: bool
) -> None:
    assert failure(status, ErrorBody(names=names), None, MODEL).refuses_key is refuses
