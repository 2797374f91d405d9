"""Calls of unknown methods: each ends with UNIMPLEMENTED, and the listener continues.

grpcio decodes the path of such a call in the loop that accepts all calls. A path that is not UTF-8
would end that loop, and with it the listener, for every caller.
"""

import asyncio
from typing import Final

import grpc
import pytest

from tests.support.accounts_admin import TOKEN
from tests.support.envoy import envoy
from tests.support.footprint import Footprint
from tests.support.grpc_client import client
from tests.support.raw_http2 import CHECK, dial
from tests.support.running_service import service, simulator
from tests.support.waiting import until

OK: Final = grpc.StatusCode.OK.value[0]
UNIMPLEMENTED: Final = grpc.StatusCode.UNIMPLEMENTED.value[0]

NOT_UTF_8: Final = (b"/\xff", b"/chatcompletion.v1.ModelService/\xc3", b"\x80\x80/\xfe")
STRANGE: Final = (b"", b"*", b"/", b"//", b"/Nobody/Knows", "/né/é".encode(), b"/" + b"a" * 8000)


@pytest.mark.parametrize("door", ["callers", "operators"])
async def test_a_call_of_no_method_ends_and_harms_no_other(door: str) -> None:
    async with (
        simulator() as upstream,
        service(["any", "sim:itd=0.01,tokens=50"], upstream, admin_token=TOKEN) as running,
    ):
        admin = running.server._admin
        assert admin is not None
        stream = asyncio.create_task(running.client.collect("sim:itd=0.01,tokens=50"))
        await until(lambda: upstream.open_requests == 1)
        async with dial(running.address if door == "callers" else admin.address) as raw:
            before = Footprint.take()
            for path in (*NOT_UTF_8, *STRANGE):
                for messages in ((), (b"",), (b"\xff", b"")):
                    assert (await raw.call(path, *messages)).code == UNIMPLEMENTED, path
            for _ in range(20):
                streams = [raw.begin(NOT_UTF_8[0], end=n % 2 == 0) for n in range(50)]
                assert {(await raw.ended(one)).code for one in streams} == {UNIMPLEMENTED}
            for _ in range(50):
                raw.reset(raw.begin(NOT_UTF_8[0], end=False))
            assert (await raw.call(CHECK, b"")).code == OK
            await before.returns()
        assert (await stream).failure is None
        await running.client.create("any")


async def test_behind_a_proxy_a_path_that_is_not_utf_8_harms_no_other() -> None:
    async with (
        simulator() as upstream,
        service(["any"], upstream) as running,
        envoy(running.address) as proxy,
        dial(proxy.address) as raw,
        client(proxy.address) as caller,
    ):
        for path in NOT_UTF_8[:2]:
            await raw.call(path, b"")
        await caller.create("any")
