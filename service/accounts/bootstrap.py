"""The account that the settings create at start, with its key and credit."""

from contextlib import suppress
from decimal import Decimal
from typing import Final

from service.accounts import keys
from service.accounts.directory import Directory
from service.errors import AlreadyExists
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
    with suppress(AlreadyExists):
        directory.create_account(BOOTSTRAP)
    if credit:
        # Before the key, whose being there says that all of this was done.
        with suppress(AlreadyExists):  # by another key, of other credit
            directory.add_credit(BOOTSTRAP, int(credit * NANO), BOOTSTRAP)
    with suppress(AlreadyExists):
        # The name is of the key's digest: another bootstrap key is another key.
        name = f"{BOOTSTRAP}-{keys.digest(key).hex()[:8]}"
        directory.create_key(BOOTSTRAP, name, key=key)
