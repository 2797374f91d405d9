"""Authentication of callers, and its caches."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

import pytest
import sqlalchemy as sa

from service import authentication, errors
from service.accounts.keys import Caller
from service.authentication import REMEMBERED, Found, Remembered
from service.ledger.store import StoreError
from tests.unit.service.books import (
    Books,
    a_call,
    accepted,
    completion,
)

CALLER = Caller(account_id=1, account_name="acme", key_id=2, key_name="ci")


# -------------------------------------------------------------------------------------- callers


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
async def test_the_holder_of_a_key_may_call(books: Books, scheme: str) -> None:
    call = a_call(authorization=f"{scheme}{books.key} ")
    caller = await books.authentication.authenticate(call)

    assert call.record.key_name == "ci"
    assert (caller.account_name, caller.key_name) == ("acme", "ci")
    assert books.key not in repr(caller)
    assert books.key not in repr(books.admission)


NONE: Final = "No API key provided"
SCHEME: Final = "Invalid 'Authorization' header: expected the scheme 'Bearer', but got "
UNKNOWN: Final = "Incorrect API key provided: "
SEND: Final = "Send the header 'Authorization: Bearer YOUR_KEY'."

WRONG: Final[Sequence[tuple[Callable[[str], str | None], str]]] = (
    (lambda _: None, f"{NONE}. {SEND}"),
    (lambda _: "", f"{NONE}. {SEND}"),
    (lambda _: " ", f"{NONE}. {SEND}"),
    (lambda _: "Bearer", f"{SCHEME}another form. {SEND}"),
    (lambda _: "Bearer ", f"{NONE} after 'Bearer'. {SEND}"),
    (lambda key: f"Bearer{key}", f"{SCHEME}another form. {SEND}"),
    (lambda key: f"Basic {key}", f"{SCHEME}'Basic'. {SEND}"),
    (lambda key: f"token {key}", f"{SCHEME}'Token'. {SEND}"),
    (lambda key: f"{key} x", f"{SCHEME}another form. {SEND}"),
    (lambda key: key, f"{SCHEME}another form. {SEND}"),
    (lambda key: f" Bearer {key}", f"{SCHEME}another form. {SEND}"),
    (lambda key: f"Bearer {key}x", UNKNOWN),
    (lambda key: f"Bearer {key[:-1]}", UNKNOWN),
    (lambda key: f"Bearer {key.swapcase()}", UNKNOWN),
    (lambda key: f"Bearer Bearer {key}", UNKNOWN),
    (lambda key: f"Bearer {key},Bearer {key}", UNKNOWN),
    (lambda key: f"Bearer {key}\x00", f"{UNKNOWN}***."),
    (lambda _: "Bearer ' OR 1=1 --", f"{UNKNOWN}***."),
    (lambda _: "Bearer " + "x" * 16_384, f"{UNKNOWN}it has more than 256 characters."),
    (lambda _: "Bearer \ud83d", f"{UNKNOWN}***."),
    (lambda _: "Bearer ключ", f"{UNKNOWN}***."),
    (lambda _: "Bearer sk-live-abcdefghijklmnopqrstuvwxyz", f"{UNKNOWN}sk-li***wxyz."),
)
"""A wrong authorization, and the message or its beginning."""


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=range(len(WRONG)))
async def test_the_message_of_a_wrong_key_names_the_cause_and_not_the_key(
    books: Books, wrong: Callable[[str], str | None], message: str
) -> None:
    for _ in range(2):
        call = a_call(authorization=wrong(books.key))
        with pytest.raises(errors.InvalidApiKey) as refused:
            await books.authentication.authenticate(call)
        assert refused.value.message.startswith(message)
        assert refused.value.message.endswith(".")
        assert books.key[6:-5] not in refused.value.message
        assert call.record.key_name == ""


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
async def test_a_key_in_another_header_is_not_read(name: str) -> None:
    call = a_call(authorization=None, other_key=name)
    with pytest.raises(errors.InvalidApiKey) as refused:
        authentication._key_of(call)
    assert refused.value.message == f"The header '{name}' is not read here. {SEND}"


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_who_holds_a_former_key_learns_what_became_of_it(books: Books, end: str) -> None:
    books.now = 1_793_000_000 * 10**9  # 2026-10-26
    key = books.add_key("former", expires_at=books.now + 5 if end == "expired" else None)
    if end == "revoked":
        books.directory.revoke_key("acme", "former")
    books.now += 5
    for wrong, message in (
        (key, f"This API key {'was revoked' if end == 'revoked' else 'expired'} on 2026-10-26. "),
        (key[:-1], UNKNOWN),
    ):
        call = a_call(authorization=f"Bearer {wrong}")
        with pytest.raises(errors.InvalidApiKey) as refused:
            await books.authentication.authenticate(call)
        assert refused.value.message.startswith(message)
        assert call.record.key_name == ("former" if wrong == key else "")


async def test_a_key_without_limits_has_none_to_be_told(books: Books) -> None:
    call = a_call(authorization=f"Bearer {books.key}")
    await books.authentication.authenticate(call)
    assert call.limits is None


async def test_the_state_of_limits_is_told_without_a_hold(books: Books) -> None:
    key = books.add_key("limited", requests_per_minute=60, tokens_per_minute=1000)
    call = a_call(authorization=f"Bearer {key}")
    await books.authentication.authenticate(call)

    assert call.limits is not None
    assert dict(await call.limits()) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "60",
        "x-ratelimit-reset-requests": "0ms",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "1000",
        "x-ratelimit-reset-tokens": "0ms",
    }
    books.store.reading_fails = True
    assert await call.limits() == ()
    books.store.reading_fails = False
    assert len(await call.limits()) == 6


@pytest.mark.parametrize("name", ["requests", "tokens"])
async def test_the_only_limit_of_a_key_is_told_without_a_hold(books: Books, name: str) -> None:
    key = books.add_key("limited", **{f"{name}_per_minute": 1000})
    call = a_call(authorization=f"Bearer {key}")
    await books.authentication.authenticate(call)

    assert call.limits is not None
    assert dict(await call.limits()) == {
        f"x-ratelimit-limit-{name}": "1000",
        f"x-ratelimit-remaining-{name}": "1000",
        f"x-ratelimit-reset-{name}": "0ms",
    }


async def test_limits_that_are_not_known_within_a_second_are_not_told(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert authentication.LOOK_WITHIN == 1.0
    monkeypatch.setattr(authentication, "LOOK_WITHIN", 0.05)
    key = books.add_key("limited", requests_per_minute=60)
    call = a_call(authorization=f"Bearer {key}")
    await books.authentication.authenticate(call)
    gate, reading = threading.Event(), books.store.reading

    def slow() -> AbstractContextManager[sa.Connection]:
        assert gate.wait(10)
        return reading()

    monkeypatch.setattr(books.store, "reading", slow)
    assert call.limits is not None
    try:
        async with asyncio.timeout(5):
            assert await call.limits() == ()
    finally:
        gate.set()


async def test_an_expired_key_is_nobodys_before_its_first_use_and_after_a_lookup(
    books: Books,
) -> None:
    for first_use in (True, False):
        key = books.add_key(f"brief-{first_use}", expires_at=books.now + 5)
        if not first_use:
            await books.caller(key)
        books.now += 5
        books.monotonic += 5.1
        with pytest.raises(errors.InvalidApiKey):
            await books.caller(key)
        books.now -= 1
        books.monotonic += 5.1
        assert (await books.caller(key)).key_name == f"brief-{first_use}"
        books.now -= 4


async def test_a_lookup_is_remembered_for_five_seconds(books: Books) -> None:
    await books.caller()
    asked = books.store.queries
    books.monotonic += 4.9
    await books.caller()
    assert books.store.queries == asked
    books.directory.revoke_key("acme", "ci")
    books.monotonic += 0.2
    with pytest.raises(errors.InvalidApiKey):
        await books.caller()


async def test_calls_with_the_same_key_share_a_query(books: Books) -> None:
    asked = books.store.queries
    for key in (books.key, "sk-live-unknown"):
        await asyncio.gather(*(books.caller(key) for _ in range(50)), return_exceptions=True)

    assert books.store.queries == asked + 2


async def test_who_leaves_during_a_lookup_does_not_spoil_that_of_others(books: Books) -> None:
    first, second = (asyncio.create_task(books.caller()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    assert (await second).key_name == "ci"
    assert first.cancelled()


async def test_a_store_that_is_away_is_not_a_wrong_key(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: bytes) -> Caller:
        raise StoreError("away")

    monkeypatch.setattr(books.directory.callers, "look_up", away)
    for _ in range(2):
        with pytest.raises(errors.StoreUnavailable):
            await books.caller()
    monkeypatch.undo()
    assert (await books.caller()).key_name == "ci"


async def test_a_flood_of_wrong_keys_drives_no_right_one_out_of_memory(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.authentication._MOST_REMEMBERED", 10)
    await books.caller()
    for number in range(20):
        with pytest.raises(errors.InvalidApiKey):
            await books.caller(f"sk-live-{number}")
    asked = books.store.queries
    await books.caller()

    assert books.store.queries == asked


async def test_lookups_delay_no_hold_and_holds_no_lookup(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, gate = books.directory.callers.look_up, threading.Event()

    def slow(digest: bytes) -> Found:
        assert gate.wait(10)
        return find(digest)

    caller = await books.caller()
    monkeypatch.setattr(books.directory.callers, "look_up", slow)
    strangers = [asyncio.create_task(books.caller(f"sk-live-{number}")) for number in range(50)]
    await asyncio.sleep(0)
    async with books.admission.admit(caller, a_call(), accepted(), wants_usage=False) as progress:
        progress.take(completion())
    assert len(books.entries) == 1
    assert not any(stranger.done() for stranger in strangers)
    gate.set()
    found = await asyncio.gather(*strangers, return_exceptions=True)
    assert {type(each) for each in found} == {errors.InvalidApiKey}
    # And the reverse.
    gate.clear()
    waiting = asyncio.create_task(books.batches.call(gate.wait, 10))
    monkeypatch.undo()
    with pytest.raises(errors.InvalidApiKey):
        await books.caller("sk-live-another")
    gate.set()
    await waiting


async def test_lookups_of_a_store_that_does_not_answer_end_in_time_and_leave_room(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.be_patient(0.05)
    monkeypatch.setattr("service.authentication._MOST_LOOKUPS", 50)
    gate = threading.Event()
    keys = [books.key, *(f"sk-live-{number}" for number in range(49))]
    with monkeypatch.context() as frozen:
        frozen.setattr(books.directory.callers, "look_up", lambda _: gate.wait(10))
        for _ in range(2):
            calls = [asyncio.create_task(books.caller(key)) for key in keys]
            await asyncio.sleep(0)
            with pytest.raises(errors.Overloaded):
                await books.caller("sk-live-one-too-many")
            async with asyncio.timeout(10):
                found = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in found} == {errors.StoreUnavailable}
    gate.set()
    books.be_patient(10.0)

    assert (await books.caller()).key_name == "ci"


# ----------------------------------------------------------------------------------------- caches


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


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


# --------------------------------------------------------------------------- client certificates

IDENTITY: Final = "spiffe://example/ns/a/sa/b"


async def test_a_certificate_stands_for_the_key_that_is_bound_to_its_identity(books: Books) -> None:
    books.directory.create_key("acme", "bound", identity=IDENTITY)
    call = a_call(authorization=None)
    call.identity = lambda: IDENTITY

    assert (await books.authentication.authenticate(call)).key_name == "bound"


async def test_a_certificate_that_nobody_bound_is_no_key(books: Books) -> None:
    call = a_call(authorization=None)
    call.identity = lambda: IDENTITY
    with pytest.raises(errors.InvalidApiKey) as refused:
        await books.authentication.authenticate(call)

    assert refused.value.message == (
        f"The client certificate for '{IDENTITY}' is bound to no account, and no API key was "
        f"provided. {SEND}"
    )


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic x"])
async def test_a_wrong_key_is_wrong_also_with_a_certificate(
    books: Books, authorization: str
) -> None:
    books.directory.create_key("acme", "bound", identity=IDENTITY)
    call = a_call(authorization=authorization)
    call.identity = lambda: IDENTITY
    with pytest.raises(errors.InvalidApiKey):
        await books.authentication.authenticate(call)


async def test_an_identity_is_no_key(books: Books) -> None:
    books.directory.create_key("acme", "bound", identity=IDENTITY)
    with pytest.raises(errors.InvalidApiKey):
        await books.authentication.authenticate(a_call(authorization=f"Bearer {IDENTITY}"))
