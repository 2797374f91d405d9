"""The status depends on the first message: tests with iterators."""

import grpc
import pytest

from chatcompletion import charges
from chatcompletion.v1.chat_completion_service_pb2 import Charge, StreamChatCompletionResponse
from restbridge.chat_completions import relay
from restbridge.event_stream import DONE, KEEP_ALIVE, EventStream
from restbridge.headers import Metadata
from restbridge.http.exchange import Exchange
from tests.unit.restbridge.exchanges import FakeClock, Wire, exchange


class FakeCall:
    """A call that yields some messages, and then succeeds or fails."""

    def __init__(
        self,
        messages: int,
        fails: Exception | None = None,
        *,
        clock: FakeClock,
        charge: Charge | None = None,
        serialized: bool = False,
    ) -> None:
        self._serialized = serialized
        self._messages = messages
        self._read = 0
        self._charge = charge
        self._fails = fails
        self._clock = clock

    async def read(self) -> object:
        if self._read == self._messages:
            if self._fails is not None:
                raise self._fails
            return grpc.aio.EOF
        await self._clock.advance(20 if self._messages > 5 else 0)
        response = StreamChatCompletionResponse()
        response.chunk.id = str(self._read)
        response.resume_token = f"h-{self._read}"
        self._read += 1
        return response.SerializeToString() if self._serialized else response

    async def initial_metadata(self) -> Metadata:
        return (("openai-processing-ms", "3"), ("set-cookie", "a"))

    async def trailing_metadata(self) -> Metadata:
        return charges.metadata(self._charge) if self._charge else ()


async def run(
    messages: int,
    fails: Exception | None = None,
    charge: Charge | None = None,
    *,
    has_ids: bool = False,
    serialized: bool = False,
) -> tuple[Wire, Exchange, Exception | None]:
    wire, clock, of = Wire(), FakeClock(), exchange()
    try:
        async with EventStream(of, wire.send, clock=clock, has_ids=has_ids) as events:
            call = FakeCall(messages, fails, clock=clock, charge=charge, serialized=serialized)
            await relay(call, events)
    except ValueError as error:
        return wire, of, error
    return wire, of, None


@pytest.mark.parametrize("serialized", [False, True])
async def test_messages_become_events(serialized: bool) -> None:
    wire, _, _ = await run(2, serialized=serialized)
    assert wire.body == b'data: {"id":"0"}\n\ndata: {"id":"1"}\n\n' + DONE
    assert wire.ended
    assert wire.headers[b"openai-processing-ms"] == b"3"
    assert b"set-cookie" not in wire.headers


async def test_events_have_ids_if_the_stream_can_be_resumed() -> None:
    wire, _, _ = await run(2, has_ids=True)
    assert wire.body == b'id: h-0\ndata: {"id":"0"}\n\nid: h-1\ndata: {"id":"1"}\n\n' + DONE


async def test_no_message_is_a_complete_stream() -> None:
    wire, _, _ = await run(0)
    assert (wire.status, wire.body) == (200, DONE)


async def test_a_failure_before_the_first_message_finds_nothing_sent() -> None:
    wire, of, error = await run(0, ValueError())
    assert isinstance(error, ValueError)
    assert wire.sent == []
    assert not of.streams_events


@pytest.mark.parametrize("messages", [1, 3])
async def test_a_failure_after_it_finds_a_stream_that_is_not_done(messages: int) -> None:
    wire, of, error = await run(messages, ValueError())
    assert isinstance(error, ValueError)
    assert of.streams_events
    assert DONE not in wire.body
    assert not wire.ended


async def test_silence_is_broken_between_messages() -> None:
    wire, _, _ = await run(6)
    assert wire.body.count(KEEP_ALIVE) == 6
    assert wire.body.endswith(DONE)


async def test_the_receipt_is_a_comment_before_the_end() -> None:
    charge = Charge(hold_id="h-1", amount_nano_credits=9, prompt_nano_credits=4, partial=True)

    wire, _, _ = await run(1, charge=charge)

    text = b'nano-credits=9, prompt=4, completion=0, hold="h-1", partial'
    assert wire.body.endswith(b": charge " + text + b"\n\n" + DONE)


async def test_no_blank_line_follows_a_comment_of_a_stream_with_ids() -> None:
    charge = Charge(hold_id="h-1", amount_nano_credits=9)

    wire, _, _ = await run(6, charge=charge, has_ids=True)

    assert wire.body.count(b": keep-alive\n") == 6
    assert b": keep-alive\n\n" not in wire.body
    assert wire.body.endswith(b'hold="h-1"\ndata: [DONE]\n\n')
