"""Token counts that make no sense, in otherwise sound answers."""

from collections.abc import Callable

from service.simulator.completion_request import Document
from service.simulator.faults.fault import Fault, Play
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


def _fault(name: str, sentence: str, spoil: _Spoil) -> Fault:
    """Make a fault that sends, instead of the sound usage, each that `spoil` makes of it."""

    async def play(play: Play) -> None:
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

    return Fault(name=name, form="any", covers=name.replace("-", " "), sentence=sentence, play=play)


async def _in_every_chunk(play: Play) -> None:
    sound = usage(play.completion)
    chunks = [{**chunk, "usage": sound} for chunk in play.chunks() if chunk["choices"]]
    play.exchange.head()
    await send_events(play.exchange, map(encode, chunks), play.delay)
    finish(play.exchange)


FAULTS = (
    _fault("usage-missing", "Leaves the usage out although it was asked for.", lambda _: []),
    _fault("usage-twice", "Sends the usage chunk twice.", lambda sound: [sound, sound]),
    _fault("usage-negative", "Counts -1 token of each kind.", _counts(-1)),
    _fault("usage-huge", "Counts 2^63 tokens of each kind.", _counts(HUGE)),
    _fault("usage-text", 'Counts "7" tokens, as a string.', _counts("7")),
    _fault("usage-fraction", "Counts 1.5 tokens of each kind.", _counts(1.5)),
    _fault("usage-null", "Sends null as the usage.", lambda _: [None]),
    _fault("usage-list", "Sends an array as the usage.", lambda _: [[]]),
    Fault(
        name="usage-in-every-chunk",
        form="stream",
        covers="usage in every chunk",
        sentence="Sends the usage in every chunk, as vLLM can, and in none of its own.",
        play=_in_every_chunk,
    ),
)
