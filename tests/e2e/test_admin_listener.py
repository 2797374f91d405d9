"""The operators' listener runs only if CHAT_ADMIN_TOKEN is set.

CHAT_ADMIN_TOKEN   CHAT_ADMIN_LISTEN
none               refuses connections
a token            serves calls with the token; wrong ones are slowed down
"""

import asyncio
import socket
from typing import Final

import grpc
import pytest

from chatcompletion.v1 import account_service_pb2 as pb
from chatcompletion.v1.account_service_pb2_grpc import AccountServiceStub
from process.settings import Address
from service.accounts.guesses import BURST, INTERVAL
from tests.support.accounts_admin import ADMIN, TOKEN, bearer
from tests.support.grpc_client import Metadata, failed
from tests.support.running_service import service
from tests.support.waiting import PATIENCE

# Several kinds of empty tokens, and the token with another scheme.
WRONG: Final = (
    *((), bearer(""), bearer(" "), (("authorization", "Bearer"),)),
    *((("authorization", f"Tokens {TOKEN}"),), (("authorization", TOKEN),)),
)


@pytest.fixture
def listen() -> Address:
    """Return an address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return Address("127.0.0.1", found.getsockname()[1])


async def _list_accounts(listen: Address, metadata: Metadata) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(str(listen), options=options) as channel:
        stub = AccountServiceStub(channel)
        call = stub.ListAccounts(pb.ListAccountsRequest(), metadata=metadata, timeout=PATIENCE)
        await call


async def _reason(listen: Address, metadata: Metadata) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _list_accounts(listen, metadata)
    return failed(caught.value).reason


async def test_without_a_token_nothing_listens(listen: Address) -> None:
    async with service(upstream="http://127.0.0.1:1", admin_listen=listen, admin_token=""):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((listen.host, listen.port), timeout=PATIENCE)


async def test_with_a_token_only_that_is_served(listen: Address) -> None:
    async with service(upstream="http://127.0.0.1:1", admin_listen=listen, admin_token=TOKEN):
        await _list_accounts(listen, ADMIN)
    for metadata in WRONG:
        async with service(upstream="http://127.0.0.1:1", admin_listen=listen, admin_token=TOKEN):
            assert await _reason(listen, metadata) == "INVALID_API_KEY"


async def test_guesses_of_the_token_are_slowed_down(listen: Address) -> None:
    async with service(upstream="http://127.0.0.1:1", admin_listen=listen, admin_token=TOKEN):
        begun = asyncio.get_running_loop().time()
        reasons = [await _reason(listen, bearer(f"guess-{number:016}")) for number in range(50)]
        allowed = BURST + (asyncio.get_running_loop().time() - begun) / INTERVAL
        assert reasons[: BURST + 1] == ["INVALID_API_KEY"] * BURST + ["RATE_LIMITED"]
        assert reasons.count("INVALID_API_KEY") <= allowed
