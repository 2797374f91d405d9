import pytest

from service.model_names import allows, matched, unknown


@pytest.mark.parametrize(
    ("pattern", "name", "part"),
    [
        ("local/*", "local/llama3.1:8b", "llama3.1:8b"),
        ("local/*", "local/org/model", "org/model"),
        ("*", "gpt-4o", "gpt-4o"),
        *(("local/*", name, None) for name in ("local/", "local", "locals/x", "Local/x", "x")),
        *(("local/*", name, None) for name in ("local/*", "local/a*b", "local/x ", "local/a\nb")),
        ("*", "", None),
        ("*", "x" * 256, "x" * 256),
        ("*", "x" * 257, None),
    ],
)
def test_a_pattern_matches_names_that_begin_with_its_prefix(
    pattern: str, name: str, part: str | None
) -> None:
    assert matched(pattern, name) == part


@pytest.mark.parametrize(
    ("allowed", "name", "expected"),
    [
        (None, "any", True),
        ({"a", "b"}, "b", True),
        ({"a", "b"}, "c", False),
        (set(), "a", False),
        ({"local/*"}, "local/llama", True),
        ({"local/*"}, "local/*", True),
        ({"*"}, "local/*", True),
        ({"local/l*"}, "local/*", False),
        ({"local/llama"}, "local/*", False),
        ({"local/*"}, "remote/llama", False),
    ],
)
def test_a_key_can_use_the_names_and_patterns_it_is_limited_to(
    allowed: set[str] | None, name: str, expected: bool
) -> None:
    assert allows(allowed, name) is expected


@pytest.mark.parametrize(
    ("name", "known", "is_known"),
    [
        ("a", {"a", "b"}, True),
        ("c", {"a", "b"}, False),
        ("a", {"ab"}, False),
        ("local/llama", {"local/*"}, True),
        ("local/", {"local/*"}, False),
        ("local/*", {"local/*"}, True),
        ("local/l*", {"local/*"}, True),
        ("local/*", {"local/llama"}, True),
        ("*", {"a"}, True),
        ("b*", {"a", "local/*"}, False),
        ("a", set(), False),
    ],
)
def test_a_key_can_be_limited_to_what_a_model_is_named(
    name: str, known: set[str], is_known: bool
) -> None:
    assert unknown(["first", name], {*known, "first"}) == ([] if is_known else [name])
