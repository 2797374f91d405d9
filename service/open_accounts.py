"""Opens the accounts at start: the store, its schema, the bootstrap account, the journal.

    Store -> migrate -> bootstrap -> Journal -> Authentication, Admission, Housekeeping

Everything that is opened is closed by the exit stack of the service, in reverse.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from process import log
from service.accounts.bootstrap import bootstrap
from service.accounts.bootstrap_key import KeyFile, KeyFileError
from service.accounts.directory import Directory
from service.admission import Admission
from service.authentication import Authentication
from service.config import Settings
from service.ledger.batches import PATIENCE, Batches
from service.ledger.history import History
from service.ledger.housekeeping import Housekeeping
from service.ledger.journal import Journal, JournalError
from service.ledger.migrations import migrate
from service.ledger.store import Store, StoreError, Timeouts
from service.ledger.stored_answers import Answers
from service.settlement import Settlement
from service.start_error import StartError
from service.telemetry import Telemetry

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAccounts:
    """The accounts of a running service."""

    store: Store
    batches: Batches
    answers: Answers
    directory: Directory
    housekeeping: Housekeeping
    authentication: Authentication
    admission: Admission
    bootstrap_key: str
    """The key of the bootstrap account; "" for none."""


async def open_accounts(
    settings: Settings,
    telemetry: Telemetry,
    resources: AsyncExitStack,
    *,
    timeouts: Timeouts,
    key_file: KeyFile | None,
    store_changed: Callable[[bool], Awaitable[None]],
) -> OpenAccounts:
    """Open the store, migrate its schema, and create the bootstrap account.

    Args:
        settings: The settings.
        telemetry: Counts lost and rejected settlements, and observes holds and the journal.
        resources: Closes what is opened.
        timeouts: How long the store waits.
        key_file: Keeps the bootstrap key if the settings have none; None for no such key.
        store_changed: Called with whether the store can be reached when that changes.

    Raises:
        StartError: The store, the journal or the file of the key cannot be used.
    """
    try:
        store = Store(
            settings.database_url,
            timeouts=timeouts,
            thresholds=settings.events_thresholds if settings.events_url else None,
        )
    except ValueError as error:
        raise StartError(f"CHAT_DATABASE_URL: {error}") from error
    try:
        resources.callback(store.close)
        batches = Batches(store)
        resources.push_async_callback(batches.close)
        directory = Directory(store)
        # Without the time limit of a batch, because a migration can take long.
        await asyncio.to_thread(migrate, store)
        # Detects a read-only file or a full disk now instead of with the first call.
        await asyncio.to_thread(store.try_writing)
        key = await _bootstrap(settings, store, batches, key_file)
    except StoreError as error:
        raise StartError(f"CHAT_DATABASE_URL: {error}") from error
    except KeyFileError as error:
        raise StartError(str(error)) from error
    try:
        journal = Journal(settings.journal_directory, lost=telemetry.settlements_lost)
    except JournalError as error:
        raise StartError(f"CHAT_JOURNAL_DIRECTORY: {error}") from error
    resources.callback(journal.close)
    housekeeping = Housekeeping(
        store,
        batches,
        journal,
        store_changed,
        telemetry.lost,
        rejected=telemetry.settlements_rejected,
        history=History(store, settings.journal_directory, clock=time.monotonic),
    )
    settlement = Settlement(batches, journal, telemetry, patience=PATIENCE)
    admission = Admission(
        batches,
        settlement,
        owner=f"{socket.gethostname()}:{os.getpid()}",
        patience=PATIENCE,
        gives_receipts=settings.receipts,
        worth=settings.credit_worth,
    )
    telemetry.store_up.set(1)
    telemetry.watch(
        holds=lambda: admission.open_holds,
        settlements=lambda: settlement.waiting,
        journal=journal.size,
    )
    # Closing runs in reverse: a last round moves settlements from the journal to the store.
    resources.push_async_callback(housekeeping.round)
    resources.push_async_callback(settlement.settled)
    return OpenAccounts(
        store=store,
        batches=batches,
        answers=Answers(store),
        directory=directory,
        housekeeping=housekeeping,
        authentication=Authentication(batches, directory, patience=PATIENCE, clock=time.monotonic),
        admission=admission,
        bootstrap_key=key,
    )


async def _bootstrap(
    settings: Settings, store: Store, batches: Batches, key_file: KeyFile | None
) -> str:
    """Create the bootstrap account and return its key. A kept key that was revoked is replaced."""
    given, credit = settings.bootstrap_api_key, settings.bootstrap_credit
    key = given if key_file is None else await asyncio.to_thread(key_file.use, given)
    valid = await batches.call(bootstrap, store, key, credit)
    if not valid and key_file is not None and not given:
        key = await asyncio.to_thread(key_file.renew)
        valid = await batches.call(bootstrap, store, key, credit)
    if not valid:
        hint = "set another CHAT_BOOTSTRAP_API_KEY"
        _log.warning("bootstrap key is revoked or expired", extra=log.fields(hint=hint))
    return key
