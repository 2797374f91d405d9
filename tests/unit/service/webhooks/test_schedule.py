from typing import Any

import pytest

from service.ledger.outbox import Outgoing
from service.ledger.rows import EventKind
from service.webhooks import schedule
from service.webhooks.schedule import (
    FIRST_PAUSE,
    LONGEST_BREAK,
    LONGEST_PAUSE,
    MOST_ATTEMPTS,
    SECOND,
    Break,
    Reply,
)

DAY = 86_400 * SECOND
NOW = 1_800_000_000 * SECOND


def event(attempts: int = 1, age: int = 0, **members: Any) -> Outgoing:
    usual: dict[str, Any] = {"id": 7, "event_id": "e", "account": "acme", "created_at": NOW - age}
    return Outgoing(
        **{**usual, **members}, kind=EventKind.USAGE, since=NOW - age, attempts=attempts
    )


def closing(of: Outgoing, reply: Reply, random: float = 1.0) -> Any:
    return schedule.closing(of, reply, NOW, longest=DAY, random=random)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_status_of_success_ends_an_event(status: int) -> None:
    done = closing(event(3), Reply(status=status))
    assert (done.id, done.attempts, done.failure, done.unsent) == (7, 3, "", False)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 409, 429, 500, 503])
def test_every_other_status_is_tried_again(status: int) -> None:
    again = closing(event(), Reply(status=status))
    assert (again.failure, again.again_in) == (f"HTTP {status}", FIRST_PAUSE)


def test_a_failure_of_the_network_is_tried_again() -> None:
    again = closing(event(), Reply(failure="timeout"))
    assert (again.failure, again.again_in) == ("timeout", FIRST_PAUSE)


@pytest.mark.parametrize(
    ("of", "reply"),
    [
        (event(), Reply(status=410)),
        (event(MOST_ATTEMPTS), Reply(status=500)),
        (event(age=DAY), Reply(failure="refused")),
    ],
)
def test_an_event_is_dead_when_it_is_unwanted_too_often_sent_or_too_old(
    of: Outgoing, reply: Reply
) -> None:
    dead = closing(of, reply)
    assert dead.failure
    assert dead.again_in is None


def test_just_before_it_is_tried_again() -> None:
    assert closing(event(MOST_ATTEMPTS - 1, DAY - 1), Reply(status=500)).again_in is not None


def test_pauses_double_up_to_a_limit_and_vary() -> None:
    assert [schedule.pause(attempts, 1.0) // SECOND for attempts in (1, 2, 3, 10, 11, 99)] == [
        *(5, 10, 20, 2560),
        *(3600, 3600),
    ]
    assert schedule.pause(3, 0.0) == 0
    assert schedule.pause(3, 0.25) == 5 * SECOND


def test_a_receiver_can_ask_for_a_longer_pause() -> None:
    assert closing(event(), Reply(status=429, retry_after=90 * SECOND)).again_in == 90 * SECOND
    assert closing(event(), Reply(status=503, retry_after=DAY)).again_in == LONGEST_PAUSE


def test_events_of_an_account_wait_for_each_other() -> None:
    events = [event(account=name, id=number) for number, name in enumerate("abacb")]
    assert [[each.id for each in lane] for lane in schedule.lanes(events)] == [[0, 2], [1, 4], [3]]


def test_all_events_pause_while_everything_is_trouble() -> None:
    pause = Break()
    down = [Reply(failure="refused"), Reply(status=503), Reply(status=429)]
    assert not pause.is_probing
    assert pause.after(down, 1.0) == 2 * SECOND
    assert pause.is_probing
    assert pause.after(down, 0.0) == 2 * SECOND
    assert pause.after(down, 1.0) == 8 * SECOND
    for _ in range(50):
        last = pause.after(down, 1.0)
    assert last == LONGEST_BREAK
    assert pause.after([], 1.0) == 0
    assert pause.is_probing


@pytest.mark.parametrize("reply", [Reply(status=204), Reply(status=400), Reply(status=410)])
def test_a_receiver_that_answers_ends_the_pause(reply: Reply) -> None:
    pause = Break()
    pause.after([Reply(failure="timeout")], 1.0)
    assert pause.after([Reply(failure="timeout"), reply], 1.0) == 0
    assert not pause.is_probing
