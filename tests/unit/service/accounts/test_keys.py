import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from service.accounts import keys
from tests.support.examples import examples

REPEATABLE = examples(200)


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


def test_no_key_has_the_digest_of_an_identity() -> None:
    identity = "spiffe://example/ns/a/sa/b"

    assert len(keys.identity_digest(identity)) == len(keys.digest(identity)) == 32
    assert len({keys.identity_digest(identity), keys.digest(identity), keys.ended_digest(1)}) == 3
    assert keys.ended_digest(1) != keys.ended_digest(2)
