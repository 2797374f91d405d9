"""The listeners of operators and of callers on one store, on sockets, in this process.

async with admin(database) as house:
    house.accounts            a stub of AccountService; house.admin is its metadata
    house.credits             a stub of CreditService; bearer(key) is a caller's metadata
    house.store               the store
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import time
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from chatcompletion.v1.account_service_pb2_grpc import AccountServiceStub
from chatcompletion.v1.credit_service_pb2_grpc import (
    CreditServiceStub,
    add_CreditServiceServicer_to_server,
)
from process.settings import Address
from service import errors
from service.accounts import keys
from service.accounts.credit_servicer import CreditServicer
from service.accounts.directory import Directory
from service.accounts.keys import Caller
from service.accounts.store_access import Access
from service.admin import AdminServer
from service.call import Call, Calls
from service.interceptors import CallInterceptor
from service.ledger.batches import Batches
from service.ledger.migrations import migrate
from service.ledger.store import Store
from service.telemetry import Telemetry
from tests.support import canaries
from tests.support.grpc_client import Failed, failed

TOKEN: Final = canaries.secret("admin-token-0123456789")
LOCAL: Final = Address("127.0.0.1", 0)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata with a key."""
    return (("authorization", f"Bearer {key}"),)


ADMIN: Final = bearer(TOKEN)


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """Both listeners and their store."""

    store: Store
    directory: Directory
    batches: Batches
    server: AdminServer
    channel: grpc.aio.Channel
    accounts: Any
    credits: Any
    callers_address: str

    async def ask(self, method: str, request: Any) -> Any:
        """Call an RPC of AccountService with the token."""
        return await getattr(self.accounts, method)(request, metadata=ADMIN, timeout=20)

    async def refusal(self, method: str, request: Any, metadata: Any = ADMIN) -> Failed:
        """Make a call that must fail, and return its failure."""
        try:
            await getattr(self.accounts, method)(request, metadata=metadata, timeout=20)
        except grpc.aio.AioRpcError as error:
            return failed(error)
        raise AssertionError("the call succeeded")


@asynccontextmanager
async def admin(database: str, *, models: Collection[str] | None = None) -> AsyncIterator[House]:
    """Run both listeners on the empty store with this address.

    Args:
        database: The address.
        models: The names and patterns of the models that exist; None if they are not known.
    """
    async with AsyncExitStack() as stack:
        store = Store(database)
        stack.callback(store.close)
        batches = Batches(store)
        stack.push_async_callback(batches.close)
        await batches.call(migrate, store)
        access = Access(batches)
        stack.callback(access.close)
        directory = Directory(store)
        telemetry = Telemetry()
        server = AdminServer(
            access, directory, telemetry, listen=LOCAL, token=TOKEN, models=lambda: models
        )
        await server.start()
        stack.push_async_callback(server.stop)

        async def authenticate(call: Call) -> Caller:
            key = (call.authorization or "").removeprefix("Bearer ")
            caller = await batches.call(directory.callers.find, keys.digest(key))
            if caller is None:
                raise errors.InvalidApiKey
            return caller

        interceptor = CallInterceptor(
            Calls(100), telemetry, authenticate=authenticate, longest=20, clock=time.monotonic
        )
        callers = grpc.aio.server(interceptors=[interceptor])
        add_CreditServiceServicer_to_server(
            CreditServicer(authenticate, access, directory), callers
        )
        callers_address = f"127.0.0.1:{callers.add_insecure_port('127.0.0.1:0')}"
        await callers.start()
        stack.push_async_callback(callers.stop, None)
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(server.address, options=options)
        )
        callers_channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(callers_address, options=options)
        )
        yield House(
            store=store,
            directory=directory,
            batches=batches,
            server=server,
            channel=channel,
            accounts=AccountServiceStub(channel),
            credits=CreditServiceStub(callers_channel),
            callers_address=callers_address,
        )
