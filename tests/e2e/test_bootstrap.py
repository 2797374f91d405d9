"""The bootstrap account: it has the credit of the setting, granted once."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from service.accounts.directory import Directory
from service.accounts.verification import differences
from service.ledger.store import Store
from tests.support.grpc_client import KEY, client
from tests.support.running_service import models, service, simulator

OTHER_KEY: Final = "sk-test-another-0123456789"


@contextmanager
def _directory(url: str) -> Iterator[Directory]:
    store = Store(url)
    try:
        yield Directory(store)
    finally:
        store.close()


async def test_the_bootstrap_account_begins_with_its_credit_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/accounts.db"
    settings: dict[str, Any] = {"database_url": url, "bootstrap_credit": Decimal("7.25")}
    async with simulator() as upstream:
        catalogue = models(["default"], upstream)
        for key in (KEY, KEY, OTHER_KEY):
            async with (
                service(catalogue, **settings, bootstrap_api_key=key) as running,
                client(running.address, key=key) as caller,
            ):
                await caller.create("default")
            with _directory(url) as directory:
                assert directory.account("bootstrap").balance == 7_250_000_000
                assert [*differences(directory._store)] == []
    with _directory(url) as directory:
        first, second = directory.keys("bootstrap")
        assert (first.revoked_at is None, second.revoked_at is None) == (False, True)
        assert [view.name for view in directory.accounts()] == ["bootstrap"]
        grants = [
            entry.amount for entry in directory.reports.ledger("bootstrap") if entry.amount > 0
        ]
    assert grants == [7_250_000_000]


async def test_a_credit_of_nothing_is_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/accounts.db"
    async with (
        simulator() as upstream,
        service(
            models(["default"], upstream), database_url=url, bootstrap_credit=Decimal(0)
        ) as running,
    ):
        await running.client.create("default")  # the model is free
    with _directory(url) as directory:
        assert directory.account("bootstrap").balance == 0


async def test_another_key_revokes_the_earlier_one_and_no_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/accounts.db"
    async with simulator() as upstream:
        catalogue = models(["default"], upstream)
        async with service(catalogue, database_url=url, bootstrap_api_key=KEY):
            pass
        with _directory(url) as directory:
            _, by_hand = directory.create_key("bootstrap", "bootstrap-by-hand")
        rotated = service(catalogue, database_url=url, bootstrap_api_key=OTHER_KEY)
        async with rotated as running:
            for key in (OTHER_KEY, by_hand):
                async with client(running.address, key=key) as caller:
                    await caller.create("default")
            async with client(running.address, key=KEY) as caller:
                assert (await caller.refusal("default")).reason == "INVALID_API_KEY"
        # A revoked key stays revoked, and revokes no other one.
        async with service(catalogue, database_url=url, bootstrap_api_key=KEY) as running:
            async with client(running.address, key=KEY) as caller:
                assert (await caller.refusal("default")).reason == "INVALID_API_KEY"
            async with client(running.address, key=OTHER_KEY) as caller:
                await caller.create("default")
