"""Invalid token counts in otherwise valid responses."""

from collections.abc import Callable

from service.simulator.completion_request import Document
from service.simulator.faults.fault import Fault, Play, plays
from service.simulator.response_documents import encode, usage
from service.simulator.streaming import finish, send_events

HUGE = 2**63
"""The count of `usage-huge`: one more than a signed 64-bit integer holds."""

_Spoil = Callable[[Document], list[object]]


def _counts(count: object) -> _Spoil:
    def spoil(sound: Document) -> list[object]:
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        return [{**sound, **dict.fromkeys(names, count)}]

    return spoil


FAULTS: list[Fault] = []


def _spoilt(name: str, spoil: _Spoil) -> None:
    """Add a fault that sends the results of `spoil` instead of the valid usage."""

    @plays(FAULTS, name, "any", name.replace("-", " "))
    async def _play(play: Play) -> None:
        usages = spoil(usage(play.completion))
        if not play.request.stream:
            document = play.document()
            del document["usage"]
            for spoilt in usages:
                document["usage"] = spoilt
            play.exchange.reply(200, encode(document))
            return
        chunks = [chunk for chunk in play.chunks() if chunk["choices"]]
        chunks += [{**chunks[-1], "choices": [], "usage": spoilt} for spoilt in usages]
        play.exchange.head()
        await send_events(play.exchange, map(encode, chunks), play.delay)
        finish(play.exchange)


@plays(FAULTS, "usage-in-every-chunk", "stream", "usage in every chunk")
async def _in_every_chunk(play: Play) -> None:
    """Send the usage in every chunk, as vLLM can, and no usage chunk."""
    sound = usage(play.completion)
    chunks = [{**chunk, "usage": sound} for chunk in play.chunks() if chunk["choices"]]
    play.exchange.head()
    await send_events(play.exchange, map(encode, chunks), play.delay)
    finish(play.exchange)


_spoilt("usage-missing", lambda _: [])
_spoilt("usage-twice", lambda sound: [sound, sound])
_spoilt("usage-negative", _counts(-1))
_spoilt("usage-huge", _counts(HUGE))
_spoilt("usage-text", _counts("7"))
_spoilt("usage-fraction", _counts(1.5))
_spoilt("usage-null", lambda _: [None])
_spoilt("usage-list", lambda _: [[]])
