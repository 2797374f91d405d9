"""Requests with an Idempotency-Key, on each door, whole and streamed.

the same key and body        one upstream request, one charge, the same answer
another body, method or key  409; or another run
a stream                     resumes after the event that the caller names
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, DoorName, document
from tests.support.books import Team
from tests.support.grpc_client import KEY
from tests.support.idempotent_asking import ask_keyed
from tests.support.priced_models import CREDIT, priced
from tests.support.running_bridge import PATH
from tests.support.stack import stack
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE, until

MODELS: Final = {
    "default": priced(upstream_model="sim:tokens=8"),
    "slow": priced(upstream_model="sim:tokens=8,itd=0.05,ttft=0.2"),
    "endless": priced(upstream_model="sim:tokens=1000,itd=0.01"),
    "broken": priced(upstream_model="sim-fault:error-event,tokens=8"),
    "failing": priced(upstream_model="sim-fault:500"),
}
USAGE: Final = {"stream_options": {"include_usage": True}}
FORMS: Final = pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
ALL_DOORS: Final = pytest.mark.parametrize("door", DOORS)


@pytest.fixture
async def running(database: str) -> AsyncIterator[AccountsStack]:
    async with accounts_stack(MODELS, database=database) as stack:
        yield stack


def charges(stack: AccountsStack, team: Team) -> list[int]:
    return [charge.amount for charge in stack.books.charges(team)]


def request(model: str = "default", streamed: bool = True, **members: Any) -> dict[str, Any]:
    return document(model, **(USAGE if streamed else {}), **members)


@FORMS
@ALL_DOORS
async def test_a_repeated_request_gets_the_same_answer_and_is_charged_once(
    running: AccountsStack, door: DoorName, streamed: bool
) -> None:
    team = running.books.team(credit=CREDIT, requests_per_minute=60)
    asked = request(streamed=streamed)

    answers = [
        await ask_keyed(running, door, team.key, "one", asked, streamed=streamed) for _ in range(3)
    ]

    first, second, third = answers
    assert first.documents == second.documents == third.documents
    assert first.ids == second.ids == third.ids
    assert [answer.is_replayed for answer in answers] == [False, True, True]
    assert first.charge == second.charge == third.charge != ""
    assert first.documents[-1]["usage"]["cost_details"]["hold_id"] in first.charge
    # The limits are taken once.
    left = {answer.headers["x-ratelimit-remaining-requests"] for answer in answers}
    assert left == {"59"}
    assert len(running.upstream.records) == len(charges(running, team)) == 1
    await running.rests()
    running.books.nothing_is_open()


@FORMS
async def test_both_doors_and_every_channel_share_a_key(
    running: AccountsStack, streamed: bool
) -> None:
    team = running.books.team(credit=CREDIT)
    asked = request("slow", streamed)

    answers = await asyncio.gather(
        *(
            ask_keyed(running, door, team.key, "shared", asked, streamed=streamed)
            for door in DOORS
            for _ in range(4)
        )
    )

    assert len({json.dumps(answer.documents, sort_keys=True) for answer in answers}) == 1
    assert [answer.code for answer in answers] == [""] * len(answers)
    assert sum(not answer.is_replayed for answer in answers) == 1
    assert len(running.upstream.records) == len(charges(running, team)) == 1


@ALL_DOORS
async def test_another_request_with_the_key_is_a_conflict(
    running: AccountsStack, door: DoorName
) -> None:
    team = running.books.team(credit=CREDIT)
    other = request(streamed=False, temperature=0.5)
    await ask_keyed(running, door, team.key, "one", request(streamed=False))

    refused = [
        await ask_keyed(running, door, team.key, "one", other),
        await ask_keyed(running, door, team.key, "one", request(streamed=False), streamed=True),
    ]

    for answer in refused:
        assert (answer.code, answer.status) == ("idempotency_conflict", 409)
        if door != "grpc":
            assert answer.headers["x-should-retry"] == "false"
    assert len(charges(running, team)) == 1


async def test_a_conflict_with_a_running_request_is_found_at_once(running: AccountsStack) -> None:
    team = running.books.team(credit=CREDIT)
    first = asyncio.create_task(
        ask_keyed(running, "rest", team.key, "one", request("slow"), streamed=True)
    )
    await running.upstream.next_record()

    other = request("slow", temperature=0.5)
    refused = await ask_keyed(running, "grpc", team.key, "one", other, streamed=True)

    assert refused.code == "idempotency_conflict"
    assert (await first).is_done


async def test_each_api_key_has_its_own_idempotency_keys(running: AccountsStack) -> None:
    one, other = running.books.team(credit=CREDIT), running.books.team(credit=CREDIT)

    for team in (one, other):
        answer = await ask_keyed(running, "rest", team.key, "one", request(streamed=False))
        assert not answer.is_replayed

    assert len(charges(running, one)) == len(charges(running, other)) == 1


@ALL_DOORS
@pytest.mark.parametrize("name", ["", "x" * 256], ids=["empty", "long"])
async def test_a_malformed_key_is_refused(
    running: AccountsStack, door: DoorName, name: str
) -> None:
    team = running.books.team(credit=CREDIT)

    answer = await ask_keyed(running, door, team.key, name, request(streamed=False))

    assert answer.status == 422
    assert len(running.upstream.records) == 0


async def test_a_key_that_is_sent_twice_is_refused(running: AccountsStack) -> None:
    team = running.books.team(credit=CREDIT)
    headers = [
        ("authorization", f"Bearer {team.key}"),
        ("idempotency-key", "one"),
        ("idempotency-key", "two"),
    ]

    response = await running.web.post(PATH, json=request(streamed=False), headers=headers)

    assert response.status_code == 422
    assert response.json()["error"]["param"] == "Idempotency-Key"
    assert "Idempotency-Key" in response.json()["error"]["message"]


@FORMS
@ALL_DOORS
async def test_a_failure_that_cost_nothing_frees_the_key(
    running: AccountsStack, door: DoorName, streamed: bool
) -> None:
    team = running.books.team(credit=CREDIT)
    asked = request("failing", streamed)

    for count in (1, 2):
        answer = await ask_keyed(running, door, team.key, "one", asked, streamed=streamed)
        assert answer.status == 502
        assert not answer.is_replayed
        assert len(running.upstream.records) >= count

    assert charges(running, team) == []


@ALL_DOORS
async def test_a_stream_that_broke_is_replayed_as_it_was(
    running: AccountsStack, door: DoorName
) -> None:
    team = running.books.team(credit=CREDIT)

    first, second = [
        await ask_keyed(running, door, team.key, "one", request("broken"), streamed=True)
        for _ in range(2)
    ]

    assert first.code == second.code != ""
    assert first.text == second.text != ""
    assert first.charge == second.charge
    assert first.charge.endswith("partial")
    assert second.is_replayed
    assert len(charges(running, team)) == len(running.upstream.records) == 1


@ALL_DOORS
async def test_a_stream_resumes_after_each_event(running: AccountsStack, door: DoorName) -> None:
    team = running.books.team(credit=CREDIT)
    whole = await ask_keyed(running, door, team.key, "one", request(), streamed=True)
    assert len(whole.ids) == len(whole.documents) > 8

    for position, last in enumerate(whole.ids, 1):
        rest = await ask_keyed(running, door, team.key, "one", request(), streamed=True, after=last)
        assert rest.documents == whole.documents[position:]
        assert rest.ids == whole.ids[position:]
        assert rest.is_done
        assert rest.charge == whole.charge

    assert len(charges(running, team)) == 1


@ALL_DOORS
async def test_a_caller_who_left_a_stream_resumes_it(
    running: AccountsStack, door: DoorName
) -> None:
    team = running.books.team(credit=CREDIT)
    asked = request("slow")

    begun = await ask_keyed(running, door, team.key, "one", asked, streamed=True, leave_after=3)
    rest = await ask_keyed(
        running, door, team.key, "one", asked, streamed=True, after=begun.ids[-1]
    )
    whole = await ask_keyed(running, door, team.key, "one", asked, streamed=True)

    assert begun.documents + rest.documents == whole.documents
    assert rest.is_replayed
    assert rest.is_done
    assert len(charges(running, team)) == len(running.upstream.records) == 1
    await running.rests()


@ALL_DOORS
async def test_a_caller_who_left_before_the_first_event_gets_the_whole_stream(
    running: AccountsStack, door: DoorName
) -> None:
    team = running.books.team(credit=CREDIT)
    left = asyncio.create_task(
        ask_keyed(running, door, team.key, "one", request("slow"), streamed=True)
    )
    await running.upstream.next_record()
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)

    answer = await ask_keyed(running, door, team.key, "one", request("slow"), streamed=True)

    assert answer.is_replayed
    assert answer.is_done
    assert len(charges(running, team)) == len(running.upstream.records) == 1


async def test_a_run_without_callers_is_cancelled_and_charged(database: str) -> None:
    async with accounts_stack(MODELS, database=database, idempotency_linger=0.05) as running:
        team = running.books.team(credit=CREDIT)
        asked = request("endless")
        begun = await ask_keyed(
            running, "rest", team.key, "one", asked, streamed=True, leave_after=3
        )
        record = await running.upstream.next_record()
        await record.ended.wait()
        assert record.outcome == "caller_left"
        await running.rests()

        again = await ask_keyed(running, "rest", team.key, "one", asked, streamed=True)

        assert again.code == "answer_not_kept"
        assert again.documents[:3] == begun.documents
        assert len(charges(running, team)) == len(running.upstream.records) == 1
        assert again.charge.endswith("partial")


@ALL_DOORS
@pytest.mark.parametrize("token", ["0185d2e4c3a0f1b29f86d081884c7d65-3", "nonsense"])
async def test_a_token_of_no_stream_starts_nothing(
    running: AccountsStack, door: DoorName, token: str
) -> None:
    team = running.books.team(credit=CREDIT)

    refused = await ask_keyed(running, door, team.key, "one", request(), streamed=True, after=token)

    assert refused.code == ("invalid_value" if token == "nonsense" else "answer_not_kept")
    assert len(running.upstream.records) == 0
    assert charges(running, team) == []


@ALL_DOORS
async def test_a_token_without_a_key_is_refused(running: AccountsStack, door: DoorName) -> None:
    team = running.books.team(credit=CREDIT)

    refused = await ask_keyed(running, door, team.key, None, request(), streamed=True, after="a-1")

    assert (refused.status, refused.code) == (422, "invalid_value")
    assert len(running.upstream.records) == 0


@ALL_DOORS
async def test_a_stream_without_a_key_has_no_ids(running: AccountsStack, door: DoorName) -> None:
    team = running.books.team(credit=CREDIT)

    answer = await ask_keyed(running, door, team.key, None, request(), streamed=True)

    assert answer.ids == []
    assert "idempotent-replayed" not in answer.headers


@FORMS
async def test_an_answer_that_is_too_large_is_returned_and_not_kept(
    database: str, streamed: bool
) -> None:
    async with accounts_stack(MODELS, database=database, idempotency_max_bytes=1024) as running:
        team = running.books.team(credit=CREDIT)
        asked = {**request(streamed=streamed), "messages": [{"role": "user", "content": "x" * 10}]}
        asked["model"] = "default"

        first = await ask_keyed(running, "rest", team.key, "one", asked, streamed=streamed)
        await running.rests()
        second = await ask_keyed(running, "rest", team.key, "one", asked, streamed=streamed)

        assert first.code == ""
        if streamed:
            assert (second.status, second.code) == (409, "answer_not_kept")
            assert second.headers["x-should-retry"] == "false"
        assert len(charges(running, team)) == len(running.upstream.records) == 1


async def test_an_account_keeps_a_limited_size_of_answers(database: str) -> None:
    async with accounts_stack(MODELS, database=database, idempotency_account_bytes=1024) as running:
        team = running.books.team(credit=CREDIT)
        asked = request(streamed=False)
        codes = []
        for count in range(8):
            await ask_keyed(running, "rest", team.key, f"{count}", asked)
            repeated = await ask_keyed(running, "rest", team.key, f"{count}", asked)
            codes.append(repeated.code)

        assert codes[0] == ""
        assert codes[-1] == "answer_not_kept"
        assert len(charges(running, team)) == 8


@FORMS
async def test_the_feature_can_be_switched_off(database: str, streamed: bool) -> None:
    async with accounts_stack(MODELS, database=database, idempotency_seconds=0) as running:
        team = running.books.team(credit=CREDIT)
        for _ in range(2):
            for door in DOORS:
                asked = request(streamed=streamed)
                answer = await ask_keyed(running, door, team.key, "one", asked, streamed=streamed)
                assert (answer.is_replayed, answer.ids) == (False, [])
                assert answer.text
        assert len(charges(running, team)) == 2 * len(DOORS)


async def test_a_slow_caller_does_not_delay_another(running: AccountsStack) -> None:
    team = running.books.team(credit=CREDIT)
    headers = {"authorization": f"Bearer {team.key}", "idempotency-key": "one"}
    body = {**request("slow"), "stream": True}
    async with running.web.stream("POST", PATH, json=body, headers=headers) as slow:
        assert slow.status_code == 200
        quick = await ask_keyed(running, "grpc", team.key, "one", request("slow"), streamed=True)
        assert quick.is_done
        assert "[DONE]" in (await slow.aread()).decode()
    await until(lambda: len(charges(running, team)) == 1)


SH: Final = re.compile(r"```sh\n(curl .*?)```", re.DOTALL)
PYTHON: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)


async def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "idempotency.md").read_text(encoding="utf-8")
    whole, resumed = SH.findall(page)
    [program] = PYTHON.findall(page)
    async with stack({"default": "vendor/model"}) as running, running.http() as http:
        key = re.findall(r"Idempotency-Key: ([^']+)", resumed)[0]
        body = json.loads(re.findall(r"-d '(.*)'", resumed)[0])
        stream = await http.post(PATH, json=body, headers={"idempotency-key": key})
        last = re.findall(r"id: (.+)", stream.text)[1]
        commands = (("sh", "-c", whole), ("sh", "-c", whole), ("sh", "-c", resumed))
        printed = []
        for command in (*commands, (sys.executable, "-c", program)):
            text = command[-1].replace("127.0.0.1:8080", running.bridge.address)
            process = await asyncio.create_subprocess_exec(
                *(*command[:-1], text),
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "CHAT_KEY": KEY, "LAST": last},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            async with asyncio.timeout(PATIENCE):
                printed.append((await process.communicate())[0].decode())

    assert "idempotent-replayed" not in printed[0]
    assert "idempotent-replayed: true" in printed[1]
    rest = stream.text.partition(f"id: {last}\n")[2].partition("\n\n")[2]
    assert printed[2] == rest
    assert printed[3].strip()
