"""Invalid bodies, through bridge and service: an error of the table, never a 5xx.

    not JSON, too deep, too wide     400 invalid_json
    JSON, but not a request          422, with the member at fault if there is one
    too large                        413
    another type or compressed       415

Afterwards, the process has the same footprint as before, and serves.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import pytest

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service import validation
from tests.support.footprint import Footprint
from tests.support.golden_requests import REQUESTS
from tests.support.golden_responses import COMPLETIONS
from tests.support.running_bridge import PATH, Via
from tests.support.stack import HELLO, Stack, stack

UPSTREAM: Final = "vendor/model"
PLAIN: Final = {"model": "default", "messages": HELLO}
LAST_CHUNK: Final = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}'
)
MEBIBYTE: Final = 1024 * 1024

OF_OTHERS: Final = 2
"""The number of normal requests before and after the tested one."""

OTHER_VALUES: Final[Sequence[Any]] = (
    *(None, True, False, 0, -1, 1.5, 2**70, 1e308, "", "x", "\ud83d", "\x00\r\n"),
    *([], [None], [[]], ["x"], [{}], {}, {"": None}, {"type": "x"}, {"role": []}),
)
"""Values of every JSON type, most of which are invalid in most places."""


@asynccontextmanager
async def unharmed(via: Via) -> AsyncIterator[Stack]:
    """Run a stack. At the end, check that it serves and that its footprint is unchanged."""
    async with stack({"default": UPSTREAM}, via=via) as all_of_it:
        # The response is fixed, so that the upstream accepts any request.
        all_of_it.upstream.reply_with(UPSTREAM, body=COMPLETIONS[0].json.encode())
        all_of_it.upstream.stream_with(UPSTREAM, [LAST_CHUNK])
        async with all_of_it.http() as http:
            assert (await http.post(PATH, json=PLAIN)).status_code == 200
        await all_of_it.idle()
        before = Footprint.take()
        yield all_of_it
        async with all_of_it.http() as http:
            assert (await http.post(PATH, json=PLAIN)).status_code == 200
        await all_of_it.idle()
        await before.returns()


def error_of(response: Any) -> dict[str, Any]:
    """Return the error object of a response, which must contain nothing else."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    document = response.json()
    assert list(document) == ["error"]
    error: dict[str, Any] = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def plain_with(members: str) -> bytes:
    """Return a request with further members in JSON text."""
    return f"{json.dumps(PLAIN)[:-1]},{members}}}".encode()


# ---------------------------------------------------------------------------------- not a request

NOT_JSON: Final[dict[str, Callable[[], bytes]]] = {
    "nothing": lambda: b"",
    "spaces": lambda: b" \r\n\t",
    "cut": lambda: json.dumps(PLAIN).encode()[:-1],
    "two documents": lambda: json.dumps(PLAIN).encode() * 2,
    "more after it": lambda: json.dumps(PLAIN).encode() + b"x",
    "single quotes": lambda: b"{'model':'default'}",
    "a comment": lambda: plain_with('"a":1/**/'),
    "a comma too many": lambda: plain_with('"a":1,'),
    "NaN": lambda: plain_with('"temperature":NaN'),
    "Infinity": lambda: plain_with('"vendor":[Infinity]'),
    "-Infinity": lambda: plain_with('"vendor":{"a":-Infinity}'),
    "a leading zero": lambda: plain_with('"n":01'),
    "a plus": lambda: plain_with('"n":+1'),
    "a raw line end in a string": lambda: plain_with('"user":"a\nb"'),
    "an unknown escape": lambda: plain_with('"user":"\\x41"'),
    "two byte-order marks": lambda: 2 * b"\xef\xbb\xbf" + json.dumps(PLAIN).encode(),
    "UTF-16": lambda: json.dumps(PLAIN).encode("utf-16"),
    "not UTF-8": lambda: plain_with('"user":"?"').replace(b"?", b"\xff\xfe"),
    "not UTF-8 in a vendor's member": lambda: plain_with('"a":{"?":1}').replace(b"?", b"\xc3"),
    "a surrogate in UTF-8": lambda: plain_with('"user":"?"').replace(b"?", b"\xed\xa0\x80"),
    "10,000 arrays": lambda: plain_with('"a":' + "[" * 10_000 + "]" * 10_000),
    "10,000 objects": lambda: plain_with('"a":' + '{"a":' * 10_000 + "1" + "}" * 10_000),
    "10,000 levels of a schema": lambda: plain_with(
        '"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":'
        + '{"items":' * 10_000
        + "true"
        + "}" * 10_000
        + "}}"
    ),
    "levels that never close": lambda: b'{"messages":' + b"[" * 7 * MEBIBYTE,
    "a million members": lambda: plain_with(",".join(f'"m{i}":0' for i in range(500_000))),
    "a million values": lambda: plain_with('"a":[' + "0," * 1_000_000 + "0]"),
}


@pytest.mark.parametrize("name", NOT_JSON)
async def test_what_is_not_json_is_400(name: str, via: Via) -> None:
    async with unharmed(via) as running, running.http() as http:
        response = await http.post(PATH, content=NOT_JSON[name]())

    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == ("invalid_json", None)
    assert len(running.upstream.records) == OF_OTHERS


@pytest.mark.parametrize("body", [b"null", b"true", b"1", b'"x"', b"[]", b"[{}]"])
async def test_what_is_no_object_is_422(body: bytes, via: Via) -> None:
    async with unharmed(via) as running, running.http() as http:
        response = await http.post(PATH, content=body)

    assert response.status_code == 422
    assert error_of(response)["code"] == "invalid_type"


async def test_an_empty_object_lacks_what_is_required(via: Via) -> None:
    async with unharmed(via) as running, running.http() as http:
        response = await http.post(PATH, content=b"{}")

    assert response.status_code == 422
    error = error_of(response)
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


@pytest.mark.parametrize("has_length", [True, False], ids=["with a length", "in chunks"])
async def test_thirty_four_megabytes_are_413(has_length: bool, via: Via) -> None:
    text = json.dumps({**PLAIN, "user": "x" * 34_000_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(text), MEBIBYTE):
            yield text[start : start + MEBIBYTE]

    async with unharmed(via) as running, running.http() as http:
        response = await http.post(PATH, content=text if has_length else pieces())

    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": ""},
        {"content-type": "application/jsonx"},
        {"content-encoding": "gzip"},
        {"content-encoding": "br, identity"},
    ],
    ids=str,
)
async def test_what_is_not_announced_as_plain_json_is_415(
    headers: dict[str, str], via: Via
) -> None:
    async with unharmed(via) as running, running.http() as http:
        response = await http.post(PATH, json=PLAIN, headers=headers)

    assert response.status_code == 415
    assert error_of(response)["param"] is None
    assert len(running.upstream.records) == OF_OTHERS


# ----------------------------------------------------------------------- a request, but which one


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json"])
async def test_other_names_of_json_are_taken(kind: str, via: Via) -> None:
    async with unharmed(via) as running, running.http() as http:
        response = await http.post(PATH, json=PLAIN, headers={"content-type": kind})

    assert response.status_code == 200


async def test_of_duplicate_members_the_last_one_counts(via: Via) -> None:
    body = plain_with('"model":"no-such-model","a":{"b":1,"b":2},"n":3,"n":1,"model":"default"')
    async with unharmed(via) as running, running.http() as http:
        response = await http.post(PATH, content=body)

    assert response.status_code == 200
    received = running.upstream.records[1]
    assert received.document["a"] == {"b": 2}
    assert received.document["n"] == 1
    assert [received.body.count(name) for name in (b'"model"', b'"b"', b'"n"')] == [1, 1, 1]


async def test_a_number_of_great_length_is_no_more_than_out_of_range(via: Via) -> None:
    digits = "9" * 4000
    async with unharmed(via) as running, running.http() as http:
        typed = await http.post(PATH, content=plain_with(f'"seed":{digits}'))
        vendors = await http.post(PATH, content=plain_with(f'"a":[{digits}]'))

    assert typed.status_code == 422
    error = error_of(typed)
    assert (error["code"], error["param"]) == ("number_out_of_range", "seed")
    assert vendors.status_code == 200
    assert digits.encode() in running.upstream.records[1].body


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value within a value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def replaced(value: Any, path: tuple[str | int, ...], by: Any) -> Any:
    """Return a copy of the value with another value at a path."""
    if not path:
        return by
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(value[key], tuple(rest), by)  # type: ignore[index]  # paths fit
    return copy


def names() -> list[str]:
    """Return the members of a request in the contract."""
    descriptor = ChatCompletionParams.DESCRIPTOR
    # protobuf represents the presence of a proto3 field as a oneof, whose name begins with _.
    unions = {union.name.removeprefix("_") for union in descriptor.oneofs}
    others = {field.name for field in descriptor.fields if field.containing_oneof is None}
    return sorted((unions | others) - {"extra_json", "null_fields"})


def is_refused_rightly(response: Any) -> None:
    if response.status_code == 200:
        return
    assert response.status_code in (400, 404, 422), response.text
    error = error_of(response)
    assert error["param"] or error["message"].startswith("Invalid parameter name"), error


async def test_every_member_with_values_of_every_type(via: Via) -> None:
    async with unharmed(via) as running, running.http() as http:
        for name in names():
            statuses = set()
            for value in OTHER_VALUES:
                response = await http.post(PATH, content=json.dumps({**PLAIN, name: value}))
                is_refused_rightly(response)
                statuses.add(response.status_code)
            assert 422 in statuses or name in validation.OPEN, name


async def test_every_place_with_a_value_that_does_not_belong(via: Via) -> None:
    turn = count()
    async with unharmed(via) as running, running.http() as http:
        for golden in REQUESTS:
            document = json.loads(golden.json)
            for path in places(document):
                value = OTHER_VALUES[next(turn) % len(OTHER_VALUES)]
                body = json.dumps(replaced(document, path, value))
                is_refused_rightly(await http.post(PATH, content=body))
