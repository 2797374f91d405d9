"""The account that the settings create at start, with its key and credit."""

from contextlib import suppress
from decimal import Decimal
from typing import Final

from service.accounts import keys
from service.accounts.directory import Directory
from service.accounts.views import ExistsError, KeyLimits
from service.ledger.rows import Grant
from service.ledger.store import Store
from service.models import NANO

BOOTSTRAP: Final = "bootstrap"
"""The name of the account that the settings make, and of the grant it begins with."""


def bootstrap(store: Store, key: str, credit: Decimal) -> None:
    """Create the bootstrap account with its key and credit, each once.

    Args:
        store: The store.
        key: The API key; "" creates nothing.
        credit: What the account begins with, in credits.
    """
    directory = Directory(store)
    if not key or directory.find(keys.digest(key)) is not None:
        return
    with suppress(ExistsError):
        directory.create_account(BOOTSTRAP)
    account = directory.account(BOOTSTRAP)
    if credit:
        # Before the key, whose being there says that all of this was done.
        grant = Grant(account_id=account.id, amount=int(credit * NANO), idempotency_id=BOOTSTRAP)
        store.apply([grant])
    with suppress(ExistsError):
        # The name is of the key's digest: another bootstrap key is another key.
        name = f"{BOOTSTRAP}-{keys.digest(key).hex()[:8]}"
        directory.create_key(BOOTSTRAP, name, KeyLimits(), key=key)
