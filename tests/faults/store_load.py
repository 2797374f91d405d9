"""Callers who call a service in a loop while its store fails, and their results.

async with loaded(database) as (stack, load):
    await survives(stack, load, begin, end)      a store that responds but rejects writes

new calls        503 STORE_UNAVAILABLE, without work upstream
running calls    end as usual; their charges wait in the journal, and are applied once
readiness        NOT_SERVING in the meantime, and SERVING soon after, in the same process
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from service.ledger.rows import Place
from tests.support.accounts_stack import AccountsStack, accounts_stack, journal_content
from tests.support.books import Team as Customer
from tests.support.outages import (
    MODELS,
    NOT_SERVING,
    SERVING,
    assert_unavailable,
    is_ready,
    streaming,
)
from tests.support.waiting import until

CALLERS: Final = 6


class Load:
    """Callers that call in a loop, and their results."""

    def __init__(self, stack: AccountsStack) -> None:
        self.teams = [stack.books.team() for _ in range(CALLERS)]
        self.charged: Counter[str] = Counter()
        self.refused = 0
        self._stack = stack
        self._stopping = False

    async def call(self, team: Customer) -> None:
        """Call until stopped."""
        while not self._stopping:
            answer = await self._stack.ask("grpc", team.key, "default")
            if answer.status == 200:
                self.charged[team.name] += 1
            else:
                assert_unavailable(answer)
                self.refused += 1
                await asyncio.sleep(0.02)  # as callers would

    async def more(self) -> None:
        """Wait until every caller is served once more."""
        before = self.charged.copy()
        await until(
            lambda: all(self.charged[team.name] > before[team.name] for team in self.teams),
            "a caller is not served",
        )

    async def more_refused(self) -> None:
        """Wait until some calls are refused."""
        goal = self.refused + 2 * CALLERS
        await until(lambda: self.refused >= goal, "no call is refused")

    def stop(self) -> None:
        """Stop the callers after their current calls."""
        self._stopping = True


@asynccontextmanager
async def loaded(database: str) -> AsyncIterator[tuple[AccountsStack, Load]]:
    """Run a service under load. Check at the end that its charges match the responses."""
    async with accounts_stack(MODELS, database=database) as stack:
        load = Load(stack)
        async with asyncio.TaskGroup() as tasks:
            for team in load.teams:
                tasks.create_task(load.call(team))
            try:
                yield stack, load
            finally:
                load.stop()
        await stack.rests()
        assert journal_content(stack.directory, "*.rejected") == b""
        for team in load.teams:
            assert len(stack.books.charges(team)) == load.charged[team.name]
        stack.books.nothing_is_open()


async def survives(
    stack: AccountsStack, load: Load, begin: Callable[[], None], end: Callable[[], None]
) -> None:
    """Make the store reject writes for a while, and check all calls."""
    await load.more()
    streaming_team, unseen, dead = (stack.books.team() for _ in range(3))
    # Its process is gone. The lease ends while the store takes no writes.
    stack.books.store.apply([_hold(dead)])
    async with streaming(stack.channel, streaming_team, "hanging", 4) as leaves:
        await asyncio.to_thread(begin)
        await is_ready(stack.channel, NOT_SERVING)
        leaves.cancel()
        await load.more_refused()
        assert_unavailable(await stack.ask("grpc", unseen.key, "default"))
    await until(lambda: b"settle" in _journal(stack))
    dispatched = len(stack.upstream.records)
    await load.more_refused()
    assert len(stack.upstream.records) == dispatched

    await asyncio.to_thread(end)
    await is_ready(stack.channel, SERVING)
    await load.more()
    assert (await stack.ask("grpc", unseen.key, "default")).code == ""
    await until(lambda: b"settle" not in _journal(stack), "nothing is replayed")
    stack.books.store.close()  # its connections still lead to the former server
    assert [
        (charge.completion, charge.partial) for charge in stack.books.charges(streaming_team)
    ] == [(4, True)]
    await until(lambda: stack.books.held(dead) == 0, "no hold expires")


def _hold(team: Customer) -> Place:
    return Place(
        hold_id="of-a-dead-process",
        account_id=team.account_id,
        key_id=team.key_id,
        amount=1,
        tokens=1,
        model="default",
        owner="nobody",
        lease=10**9 // 2,
    )


def _journal(stack: AccountsStack) -> bytes:
    return journal_content(stack.directory, "*.*")
