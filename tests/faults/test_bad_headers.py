"""Headers that gRPC cannot parse: each fails only its own call.

    attacker, victim -> one connection -> service        with and without a real Envoy

gRPC keeps the error of a bad value in the connection's HPACK table. A later good value under the
same name would fail with that error.
"""

from typing import Final

import grpc
import pytest

from tests.support.accounts_admin import TOKEN
from tests.support.envoy import envoy
from tests.support.grpc_client import client
from tests.support.raw_http2 import CHECK, Raw, dial
from tests.support.running_service import service, simulator

OK: Final = grpc.StatusCode.OK.value[0]
INTERNAL: Final = grpc.StatusCode.INTERNAL.value[0]

BAD: Final = {
    "grpc-timeout": ("garbage", "10S"),
    "grpc-encoding": ("garbage", "identity"),
    "te": ("garbage", "trailers"),
    "x-any-bin": ("!!!", "AAAA"),
    "grpc-previous-rpc-attempts": ("garbage", "1"),
}
"""A bad and a good value for each request header that gRPC parses."""

JUNK: Final = {f"x-junk-{number}": "j" * 32 for number in range(60)}
"""Headers beyond the 4,096 bytes of an HPACK table, which evict its entries."""

NO_UPSTREAM: Final = "http://127.0.0.1:9"


async def _check(connection: Raw, name: str, value: str) -> tuple[int | None, str]:
    """Check the health with a header, and return the status and its text."""
    ended = await connection.call(CHECK, b"", headers={name: value})
    return ended.code, ended.message


@pytest.mark.parametrize("before", ["the settings", "nothing", "good values and junk"])
@pytest.mark.parametrize("door", ["callers", "operators"])
async def test_a_bad_value_is_forgotten_by_its_connection(door: str, before: str) -> None:
    victims = {}
    async with service(["any"], NO_UPSTREAM, admin_token=TOKEN) as running:
        admin = running.server._admin
        assert admin is not None
        address = running.address if door == "callers" else admin.address
        for name, (bad, good) in BAD.items():
            async with dial(address) as connection:
                if before != "nothing":
                    await connection.settled()
                if before == "good values and junk":
                    assert await _check(connection, name, good) == (OK, "")
                    assert (await connection.call(CHECK, b"", headers=JUNK)).code == OK
                status, text = await _check(connection, name, bad)
                assert (status, name in text) == (INTERNAL, True)
                victims[name] = await _check(connection, name, good)
    assert victims == dict.fromkeys(BAD, (OK, ""))


@pytest.mark.parametrize("evicting", [False, True])
async def test_behind_a_proxy_a_bad_value_fails_no_other_callers_call(evicting: bool) -> None:
    # Envoy does not forward a `te` other than trailers.
    names = BAD.keys() - {"te"}
    async with (
        simulator() as upstream,
        service(["any"], upstream) as running,
        envoy(running.address) as proxy,
        dial(proxy.address) as attacker,
        dial(proxy.address) as victim,
        client(proxy.address) as caller,
    ):
        if evicting:
            for name in names:
                assert await _check(victim, name, BAD[name][1]) == (OK, "")
            await caller.create("any")
            assert (await attacker.call(CHECK, b"", headers=JUNK)).code == OK
        for name in names:
            status, _ = await _check(attacker, name, BAD[name][0])
            assert status == INTERNAL
        victims = {name: await _check(victim, name, BAD[name][1]) for name in names}
        assert victims == dict.fromkeys(names, (OK, ""))
        completion = await caller.create("any", deadline=10)
        assert completion.choices[0].finish_reason == "stop"
        assert await proxy.counter("upstream_cx_total") == 1
