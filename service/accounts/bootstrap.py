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
"""The name of the bootstrap account, and the idempotency id of its initial grant."""


def bootstrap(store: Store, key: str, credit: Decimal) -> None:
    """Create the bootstrap account with its key and credit, each once.

    Args:
        store: The store.
        key: The API key; "" creates nothing.
        credit: The initial credit of the account, in credits.
    """
    directory = Directory(store)
    if not key or directory.find(keys.digest(key)) is not None:
        return
    with suppress(AlreadyExists):
        directory.create_account(BOOTSTRAP)
    if credit:
        # Before the key: if the key exists, everything else does too.
        with suppress(AlreadyExists):  # an earlier bootstrap granted another amount
            directory.add_credit(BOOTSTRAP, int(credit * NANO), BOOTSTRAP)
    with suppress(AlreadyExists):
        # The name contains the key's digest, so that each bootstrap key has its own name.
        name = f"{BOOTSTRAP}-{keys.digest(key).hex()[:8]}"
        directory.create_key(BOOTSTRAP, name, key=key)
