import tracemalloc

import pytest

from service.upstream.surrogates import has_surrogates, unpaired


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (rb'{"a":"\ud83d\ude00","b":["\uD83D\uDE00"]}', None),
        (rb'{"a":"\\ud83d"}', None),
        (rb'{"a":"\ud83d"}', "a"),
        (rb'{"a":"\ude00\ud83d"}', "a"),
        (rb'{"a":[1,{"b":"x\uDFFF"}]}', "a[1].b"),
        (rb'{"a":{"\ud83d":1}}', "a"),
        (rb'{"a":["","\ud83d"],"b":"\ud83d"}', "a[1]"),
        (rb'{"\ud83d":1}', ""),
        (rb'{"a":' + b"1" * 5000 + rb',"b":"\ud83d"}', "b"),
        (rb'{"' + b"n" * 100 + rb'":["\ud83d"]}', "n" * 64 + "[0]"),
    ],
)
def test_half_of_a_pair_is_found(body: bytes, path: str | None) -> None:
    assert has_surrogates(body)
    assert unpaired(body) == path


def test_names_are_not_repeated_for_each_value() -> None:
    body = (
        b'{"a":"\\ud83d\\ude00","'
        + b"n" * 100_000
        + b'":{'
        + b",".join(b'"%d":1' % number for number in range(1000))
        + b"}}"
    )
    tracemalloc.start()
    try:
        assert has_surrogates(body)
        assert unpaired(body) is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000  # a path for each value: 100 MB


def test_most_requests_need_no_search() -> None:
    assert not has_surrogates('{"a":"😀\\u00e9"}'.encode())


def test_nesting_is_no_recursion() -> None:
    assert unpaired(b'{"a":' + b"[" * 400 + rb'"\ud83d"' + b"]" * 400 + b"}") == "a" + "[0]" * 400
