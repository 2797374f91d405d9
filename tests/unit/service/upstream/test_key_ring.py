from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.upstream.key_ring import KeyRing
from tests.support.examples import examples

PAUSE = 60.0
KEYS = ("a", "b", "c")


def test_keys_take_turns() -> None:
    ring = KeyRing(pause=PAUSE)
    assert Counter(ring.choose(KEYS, 0.0) for _ in range(30)) == dict.fromkeys(KEYS, 10)


def test_a_refused_key_is_set_aside_for_a_while() -> None:
    ring = KeyRing(pause=PAUSE)
    assert ring.set_aside("b", 10.0)
    assert not ring.set_aside("b", 20.0)
    assert {ring.choose(KEYS, 79.9) for _ in range(30)} == {"a", "c"}
    assert {ring.choose(KEYS, 80.0) for _ in range(30)} == {*KEYS}
    assert ring.set_aside("b", 80.0)


def test_if_all_are_set_aside_the_one_that_comes_back_first_is_used() -> None:
    ring = KeyRing(pause=PAUSE)
    assert ring.usable(KEYS, 0.0)
    for now, key in enumerate(("c", "a", "b")):
        assert ring.usable(KEYS, now)
        ring.set_aside(key, now)
    assert not ring.usable(KEYS, 3.0)
    assert {ring.choose(KEYS, 3.0) for _ in range(5)} == {"c"}
    assert ring.usable(KEYS, PAUSE)


@examples(300)
@given(
    steps=st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=100),
    count=st.integers(1, 5),
)
def test_a_key_that_is_set_aside_is_not_used_while_another_is_not(
    steps: list[tuple[float, bool]], count: int
) -> None:
    ring, now, keys = KeyRing(pause=PAUSE), 0.0, [f"key {number}" for number in range(count)]
    back = dict.fromkeys(keys, 0.0)
    for wait, refused in steps:
        now += wait
        key = ring.choose(keys, now)
        free = [each for each in keys if back[each] <= now]
        assert ring.usable(keys, now) == bool(free)
        assert key in free if free else back[key] == min(back.values())
        if refused:
            ring.set_aside(key, now)
            back[key] = now + PAUSE
