"""Faults around requests with an idempotency key: each is charged once, whatever breaks.

connections cut, by an unmodified SDK   -> its retries get the answer of the first request
replicas race, die, pause or drain      -> one upstream request per charge, one charge
the store goes away                     -> nothing runs twice
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import sqlalchemy as sa
from openai import APIError, AsyncOpenAI, ConflictError

from chatcompletion.v1.chat_completion_service_pb2 import StreamChatCompletionRequest
from service.ledger.schema import answers
from service.ledger.store import Timeouts
from tests.support.accounts_stack import AccountsStack, accounts_stack, service_process
from tests.support.asking import DOORS, DoorName, document, params
from tests.support.cutter import Cutter
from tests.support.idempotent_asking import KeyedAnswer, ask_channel, ask_keyed
from tests.support.outages import NOT_SERVING, SERVING, Outage, is_ready, outage, outages
from tests.support.priced_models import CREDIT, models, priced
from tests.support.raw_http2 import dial
from tests.support.running_bridge import PATH
from tests.support.running_service import Running, service
from tests.support.stack import HELLO
from tests.support.waiting import PATIENCE, until

__all__ = ["outage"]

MODELS: Final = {
    "default": priced(upstream_model="sim:tokens=8"),
    "slow": priced(upstream_model="sim:tokens=8,itd=0.1"),
    "endless": priced(upstream_model="sim:tokens=1000,itd=0.1"),
    "hanging": priced(upstream_model="sim-fault:hang-mid-stream=3,tokens=8"),
}
STREAM: Final = "/chatcompletion.v1.ChatCompletionService/StreamChatCompletion"
FORMS: Final = pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
ALL_DOORS: Final = pytest.mark.parametrize("door", DOORS)
SLOW: Final = document("slow", stream_options={"include_usage": True})


@asynccontextmanager
async def replica(stack: AccountsStack, database: str, **changes: Any) -> AsyncIterator[Running]:
    """Run a second service on the store and the upstream of a stack."""
    base = {"simulator": stack.upstream.base_url}
    own: dict[str, Any] = {
        "database_url": database,
        "journal_directory": str(stack.directory / "second"),
        "bootstrap_api_key": "",
        "breaker_failures": 0,
    }
    async with service(models(MODELS, base, "simulator"), **(own | changes)) as running:
        yield running


def let_claims_lapse(stack: AccountsStack) -> None:
    """Let the time of all running claims pass."""
    with stack.books.store.writing() as connection:
        connection.execute(sa.update(answers).where(answers.c.state == 0).values(until=1))


# ------------------------------------------------------------------------------------ connections


def port_of(stack: AccountsStack) -> int:
    return int(stack.bridge.address.rpartition(":")[2])


@FORMS
async def test_the_retries_of_an_unmodified_sdk_are_charged_once(streamed: bool) -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(credit=CREDIT)
        # Cut before the status line, and within the headers.
        async with (
            Cutter(port_of(stack), 0, 20) as base_url,
            AsyncOpenAI(
                base_url=base_url, api_key=team.key, max_retries=3, timeout=PATIENCE
            ) as sdk,
        ):
            headers = {"Idempotency-Key": "one"}
            if streamed:
                stream = await sdk.chat.completions.create(
                    model="slow", messages=HELLO, stream=True, extra_headers=headers
                )
                chunks = [chunk async for chunk in stream]
                assert chunks[-1].choices[0].finish_reason == "stop"
            else:
                completion = await sdk.chat.completions.create(
                    model="slow", messages=HELLO, extra_headers=headers
                )
                assert completion.choices[0].message.content

        await until(lambda: len(stack.books.charges(team)) == 1)
        await stack.rests()
        assert len(stack.upstream.records) == 1
        stack.books.nothing_is_open()


async def test_without_a_key_the_retries_of_the_sdk_pay_again() -> None:
    """The reason for keys: the SDK sends none of its own."""
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(credit=CREDIT)
        async with (
            Cutter(port_of(stack), 20) as base_url,
            AsyncOpenAI(
                base_url=base_url, api_key=team.key, max_retries=1, timeout=PATIENCE
            ) as sdk,
        ):
            await sdk.chat.completions.create(model="default", messages=HELLO)
        await stack.rests()
        assert len(stack.books.charges(team)) == 2


async def test_an_unmodified_sdk_does_not_retry_a_conflict() -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(credit=CREDIT)
        base_url = f"http://{stack.bridge.address}/v1"
        async with AsyncOpenAI(
            base_url=base_url, api_key=team.key, max_retries=3, timeout=PATIENCE
        ) as sdk:
            headers = {"Idempotency-Key": "one"}
            await sdk.chat.completions.create(
                model="default", messages=HELLO, extra_headers=headers
            )
            with pytest.raises(ConflictError) as caught:
                await sdk.chat.completions.create(
                    model="default", messages=HELLO, temperature=0, extra_headers=headers
                )
        assert caught.value.code == "idempotency_conflict"
        # One for each request: the SDK sent the second one once.
        assert len(stack.books.charges(team)) == 1


async def test_a_stream_that_was_cut_resumes_after_its_last_event() -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(credit=CREDIT)
        headers = {"authorization": f"Bearer {team.key}", "idempotency-key": "one"}
        body = {**SLOW, "stream": True}
        text = ""
        async with (
            Cutter(port_of(stack), 900, 1700, 2500, 900) as base_url,
            httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as web,
        ):
            connections, last = 0, None
            while "[DONE]" not in text:
                connections += 1
                resumed = headers if last is None else {**headers, "last-event-id": last}
                url = f"{base_url}/chat/completions"
                with suppress(httpx.RemoteProtocolError, httpx.ReadError):
                    async with web.stream("POST", url, json=body, headers=resumed) as response:
                        received = ""
                        async for piece in response.aiter_text():
                            received += piece
                            whole = received.rpartition("\n\n")[0]
                            last = _last_id(whole) or last
                text += _events(received)
        assert connections > 2
        replay = await ask_keyed(stack, "grpc", team.key, "one", SLOW, streamed=True)
        assert text.count("data: {") == len(replay.documents)
        assert len(stack.books.charges(team)) == len(stack.upstream.records) == 1


def _events(received: str) -> str:
    """Return the complete events of a response."""
    whole, _, _ = received.rpartition("\n\n")
    return f"{whole}\n\n"


def _last_id(whole: str) -> str | None:
    ids = [line[4:] for line in whole.split("\n") if line.startswith("id: ")]
    return ids[-1] if ids else None


async def test_a_broken_stream_of_the_sdk_is_resumed_with_its_key() -> None:
    async with accounts_stack(MODELS) as stack:
        team = stack.books.team(credit=CREDIT)
        headers = {"Idempotency-Key": "one"}
        async with (
            Cutter(port_of(stack), 1500) as base_url,
            AsyncOpenAI(
                base_url=base_url, api_key=team.key, max_retries=3, timeout=PATIENCE
            ) as sdk,
        ):
            said = ""
            with suppress(APIError, httpx.HTTPError):
                async for chunk in await sdk.chat.completions.create(
                    model="slow", messages=HELLO, stream=True, extra_headers=headers
                ):
                    said += chunk.choices[0].delta.content or ""
            again = ""
            async for chunk in await sdk.chat.completions.create(
                model="slow", messages=HELLO, stream=True, extra_headers=headers
            ):
                again += chunk.choices[0].delta.content or ""
        assert again.startswith(said)
        assert 0 < len(said) < len(again)
        assert len(stack.books.charges(team)) == len(stack.upstream.records) == 1


# --------------------------------------------------------------------------------------- replicas


@FORMS
async def test_fifty_requests_at_two_replicas_are_one(database: str, streamed: bool) -> None:
    async with (
        accounts_stack(MODELS, database=database) as stack,
        replica(stack, database) as second,
    ):
        team = stack.books.team(credit=CREDIT)
        channels = (stack.channel, second.client.channel)
        answered = await asyncio.gather(
            *(
                ask_channel(
                    channels[number % 2],
                    team.key,
                    "one",
                    SLOW if streamed else document("slow"),
                    streamed=streamed,
                )
                for number in range(50)
            )
        )

        assert {answer.code for answer in answered} == {""}
        assert len({answer.text for answer in answered}) == 1
        assert len({answer.charge for answer in answered}) == 1
        assert sum(not answer.is_replayed for answer in answered) == 1
        await stack.rests()
        await second.rests()
        assert len(stack.upstream.records) == len(stack.books.charges(team)) == 1
        stack.books.nothing_is_open()


async def test_a_stream_resumes_at_another_replica(database: str) -> None:
    async with (
        accounts_stack(MODELS, database=database) as stack,
        replica(stack, database) as second,
    ):
        team = stack.books.team(credit=CREDIT)
        begun = await ask_keyed(stack, "rest", team.key, "one", SLOW, streamed=True, leave_after=3)
        rest = await ask_channel(
            second.client.channel,
            team.key,
            "one",
            SLOW,
            streamed=True,
            after=begun.ids[-1],
        )

        whole = await ask_keyed(stack, "rest", team.key, "one", SLOW, streamed=True)
        assert begun.documents + rest.documents == whole.documents
        assert len(stack.books.charges(team)) == len(stack.upstream.records) == 1


async def test_a_deadline_ends_the_wait_for_another_replica(database: str) -> None:
    async with (
        accounts_stack(MODELS, database=database) as stack,
        replica(stack, database) as second,
    ):
        team = stack.books.team(credit=CREDIT)
        asked = document("endless")
        begun = asyncio.create_task(
            ask_keyed(stack, "grpc", team.key, "one", asked, streamed=True, leave_after=100)
        )
        await stack.upstream.next_record()
        late = await ask_channel(
            second.client.channel,
            team.key,
            "one",
            asked,
            streamed=True,
            deadline=0.3,
        )
        await begun

        assert late.code in {"deadline_exceeded", "DEADLINE_EXCEEDED"}
        assert len(stack.upstream.records) == 1


async def test_after_the_death_of_a_replica_another_one_runs_the_request(
    database: str, tmp_path: Path
) -> None:
    async with accounts_stack(MODELS, database=database) as stack:
        team = stack.books.team(credit=CREDIT)
        asked = document("slow")
        async with service_process(tmp_path, database, stack.upstream, MODELS) as (dying, caller):
            begun = await ask_channel(
                caller.channel, team.key, "one", asked, streamed=True, leave_after=2
            )
            dying.send(signal.SIGKILL)
            await dying.exit_status()
        waiting = asyncio.create_task(
            ask_keyed(stack, "rest", team.key, "one", asked, streamed=True)
        )
        let_claims_lapse(stack)
        again = await waiting
        resumed = await ask_keyed(
            stack, "rest", team.key, "one", asked, streamed=True, after=begun.ids[-1]
        )

        assert (again.is_done, again.is_replayed) == (True, False)
        # It is another stream, which does not continue the first one.
        assert resumed.code == "answer_not_kept"
        assert len(stack.upstream.records) == 2
        assert len(stack.books.charges(team)) == 1


async def test_a_replica_that_paused_is_not_charged_if_another_one_took_over(
    database: str,
) -> None:
    async with (
        accounts_stack(MODELS, database=database) as stack,
        replica(stack, database) as second,
    ):
        team = stack.books.team(credit=CREDIT)
        paused = asyncio.create_task(ask_keyed(stack, "rest", team.key, "one", SLOW, streamed=True))
        await stack.upstream.next_record()
        let_claims_lapse(stack)
        later = await ask_channel(
            second.client.channel,
            team.key,
            "one",
            SLOW,
            streamed=True,
        )
        first = await paused
        await stack.rests()

        assert (first.code, later.code) == ("", "")
        assert len(stack.upstream.records) == 2
        [charge] = stack.books.charges(team)
        assert later.charge.startswith(f"nano-credits={charge.amount}")
        assert first.charge.startswith("nano-credits=0")
        stack.books.nothing_is_open()


@ALL_DOORS
async def test_a_drain_ends_a_run_and_its_answer_says_so(database: str, door: DoorName) -> None:
    async with accounts_stack(MODELS, database=database) as stack:
        team = stack.books.team(credit=CREDIT)
        asked = document("hanging")
        async with replica(stack, database) as second:
            seen = KeyedAnswer()
            begun = asyncio.create_task(
                ask_channel(second.client.channel, team.key, "one", asked, streamed=True, into=seen)
            )
            await until(lambda: len(seen.documents) >= 3)
            second.server.hurry()
            await second.server.stop()
            ended = await begun
        again = await ask_keyed(stack, door, team.key, "one", asked, streamed=True)

        assert ended.code == again.code == "draining"
        assert again.documents == ended.documents
        [charge] = stack.books.charges(team)
        assert ended.charge == again.charge
        assert ended.charge.startswith(f"nano-credits={charge.amount}")
        assert len(stack.upstream.records) == 1


async def test_a_drain_ends_a_run_whose_caller_does_not_read(database: str) -> None:
    async with accounts_stack(MODELS, database=database) as stack:
        team = stack.books.team(credit=CREDIT)
        asked = document("hanging")
        message = StreamChatCompletionRequest(params=params(asked)).SerializeToString()
        async with replica(stack, database) as second, dial(second.address, window=0) as raw:
            stream = raw.begin(STREAM, message, key=team.key, headers={"idempotency-key": "one"})
            # Then the first message waits for the caller.
            await until(lambda: raw.is_answered(stream))
            second.server.hurry()
            await second.server.stop()
        again = await ask_keyed(stack, "grpc", team.key, "one", asked, streamed=True)

        assert again.code == "draining"
        [charge] = stack.books.charges(team)
        assert charge.partial
        assert len(stack.upstream.records) == 1


async def test_a_run_that_its_caller_left_ends_with_the_drain(database: str) -> None:
    async with accounts_stack(MODELS, database=database) as stack:
        team = stack.books.team(credit=CREDIT)
        async with replica(stack, database) as second:
            await ask_channel(
                second.client.channel,
                team.key,
                "one",
                document("endless"),
                streamed=True,
                leave_after=3,
            )
            assert second.calls_in_flight >= 1
        [charge] = stack.books.charges(team)

        assert charge.partial
        stack.books.nothing_is_open()


# ------------------------------------------------------------------------------------------ store


@pytest.fixture
def quick_clocks(monkeypatch: pytest.MonkeyPatch) -> Timeouts:
    """Shorten the interval of the housekeeping and the timeouts of the store."""
    monkeypatch.setattr("service.ledger.housekeeping.INTERVAL", 0.02)
    return Timeouts(busy=0.25)


@outages("sqlite-locked", "sqlite-failing", "postgres-locked", "postgres-stopped")
@FORMS
async def test_a_store_that_is_away_at_the_start_lets_nothing_run(
    quick_clocks: Timeouts, outage: Outage, streamed: bool
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        asked = document("default")
        assert (await stack.ask("grpc", team.key, "default")).code == ""
        async with outage.away(stack.books.store):
            await is_ready(stack.channel, NOT_SERVING)
            away = await ask_keyed(stack, "grpc", team.key, "one", asked, streamed=streamed)
        await is_ready(stack.channel, SERVING)
        back = [
            await ask_keyed(stack, "rest", team.key, "one", asked, streamed=streamed)
            for _ in range(2)
        ]

        assert (away.status, away.code) == (503, "store_unavailable")
        assert [answer.code for answer in back] == ["", ""]
        assert len(stack.books.charges(team)) == len(stack.upstream.records) == 2
        stack.books.nothing_is_open()


@outages("sqlite-locked", "sqlite-full", "postgres-locked", "postgres-stopped")
async def test_a_store_that_is_away_at_the_end_is_charged_once(
    quick_clocks: Timeouts, outage: Outage
) -> None:
    async with accounts_stack(MODELS, database=outage.database, timeouts=quick_clocks) as stack:
        team = stack.books.team()
        begun = asyncio.create_task(ask_keyed(stack, "rest", team.key, "one", SLOW, streamed=True))
        await stack.upstream.next_record()
        async with outage.away(stack.books.store):
            first = await begun
            assert first.is_done
        await is_ready(stack.channel, SERVING)
        await until(lambda: len(stack.books.charges(team)) == 1)
        again = await ask_keyed(stack, "rest", team.key, "one", SLOW, streamed=True)

        assert (again.status, again.code) == (409, "answer_not_kept")
        assert len(stack.books.charges(team)) == len(stack.upstream.records) == 1
        stack.books.nothing_is_open()


async def test_a_conflict_is_no_reason_to_read_the_body_twice(database: str) -> None:
    async with accounts_stack(MODELS, database=database) as stack:
        team = stack.books.team(credit=CREDIT)
        headers = {"authorization": f"Bearer {team.key}", "idempotency-key": "one"}
        for _ in range(2):
            response = await stack.web.post(PATH, json=document("default"), headers=headers)
            assert response.status_code == 200
        other = document("default", seed=1)
        response = await stack.web.post(PATH, json=other, headers=headers)
        assert response.status_code == 409
