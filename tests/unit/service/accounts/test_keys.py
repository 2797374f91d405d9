import hashlib
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from service.accounts import keys
from service.accounts.keys import REMEMBERED, Caller, Remembered

REPEATABLE = settings(max_examples=200, derandomize=True, deadline=None)
CALLER = Caller(account_id=1, account_name="acme", key_id=2, key_name="ci")


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_key_has_256_random_bits_behind_its_prefix() -> None:
    made = {keys.make() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"sk-live-[A-Za-z0-9_-]{43}", key) for key in made)


def test_only_its_digest_is_stored() -> None:
    assert keys.digest("sk-live-abc") == hashlib.sha256(b"sk-live-abc").digest()


@REPEATABLE
@given(st.text(st.characters()))
def test_any_text_that_may_come_as_a_key_has_a_digest(text: str) -> None:
    assert len(keys.digest(text)) == 32
    assert keys.digest(text) != keys.digest(text + "\ud800")


def test_what_was_not_looked_up_is_not_remembered() -> None:
    assert Remembered(Clock()).get(b"a") == (False, None)


def test_what_was_found_is_remembered_for_five_seconds() -> None:
    clock = Clock()
    remembered = Remembered(clock)
    remembered.put(b"a", CALLER)
    assert remembered.get(b"a") == (True, CALLER)
    clock.seconds += REMEMBERED - 0.001
    assert remembered.get(b"a") == (True, CALLER)
    clock.seconds += 0.001
    assert remembered.get(b"a") == (False, None)
    assert REMEMBERED <= 5


def test_being_read_does_not_make_it_last_longer() -> None:
    clock = Clock()
    remembered = Remembered(clock)
    remembered.put(b"a", CALLER)
    for _ in range(10):
        clock.seconds += REMEMBERED / 10
        remembered.get(b"a")
    assert remembered.get(b"a") == (False, None)


def test_that_there_is_no_such_key_is_remembered_too() -> None:
    remembered = Remembered(Clock())
    remembered.put(b"a", None)
    assert remembered.get(b"a") == (True, None)


def test_the_last_lookup_counts() -> None:
    clock = Clock()
    remembered = Remembered(clock)
    remembered.put(b"a", CALLER)
    clock.seconds += REMEMBERED - 1
    remembered.put(b"a", None)
    assert remembered.get(b"a") == (True, None)
    clock.seconds += REMEMBERED - 1
    assert remembered.get(b"a") == (True, None)


def test_digests_with_the_same_beginning_are_not_confused() -> None:
    remembered = Remembered(Clock())
    remembered.put(b"a" * 31 + b"x", CALLER)
    assert remembered.get(b"a" * 31 + b"y") == (False, None)


def test_a_flood_of_wrong_keys_takes_bounded_memory_and_forgets_the_oldest() -> None:
    remembered = Remembered(Clock())
    remembered.put(b"first", CALLER)
    for number in range(20_000):
        remembered.put(b"%d" % number, None)
    kept = sum(remembered.get(b"%d" % number)[0] for number in range(20_000))
    assert kept == 10_000
    assert remembered.get(b"first") == (False, None)
    assert remembered.get(b"19999") == (True, None)
