"""The members of a model that adapt the service to its upstream, through every door: what the
upstream receives, what callers get, and what is charged.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.support.accounts_stack import AccountsStack, accounts_stack
from tests.support.asking import DOORS, DoorName, document
from tests.support.books import Charge
from tests.support.odd_answers import (
    ASKED,
    DONE,
    PIECES,
    STOP,
    STREAM,
    Requests,
    call,
    call_with_receipts,
    chunk,
    event,
    http,
    json_answer,
    raw_server,
    report,
    usage,
    whole,
)
from tests.support.odd_answers import WHOLE as WHOLE_BODY
from tests.support.priced_models import cost, priced
from tests.support.running_service import UPSTREAM_KEY
from tests.support.waiting import until

FORMS: Final = ("streamed", "whole")
"""The names of two models, of which the first gets streams."""
SOUND: Final = (http(*STREAM), json_answer(WHOLE_BODY))
REPORTED: Final = Charge(amount=cost(11, 2), prompt=11, completion=2)
FREE: Final = {"input_price": 0, "output_price": 0, "margin": 0}


@asynccontextmanager
async def behind(
    answers: Sequence[bytes] = SOUND, **members: Any
) -> AsyncIterator[tuple[Requests, AccountsStack]]:
    """Run the stack before an upstream with one answer for streams and one for whole requests.

    Args:
        answers: The two answers.
        members: Members of the entries of both models; None leaves out a usual one.
    """
    async with raw_server([(answer,) for answer in answers]) as upstream:
        entries = {
            name: {
                member: value
                for member, value in priced(
                    upstream_model=f"{number}", upstream="raw", **members
                ).items()
                if value is not None
            }
            for number, name in enumerate(FORMS)
        }
        async with accounts_stack(entries, base_urls={"raw": upstream.url}) as stack:
            yield upstream, stack
            await stack.rests()
            stack.books.nothing_is_open()


async def ask(
    stack: AccountsStack, door: DoorName, form: str, **members: Any
) -> tuple[list[Any], Charge]:
    """Return the documents that a caller gets, and the charge."""
    team = stack.books.team()
    request = {**document(form), **members}
    failure, said = await call_with_receipts(
        stack, door, team.key, request, streamed=form == "streamed"
    )
    assert failure is None
    await stack.service.rests()
    (charge,) = stack.books.charges(team)
    return said, charge


def receipts(said: Sequence[Any]) -> list[Any]:
    """Return the receipts of documents, and remove them."""
    used = [one["usage"] for one in said if (one.get("usage") or {}).get("cost_details")]
    return [(one.pop("cost"), one.pop("cost_details")) for one in used]


def finishes(said: Sequence[Any]) -> list[str]:
    return [
        choice["finish_reason"]
        for one in said
        for choice in one["choices"]
        if choice.get("finish_reason") is not None
    ]


def texts(said: Sequence[Any]) -> str:
    choices = [choice for one in said for choice in one["choices"]]
    return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)


@pytest.mark.parametrize(
    ("sent", "told"), [("eos", "stop"), ("max_len", "length"), ("stop", "stop"), ("odd", "odd")]
)
async def test_a_finish_reason_of_the_upstream_becomes_the_callers(sent: str, told: str) -> None:
    choice = {**whole()["choices"][0], "finish_reason": sent}
    answers = (
        http(*PIECES, event(chunk(None, sent)), event(report()), DONE),
        json_answer(event(whole(choices=[choice])).removeprefix(b"data: ")),
    )
    named = {"eos": "stop", "max_len": "length"}
    async with behind(answers, finish_reasons=named) as (_, stack):
        for door in DOORS:
            for form in FORMS:
                said, charge = await ask(stack, door, form)
                assert (finishes(said), charge) == ([told], REPORTED), (door, form)


async def test_the_upstream_gets_the_headers_and_the_query() -> None:
    async with behind(
        headers={"X-Portkey-Provider": "openai", "user-agent": "ours"},
        header_variables={"api-key": "KEY", "Authorization": "KEY"},
        query={"api-version": "2024-10-21", "a": "b c&d"},
    ) as (upstream, stack):
        for door in DOORS:
            for form in FORMS:
                _, charge = await ask(stack, door, form)
                assert charge == REPORTED
                head = upstream.heads[-1].decode()
                first, *lines = head.split("\r\n")
                path = "/v1/chat/completions?api-version=2024-10-21&a=b+c%26d"
                assert first == f"POST {path} HTTP/1.1"
                headers = [
                    (name.lower(), value) for name, _, value in (x.partition(": ") for x in lines)
                ]
                for header in (
                    ("x-portkey-provider", "openai"),
                    ("user-agent", "ours"),
                    ("api-key", UPSTREAM_KEY),
                    ("authorization", UPSTREAM_KEY),
                ):
                    assert [each for each in headers if each[0] == header[0]] == [header]


@dataclass(kw_only=True, slots=True)
class Connections:
    """The connections of a server that closes none."""

    url: str = ""
    served: list[int] = field(default_factory=list)
    """The number of requests on each connection, in the order of their beginning."""
    closed: int = 0
    """The connections that the service closed."""


@asynccontextmanager
async def patient_server(answer: bytes) -> AsyncIterator[Connections]:
    """Run an upstream that keeps every connection, with one answer."""
    connections = Connections()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(connections.served)
        connections.served.append(0)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(size)
                connections.served[number] += 1
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            connections.closed += 1
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        connections.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield connections


@pytest.mark.parametrize(("keepalive", "served"), [(0, [1, 1, 1]), (3600, [3])])
async def test_a_connection_is_kept_as_long_as_the_dialect_has_it(
    keepalive: int, served: list[int]
) -> None:
    answer = SOUND[1].replace(b"connection: close\r\n", b"")
    async with patient_server(answer) as connections:
        entry = priced(upstream="raw", keepalive=keepalive)
        async with accounts_stack({"whole": entry}, base_urls={"raw": connections.url}) as stack:
            for door in DOORS:
                _, charge = await ask(stack, door, "whole")
                assert charge == REPORTED
            await stack.rests()
            assert connections.served == served
            if not keepalive:
                await until(lambda: connections.closed == len(served), "a connection is open")


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_above_the_maximum_becomes_the_maximum(member: str) -> None:
    async with behind(
        default_output_tokens=10, maximum_output_tokens=50, output_limit_excess="clamp"
    ) as (upstream, stack):
        for door in DOORS:
            for form in FORMS:
                holds = {}
                for asked, sent in ((49, 49), (50, 50), (51, 50), (99, 50), (1_000_000, 50)):
                    team = stack.books.team()
                    request = {**document(form), member: asked}
                    failure, said = await call(
                        stack, door, team.key, request, streamed=form == "streamed"
                    )
                    assert (failure, finishes(said)) == (None, ["stop"])
                    limits = {"max_tokens", "max_completion_tokens"} & upstream.bodies[-1].keys()
                    assert limits == {"max_tokens"}
                    assert upstream.bodies[-1]["max_tokens"] == sent
                    await stack.service.rests()
                    assert stack.books.charges(team) == [REPORTED]
                    (holds[asked],) = stack.books.holds(team)
                # The hold covers what the upstream may send. These requests have the same size.
                assert holds[49] < holds[50] == holds[51] == holds[99]


async def test_a_limit_above_the_maximum_is_refused_by_default() -> None:
    async with behind(default_output_tokens=10, maximum_output_tokens=50) as (upstream, stack):
        for door in DOORS:
            for form in FORMS:
                team = stack.books.team()
                request = {**document(form), "max_tokens": 51}
                failure, _ = await call(stack, door, team.key, request, streamed=form == "streamed")
                assert failure is not None
                assert (failure.status, failure.error["param"]) == (422, "max_tokens")
                assert stack.books.charges(team) == []
        assert upstream.bodies == []


LONG: Final = 1500
"""Pieces of a response that overruns a limit of 10 tokens beyond doubt."""


async def test_a_free_model_without_a_default_imposes_no_limit() -> None:
    pieces = [event(chunk("a"))] * LONG
    used = usage(completion_tokens=LONG, total_tokens=11 + LONG)
    answers = (
        http(*pieces, STOP, event(report(usage=used)), DONE),
        json_answer(event(whole(usage=used)).removeprefix(b"data: ")),
    )
    members = {**FREE, "default_output_tokens": None, "maximum_output_tokens": 10}
    async with behind(answers, **members) as (upstream, stack):
        for door in DOORS:
            for form in FORMS:
                said, charge = await ask(stack, door, form)
                assert not {"max_tokens", "max_completion_tokens"} & upstream.bodies[-1].keys()
                assert finishes(said) == ["stop"]
                assert charge == Charge(amount=0, prompt=11, completion=LONG)
            assert texts((await ask(stack, door, "streamed"))[0]) == "a" * LONG
            # A limit of the caller is sent, and the stream is cut.
            said, charge = await ask(stack, door, "streamed", max_tokens=10)
            assert upstream.bodies[-1]["max_tokens"] == 10
            assert finishes(said) == ["length"]
            assert len(texts(said)) < LONG
            assert (charge.amount, charge.completion, charge.estimated) == (0, 10, True)


@pytest.mark.parametrize("reports", [True, False])
@pytest.mark.parametrize("requested", [True, False])
async def test_an_upstream_is_never_asked_with_stream_options(
    requested: bool, reports: bool
) -> None:
    answers = (http(*(STREAM if reports else (*PIECES, STOP, DONE))), SOUND[1])
    async with behind(answers, stream_options="never") as (upstream, stack):
        for door in DOORS:
            said, charge = await ask(stack, door, "streamed", **(ASKED if requested else {}))
            assert "stream_options" not in upstream.bodies[-1]
            assert len(receipts(said)) == requested
            usages = [one["usage"] for one in said if one.get("usage") is not None]
            assert texts(said) == "Blue whale"
            assert (charge.completion, charge.estimated, charge.partial) == (2, not reports, False)
            told = usage(prompt_tokens=charge.prompt, total_tokens=charge.prompt + 2)
            marked = told if reports else {**told, "estimated": True}
            assert usages == ([marked] if requested else [])
            assert charge.amount == cost(charge.prompt, 2)
            assert not reports or charge == REPORTED
        assert len(upstream.bodies) == len(DOORS)


COSTS: Final = {"cost": 0.5, "cost_details": {"upstream": 1}, "estimated_cost": 2}


@pytest.mark.parametrize(
    ("members", "shown"),
    [
        ({}, False),
        ({"hide_cost": True}, False),
        ({"hide_cost": False}, True),
        (FREE, True),
        ({**FREE, "hide_cost": True}, False),
        ({**FREE, "hide_cost": False}, True),
    ],
)
async def test_the_costs_of_the_upstream_are_hidden_or_shown(
    members: dict[str, Any], shown: bool
) -> None:
    used = usage(**COSTS, queue_time=1)
    answers = (
        http(*PIECES, STOP, event(report(usage=used)), DONE),
        json_answer(event(whole(usage=used)).removeprefix(b"data: ")),
    )
    amount = 0 if "input_price" in members else REPORTED.amount
    async with behind(answers, **members) as (_, stack):
        for door in DOORS:
            for form in FORMS:
                said, charge = await ask(stack, door, form, **(ASKED if form == "streamed" else {}))
                [(told, details)] = receipts(said)
                assert round(told * 10**9) == details["nano_credits"] == amount
                assert details["upstream_inference_cost"] == (COSTS["cost"] if shown else None)
                rest = {"estimated_cost": 2} if shown else {}
                assert said[-1]["usage"] == usage(**rest, queue_time=1)
                assert charge == Charge(amount=amount, prompt=11, completion=2)
