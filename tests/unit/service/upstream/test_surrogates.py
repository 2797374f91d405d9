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
    ],
)
def test_half_of_a_pair_is_found(body: bytes, path: str | None) -> None:
    assert has_surrogates(body)
    assert unpaired(body) == path


def test_most_requests_need_no_search() -> None:
    assert not has_surrogates('{"a":"😀\\u00e9"}'.encode())


def test_nesting_is_no_recursion() -> None:
    assert unpaired(b'{"a":' + b"[" * 400 + rb'"\ud83d"' + b"]" * 400 + b"}") == "a" + "[0]" * 400
