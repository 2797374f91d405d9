"""The account that the settings create at start, with its key and credit."""

import re
from contextlib import suppress
from decimal import Decimal
from typing import Final

from service.accounts import keys
from service.accounts.directory import Directory
from service.accounts.keys import Caller
from service.errors import AlreadyExists
from service.ledger.store import Store
from service.models import NANO

BOOTSTRAP: Final = "bootstrap"
"""The name of the bootstrap account, and the idempotency id of its initial grant."""


_MADE_HERE: Final = re.compile(rf"{BOOTSTRAP}-[0-9a-f]{{8}}")
"""The names of the keys that `bootstrap` creates."""

_MOST_KEYS: Final = 10_000


def bootstrap(store: Store, key: str, credit: Decimal) -> bool:
    """Create the bootstrap account with its key and credit, each once. Revoke its earlier keys.

    Args:
        store: The store.
        key: The API key; "" changes nothing.
        credit: The initial credit of the account, in credits.

    Returns:
        Whether the key is valid. A revoked key stays revoked, and revokes no other one.
    """
    if not key:
        return True
    directory = Directory(store)
    caller = directory.callers.find(keys.digest(key)) or _create(directory, key, credit)
    if caller is None:
        return False
    if caller.account_name == BOOTSTRAP:
        for row in directory.keys(BOOTSTRAP, limit=_MOST_KEYS):
            is_earlier = row.id != caller.key_id and _MADE_HERE.fullmatch(row.name)
            if is_earlier and row.revoked_at is None:
                directory.revoke_key(BOOTSTRAP, row.name)
    return True


def _create(directory: Directory, key: str, credit: Decimal) -> Caller | None:
    """Create what is missing, and return the caller of the key; None if it is revoked."""
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
    return directory.callers.find(keys.digest(key))
