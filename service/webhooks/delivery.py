"""The task that sends the events of the outbox.

    round   claim due events -> a lane for each account -> send -> close what was sent
    again   at once if there is more, otherwise after a second

Every process of the service runs it. A claim is a lease, so that each event is sent by one process;
if that is killed between sending an event and closing it, another one sends it again, with the same
id. Events of an account are sent in their order; if one fails, the next ones wait for the next
round, in which the failed one can be behind them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from process import log
from service.ledger.batches import Batches
from service.ledger.outbox import Closing, Outbox, Outgoing, Waiting
from service.ledger.store import StoreError
from service.webhook_metrics import WebhookMetrics
from service.webhooks import schedule, signatures
from service.webhooks.cloud_events import encode
from service.webhooks.endpoint import Endpoint
from service.webhooks.schedule import SECOND, Break, Reply

INTERVAL: Final = 1.0
"""Seconds between two rounds if nothing is due."""
TIDIED_EVERY: Final = 15.0
"""Seconds between two counts of the outbox."""
AT_ONCE: Final = 128
"""Maximum events of a round."""
LANES: Final = 16
"""Maximum requests at a time."""
ROUND_WITHIN: Final = 15.0
"""Seconds after which a round begins no more requests."""
GRACE: Final = 3.0
"""Maximum seconds that a stop waits for requests in flight."""

_MARGIN: Final = 15.0
"""Seconds of a lease for the store to close a round."""

_log = logging.getLogger(__name__)


class Delivery:
    """Sends events.

    Args:
        outbox: The outbox.
        batches: Runs functions on the store.
        endpoint: The receiver.
        metrics: Counts attempts.
        source: The source of the events.
        keys: The keys of signatures; none for no signature.
        within: Maximum seconds of an attempt, as the endpoint has them.
        longest: Nanoseconds after which an event that was not delivered is dead.
        now: Returns the time in nanoseconds since the Unix epoch.
        clock: Returns seconds that pass steadily.
        random: Returns a number from 0 to 1.
    """

    def __init__(
        self,
        outbox: Outbox,
        batches: Batches,
        endpoint: Endpoint,
        metrics: WebhookMetrics,
        *,
        source: str,
        keys: Sequence[bytes],
        within: float,
        longest: int,
        now: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._batches = batches
        self._endpoint = endpoint
        self._metrics = metrics
        self._source = source
        self._keys = keys
        self._lease = int((ROUND_WITHIN + within + _MARGIN) * SECOND)
        self._longest = longest
        self._now = now
        self._clock = clock
        self._random = random
        self._break = Break()
        self._tidied = -TIDIED_EVERY
        self._stopping = asyncio.Event()
        self._closings: list[Closing] = []
        """Results that the store does not have yet."""
        self._claimed: dict[int, Outgoing] = {}
        """Events that were claimed and have no result yet."""

    async def run(self) -> None:
        """Do one round after another until `stop`."""
        while not self._stopping.is_set():
            wait = INTERVAL
            try:
                wait = await self.round()
            except (StoreError, TimeoutError):
                pass  # housekeeping logs that the store is away
            except Exception:  # noqa: BLE001  (it is logged, and must not be the last round)
                _log.exception("the delivery of events failed")
            if wait:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._stopping.wait()

    async def stop(self, task: "asyncio.Task[None]") -> None:
        """End the task that runs `run`: requests in flight have a grace, other events are released.

        Args:
            task: The task.
        """
        self._stopping.set()
        await asyncio.wait((task,), timeout=GRACE)
        task.cancel()
        await asyncio.wait((task,))
        self._closings += map(schedule.unsent, self._claimed.values())
        self._claimed.clear()
        with suppress(StoreError, TimeoutError):  # the leases end by themselves
            await self._close()
        await self._endpoint.close()

    async def round(self) -> float:
        """Do one round, and return the seconds until the next one.

        Raises:
            StoreError: The store is away. No event is lost.
        """
        await self._close()
        await self._tidy()
        most = 1 if self._break.is_probing else AT_ONCE
        claimed = await self._batches.call(lambda: self._outbox.claim(most=most, lease=self._lease))
        if not claimed:
            return INTERVAL
        self._claimed = {event.id: event for event in claimed}
        replies: list[Reply] = []
        end = self._clock() + ROUND_WITHIN
        places = asyncio.Semaphore(LANES)
        async with asyncio.TaskGroup() as group:
            for lane in schedule.lanes(claimed):
                group.create_task(self._send_in_order(lane, places, end, replies))
        self._closings += map(schedule.unsent, self._claimed.values())
        self._claimed.clear()
        await self._close()
        paused = self._break.after(replies, self._random()) / SECOND
        return paused or (0.0 if len(claimed) == most else INTERVAL)

    async def _send_in_order(
        self,
        lane: Sequence[Outgoing],
        places: asyncio.Semaphore,
        end: float,
        replies: list[Reply],
    ) -> None:
        for event in lane:
            async with places:
                if self._stopping.is_set() or self._clock() > end:
                    return
                reply = await self._send(event)
            replies.append(reply)
            now = self._now()
            result = schedule.closing(
                event, reply, now, longest=self._longest, random=self._random()
            )
            del self._claimed[event.id]
            self._closings.append(result)
            self._note(event, result)
            if not reply.is_delivered:
                return

    async def _send(self, event: Outgoing) -> Reply:
        body = encode(event, self._source)
        now = self._now() // SECOND
        headers = signatures.headers(self._keys, event.event_id, body, now)
        return await self._endpoint.post(body, headers)

    def _note(self, event: Outgoing, result: Closing) -> None:
        if not result.failure:
            self._metrics.delivered()
            return
        is_dead = result.again_in is None
        self._metrics.failed(is_dead=is_dead)
        _log.log(
            logging.ERROR if is_dead else logging.WARNING,
            "event is dead" if is_dead else "event not delivered",
            extra=log.fields(event=event.event_id, attempts=event.attempts, why=result.failure),
        )

    async def _close(self) -> None:
        """Record results in the store. If it is away, keep them for the next time."""
        if self._closings:
            closings = list(self._closings)
            await self._batches.call(self._outbox.close, closings)
            del self._closings[: len(closings)]

    async def _tidy(self) -> None:
        if self._clock() - self._tidied < TIDIED_EVERY:
            return
        late = await self._batches.call(lambda: self._outbox.tidy(longest=self._longest))
        if late:
            self._metrics.gave_up(late)
            _log.error("events are dead, because they are too old", extra=log.fields(count=late))
        waiting: Waiting = await self._batches.read(self._outbox.waiting)
        age = 0 if waiting.oldest is None else max(self._now() - waiting.oldest, 0)
        self._metrics.waiting(waiting.pending, waiting.dead, age / SECOND)
        self._tidied = self._clock()
