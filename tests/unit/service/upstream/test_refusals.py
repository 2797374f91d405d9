import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from chatcompletion.v1.error_pb2 import ApiError
from service import errors
from service.upstream.error_bodies import ErrorBody
from service.upstream.refusals import (
    bare_account_fault,
    failure,
    failure_in_success,
    retry_after,
    scrub,
    status_of,
)
from tests.support.samples import MODEL, UPSTREAM_KEY, model

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
SAID = ApiError(message="The prompt is bad.", type="their_type", param="messages", code_text="bad")

# status: the failure, whether the upstream's text is forwarded, its wait, whether dispatched
TABLE: dict[int, tuple[type[errors.Failure], bool, bool, bool]] = {
    400: (errors.InvalidRequest, True, False, True),
    401: (errors.UpstreamAccount, False, False, True),
    402: (errors.UpstreamAccount, False, False, True),
    403: (errors.UpstreamAccount, False, False, True),
    404: (errors.ModelNotFound, True, False, True),
    408: (errors.UpstreamTimeout, False, False, True),
    409: (errors.InvalidRequest, True, False, True),
    412: (errors.UpstreamAccount, False, False, True),
    413: (errors.RequestTooLarge, False, False, True),
    422: (errors.InvalidRequest, True, False, True),
    429: (errors.UpstreamRateLimited, False, True, False),
    503: (errors.UpstreamError, False, True, True),
}


def expected(status: int) -> tuple[type[errors.Failure], bool, bool, bool]:
    if status < 400:
        return (errors.UpstreamInvalidResponse, False, False, True)
    return TABLE.get(status, (errors.UpstreamError, False, False, True))


def test_every_status_becomes_what_the_table_says() -> None:
    for status in (*range(100, 600), 0, -1, 600, 999):
        kind, words, waits, dispatched = expected(status)
        found = failure(status, ErrorBody(error=SAID), 7.0, MODEL)

        assert type(found) is kind, status
        assert found.message == ("The prompt is bad." if words else kind.default_message)
        assert (found.kind, found.param, found.code) == (
            ("their_type", "messages", "bad") if words else (None, None, None)
        )
        assert found.retry_after == (7.0 if waits else None)
        assert found.dispatched is dispatched


@pytest.mark.parametrize("status", [200, 400, 404, 418, 422, 429, 500, 503])
def test_a_fault_of_our_account_is_told_by_its_names(status: int) -> None:
    said = ApiError(message="Pay!", type="their_type", param=None, code_text="insufficient_quota")
    body = ErrorBody(error=said, names=("insufficient_quota", "their_type"), texts=("Pay!",))
    found = failure(status, body, 7.0, MODEL)

    assert isinstance(found, errors.UpstreamAccount)
    assert found.message == found.default_message
    assert (found.kind, found.param, found.code, found.retry_after) == (None, None, None, None)
    assert found.dispatched
    assert not found.retryable
    assert (found.upstream, found.status) == ("primary", status)
    assert found.names == ("insufficient_quota", "their_type")


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

    assert isinstance(found, errors.UpstreamAccount)
    assert found.names == logged


FAULT = ErrorBody(names=("insufficient_quota",), texts=("Pay!",))


def test_a_success_that_reports_a_failure_is_one() -> None:
    for body, kind in (
        (ErrorBody(error=ApiError(message="No.", code_number=429)), errors.UpstreamRateLimited),
        (ErrorBody(error=ApiError(message="No.")), errors.UpstreamError),
        (ErrorBody(error=ApiError(message="No.", code_number=402)), errors.UpstreamAccount),
        (FAULT, errors.UpstreamAccount),
    ):
        found = failure_in_success(body, MODEL)
        assert type(found) is kind
        assert not isinstance(found, errors.UpstreamAccount) or found.status == 200
    assert failure_in_success(None, MODEL) is None
    assert failure_in_success(ErrorBody(names=("x",), texts=("No.",)), MODEL) is None


def test_of_a_chunk_without_an_error_only_an_account_fault_is_read() -> None:
    assert type(bare_account_fault(FAULT, MODEL)) is errors.UpstreamAccount
    for body in (None, ErrorBody(), ErrorBody(error=ApiError(message="Hi.", code_number=429))):
        assert bare_account_fault(body, MODEL) is None


@pytest.mark.parametrize("status", TABLE)
@pytest.mark.parametrize("body", [None, ErrorBody(), ErrorBody(error=ApiError())])
def test_an_upstream_that_says_nothing_gets_our_words(status: int, body: ErrorBody | None) -> None:
    found = failure(status, body, None, MODEL)

    assert found.message == type(found).default_message
    assert (found.kind, found.param, found.code) == (None, None, None)


def test_a_numeric_code_is_passed_on_as_a_number() -> None:
    body = ErrorBody(error=ApiError(message="No.", code_number=40013))

    assert failure(400, body, None, MODEL).code == 40013


def test_all_that_is_passed_on_is_scrubbed() -> None:
    secret = f"at {UPSTREAM_KEY}"
    error = ApiError(message=secret, type=secret, param=secret, code_text=secret)
    found = failure(422, ErrorBody(error=error), None, MODEL)

    assert (found.message, found.kind, found.param, found.code) == ("at [redacted]",) * 4


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (f"Key {UPSTREAM_KEY}.", "Key [redacted]."),
        (f"<{UPSTREAM_KEY}{UPSTREAM_KEY}>", "<[redacted][redacted]>"),
        ("See https://vllm.example:8443/v1/chat.", "See [redacted]/chat."),
        ("See HTTP://elsewhere.example/?q=1 for help", "See [redacted] for help"),
        ("redis://user:password@cache:6379/0 failed", "[redacted] failed"),
        ("x" * 40 + "https://a.example b", "x" * 14 + "[redacted] b"),
        ("vllm.example is down", "[redacted] is down"),
        ("no worker at gpu-7.prod.svc.cluster.local:8000", "no worker at [redacted]"),
        ("node-1.internal, node-2.internal", "[redacted], [redacted]"),
        ("a.B-c_d.LAN!", "[redacted]!"),
        ("10.0.0.7:8000 refused", "[redacted] refused"),
        ("[fd00:1:2::7]:8000 refused", "[redacted] refused"),
        ("at 2001:db8:0:1:2:3:4:5, twice", "at [redacted], twice"),
        ("gpu-7.prod.cluster timed out", "[redacted] timed out"),
        ("a.local, b.svc, c.corp", "[redacted], [redacted], [redacted]"),
        ("from 192.168.0.1 to 10.1.2.3", "from [redacted] to [redacted]"),
        ("in org-AbCdEf123 or proj_xyz12345", "in [redacted] or [redacted]"),
        ("acct_1234567890, user-abcdefgh", "[redacted], [redacted]"),
        ("key sk-abc_DEF-123 and sk-****1234", "key [redacted] and [redacted]"),
        ("pk-1234 rk-12345 key-abcdef", "[redacted] [redacted] [redacted]"),
        ("Authorization: Bearer abcdef", "Authorization: [redacted]"),
        ("bearer\n  abc", "[redacted]"),
        ("vendor/gemma has 8192 tokens", "default has 8192 tokens"),
    ],
)
def test_what_is_nobodys_business_is_removed(text: str, scrubbed: str) -> None:
    assert scrub(text, MODEL) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "This model's maximum context length is 8192 tokens; you asked for 9000 (1.5 times).",
        "messages[0].content[1].image_url must be a string",
        "'temperature' must be <= 2.0, version 1.2.3",
        "the organization of internal affairs, local time, a monkey-wrench, a disk-full",
        "Ungültig: 温度 😀",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert scrub(text, MODEL) == text


def test_an_upstream_without_key_and_address_has_nothing_to_hide() -> None:
    simulated = model(upstream=type(MODEL.upstream)(name="s", base_url="", api_key=""))

    assert scrub("Hello", simulated) == "Hello"


@pytest.mark.parametrize(
    ("key", "text", "scrubbed"),
    [
        (
            "EMPTY",
            "EMPTY is no key; messages are empty",
            "[redacted] is no key; messages are empty",
        ),
        ("ollama", "ollama, ollama2, my-ollama", "[redacted], ollama2, my-ollama"),
        ("x", "x: max_tokens", "[redacted]: max_tokens"),
        ("a b", "the key a b", "the key [redacted]"),
        ("", "Hello", "Hello"),
    ],
)
def test_a_short_key_is_removed_as_a_word(key: str, text: str, scrubbed: str) -> None:
    upstream = replace(MODEL.upstream, api_key=key)

    assert scrub(text, model(upstream=upstream)) == scrubbed


@pytest.mark.alone
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "a-",
            "a.",
            "a-.",
            ".",
            "-",
            "1.",
            "1.1.1.",
            "sk-",
            "org-",
            "org-a ",
            "bearer ",
            " ",
        ),
        *(
            "a:",
            "a:/",
            "://",
            "x.internal",
            ".internal",
            "http://",
            "é",
            "_",
            "Bearer\t\t",
            "user_",
        ),
    ],
)
def test_the_cost_of_scrubbing_grows_with_the_text_only(unit: str) -> None:
    def cost(size: int) -> float:
        text = (unit * size)[:size] + "\n"
        started = time.process_time()
        scrub(text, MODEL)
        return time.process_time() - started

    # For 16 times the text, a quadratic cost would be 256 times as much: seconds of CPU.
    assert cost(64_000) < 60 * max(min(cost(4_000) for _ in range(3)), 0.0005)


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
        (ApiError(code_number=404), 404),
        (ApiError(code_number=429), 429),
        (ApiError(code_number=599), 599),
        (ApiError(code_number=399), 500),
        (ApiError(code_number=600), 500),
        (ApiError(code_number=-400), 500),
        (ApiError(code_text="400"), 400),
        (ApiError(code_text="503"), 503),
        (ApiError(code_text="0400"), 500),
        (ApiError(code_text="200"), 500),
        (ApiError(code_text="context_length_exceeded"), 500),
        (ApiError(code_text="\u0664\u0660\u0660"), 500),
        (ApiError(code_text="²00"), 500),
        (ApiError(), 500),
    ],
)
def test_the_status_that_an_error_object_tells(error: ApiError, status: int) -> None:
    assert status_of(error) == status
