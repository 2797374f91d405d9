import json
from typing import Any

import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion
from service.metering.progress import Progress
from tests.unit.service.samples import (
    CONTENT,
    chunk,
    chunk_message,
    completion,
    usage_chunk,
)


def completion_message(document: dict[str, Any]) -> ChatCompletion:
    return openai_json.decode_completion(json.dumps(document).encode())


@pytest.mark.parametrize("wants_usage", [True, False])
def test_the_usage_chunk_is_the_callers_if_it_was_asked_for(wants_usage: bool) -> None:
    progress = Progress(wants_usage=wants_usage)

    assert progress.observe(chunk_message(chunk("a")))
    assert progress.observe(chunk_message(usage_chunk())) is wants_usage
    assert progress.usage is not None
    assert progress.usage.total_tokens == 8


def test_usage_beside_choices_does_not_withhold_them() -> None:
    progress = Progress(wants_usage=False)
    usage = usage_chunk()["usage"]

    assert progress.observe(chunk_message(chunk("a", usage=usage)))
    assert progress.usage is not None


def test_a_null_usage_is_none() -> None:
    progress = Progress(wants_usage=False)

    assert progress.observe(chunk_message(chunk("a", usage=None)))
    assert progress.observe(chunk_message({**chunk("a", usage=None), "choices": []}))
    assert progress.usage is None


def test_the_last_usage_counts() -> None:
    progress = watched(usage_chunk(1, 1), usage_chunk(2, 3))

    assert progress.usage is not None
    assert progress.usage.total_tokens == 5


# --------------------------------------------------------------------------- what is to be charged


def watched(*documents: dict[str, Any], estimate: int = 90) -> Progress:
    progress = Progress(wants_usage=True, prompt_estimate=estimate)
    for document in documents:
        progress.observe(chunk_message(document))
    return progress


def charged(progress: Progress) -> tuple[int, int, bool]:
    """Return what is charged, prompt and completion, and whether it was counted."""
    usage = progress.usage
    if usage is None:
        return progress.prompt_estimate, progress.counted, True
    return usage.prompt_tokens, usage.completion_tokens, False


def piece(text: str, *, index: int = 0, finish: str | None = None, **usage: int) -> dict[str, Any]:
    return chunk(text, finish, index=index, **({"usage": counts(**usage)} if usage else {}))


def counts(prompt: int, completed: int) -> dict[str, Any]:
    usage: dict[str, Any] = usage_chunk(prompt, completed)["usage"]
    return usage


STOP = chunk(None, "stop")
WORDS = [piece("four")] * 50

CHARGED: dict[str, tuple[list[dict[str, Any]], tuple[int, int, bool]]] = {
    "no report": ([*WORDS, STOP], (90, 50, True)),
    "after all was said": ([*WORDS, STOP, usage_chunk(10, 40)], (10, 40, False)),
    "after all was said, of more": ([*WORDS, STOP, usage_chunk(10, 60)], (10, 60, False)),
    "with the reason": (
        [*WORDS, piece("", finish="stop", prompt=10, completed=40)],
        (10, 40, False),
    ),
    "with the last word and the reason": (
        [*WORDS, piece("four", finish="stop", prompt=10, completed=40)],
        (10, 40, False),
    ),
    "first, then cut": ([piece("", prompt=10, completed=0), *WORDS], (10, 50, True)),
    "first, then nothing": ([piece("", prompt=10, completed=0)], (10, 0, False)),
    "early, then cut": ([piece("four", prompt=10, completed=1), *WORDS], (10, 51, True)),
    "early, then complete": ([piece("four", prompt=10, completed=1), *WORDS, STOP], (10, 51, True)),
    "early, of more than what came": ([usage_chunk(10, 80), *WORDS], (10, 80, False)),
    "in each": (
        [piece("four", prompt=10, completed=k) for k in range(1, 51)],
        (10, 50, False),
    ),
    "of each choice alone": (
        [piece("four", index=i, prompt=10, completed=k) for k in range(1, 51) for i in range(4)],
        (10, 200, True),
    ),
    "of each choice alone, all finished": (
        [
            *(piece("four", index=i, prompt=10, completed=1) for i in range(4)),
            *(piece("", index=i, finish="stop", prompt=10, completed=1) for i in range(4)),
        ],
        (10, 4, True),
    ),
    "of each choice alone, then of all": (
        [
            *(piece("four", index=i, prompt=10, completed=1) for i in range(4)),
            *(piece("", index=i, finish="stop", prompt=10, completed=1) for i in range(4)),
            usage_chunk(10, 3),
        ],
        (10, 3, False),
    ),
    "before another choice": (
        [*WORDS, STOP, usage_chunk(10, 40), *[piece("four", index=1)] * 5],
        (10, 55, True),
    ),
    "zeros in each": (
        [*[piece("four", prompt=0, completed=0)] * 50, STOP],
        (90, 50, True),
    ),
    "zeros after all was said": ([*WORDS, STOP, usage_chunk(0, 0)], (90, 50, True)),
    "no completion after some text": ([*WORDS, STOP, usage_chunk(10, 0)], (90, 50, True)),
    "no completion, and no text": ([STOP, usage_chunk(10, 0)], (10, 0, False)),
    "sound, then zeros": ([*WORDS, STOP, usage_chunk(10, 40), usage_chunk(0, 0)], (10, 40, False)),
}


@pytest.mark.parametrize(("documents", "charge"), CHARGED.values(), ids=CHARGED)
def test_a_report_is_believed_if_it_came_when_all_was_said(
    documents: list[dict[str, Any]], charge: tuple[int, int, bool]
) -> None:
    assert charged(watched(*documents)) == charge


@pytest.mark.parametrize(
    ("usage", "charge"),
    [
        (counts(10, 2), (10, 2, False)),
        (counts(10, 10**6), (10, 10**6, False)),
        (counts(10, 0), (90, len(CONTENT) // 4 + 1, True)),
        (counts(0, 0), (90, len(CONTENT) // 4 + 1, True)),
        (counts(-1, 7), (90, len(CONTENT) // 4 + 1, True)),
        (None, (90, len(CONTENT) // 4 + 1, True)),
    ],
)
def test_a_whole_answer_is_charged_by_its_report_where_that_makes_sense(
    usage: dict[str, Any] | None, charge: tuple[int, int, bool]
) -> None:
    progress = Progress(wants_usage=True, prompt_estimate=90)
    progress.take(completion_message(completion(usage=usage)))

    assert len(CONTENT) % 4
    assert charged(progress) == charge
    assert progress.delivered


def test_a_whole_answer_of_nothing_is_believed_to_have_no_tokens() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
    progress = Progress(wants_usage=True, prompt_estimate=90)
    progress.take(completion_message(completion(choices=[choice], usage=counts(10, 0))))

    assert charged(progress) == (10, 0, False)
    assert progress.delivered


def test_no_more_is_counted_than_the_upstream_was_allowed() -> None:
    progress = Progress(wants_usage=True, most=20)
    for document in [piece("incomprehensibilities")] * 10:
        progress.observe(chunk_message(document))

    assert progress.counted == 20
    assert charged(progress) == (0, 20, True)
    progress.observe(chunk_message(usage_chunk(10, 25)))
    assert charged(progress) == (10, 25, False)


# ------------------------------------------------------------------------------------ overruns


@pytest.mark.parametrize(("most", "pieces"), [(1, 66), (20, 104), (1000, 2064)])
def test_an_answer_twice_as_long_as_allowed_and_some_more_overruns(most: int, pieces: int) -> None:
    progress = Progress(wants_usage=True, most=most)
    for _ in range(pieces):
        progress.observe(chunk_message(piece("word")))
    assert not progress.overruns
    progress.observe(chunk_message(piece("")))
    assert not progress.overruns
    progress.observe(chunk_message(piece("word")))
    assert progress.overruns


def test_a_large_piece_is_no_overrun() -> None:
    progress = Progress(wants_usage=True, most=10)
    picture = {"images": [{"image_url": {"url": "data:image/png;base64," + "A" * 100_000}}]}
    choice = {"index": 0, "delta": picture, "finish_reason": None}
    for document in (piece("A" * 100_000), {**chunk(), "choices": [choice]}):
        progress.observe(chunk_message(document))
        assert progress.counted == 10
        assert not progress.overruns


def cut(progress: Progress, **members: Any) -> list[Any]:
    last = chunk_message({**piece("d"), "system_fingerprint": "fp", "vendor": 1, **members})
    progress.observe(last)
    made = list(progress.cut(last))
    assert progress.complete
    return [json.loads(openai_json.encode_chunk(each)) for each in made]


def test_a_cut_finishes_each_choice_that_is_not() -> None:
    progress = Progress(wants_usage=False, most=2)
    for document in (piece("a", index=2), piece("b", index=1, finish="stop"), piece("c", index=3)):
        progress.observe(chunk_message(document))
    head = {**chunk("d"), "system_fingerprint": "fp"}

    assert cut(progress) == [
        {
            **head,
            "choices": [
                {"index": index, "delta": {}, "finish_reason": "length"} for index in (0, 2, 3)
            ],
        }
    ]
    assert charged(progress) == (0, 2, True)


def test_a_cut_tells_the_usage_where_that_is_wanted() -> None:
    progress = watched()
    progress.most = 2
    told = {"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91}
    ending, used = cut(progress)
    assert [choice["finish_reason"] for choice in ending["choices"]] == ["length"]
    assert (used["choices"], used["usage"], used["id"]) == ([], told, ending["id"])

    # What the upstream reported by then is what is charged, and told.
    progress = watched()
    _, used = cut(progress, usage=counts(10, 7))
    assert used["usage"] == counts(10, 7)


def test_what_was_finished_is_not_finished_again() -> None:
    progress = watched()
    progress.observe(chunk_message(piece("a", finish="stop")))
    assert [each["choices"] for each in cut(progress)] == [[]]


ARGUMENTS = json.dumps({"x": "word " * 5000})
AUDIO = {"id": "a", "data": "A" * 6400, "expires_at": 1, "transcript": "four"}


def call(**function: Any) -> dict[str, Any]:
    called = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return {"tool_calls": [called]}


SAID: dict[str, tuple[dict[str, Any], int]] = {
    # What is no text of the model.
    "nothing": ({}, 0),
    "the role": ({"role": "assistant"}, 0),
    "the role, and nothing": ({"role": "assistant", "content": ""}, 0),
    "nulls": (
        {"content": None, "reasoning": None, "tool_calls": None, "x": None, "audio": None},
        0,
    ),
    "what is empty": ({"content": "", "tool_calls": [], "x": "", "y": [], "z": {}}, 0),
    # Up to 16 bytes are a token; beyond that each four are one.
    "a letter": ({"content": "a"}, 1),
    "four": ({"content": "four"}, 4),
    "five": ({"content": "fives"}, 5),
    "characters of more bytes": ({"content": "漢字"}, 6),
    "much": ({"content": "word " * 200}, 1000),
    "more than 127": ({"content": "a" * 128}, 128),
    "more than 16 KiB": ({"content": "a" * 20_000}, 20_000),
    "beside the role and nulls": ({"role": "assistant", "content": "four", "refusal": None}, 4),
    # Other members.
    "a letter of reasoning": ({"reasoning": "a"}, 1),
    "reasoning": ({"reasoning_content": "word " * 10, "content": ""}, 50),
    "a refusal": ({"refusal": "Never"}, 5),
    "two of them": ({"content": "four", "reasoning": "four"}, 8),
    "parts": ({"content": [{"type": "text", "text": "four"}, {"type": "text", "text": "5"}]}, 5),
    "a whole call": (call(name="f", arguments=ARGUMENTS), 1 + len(ARGUMENTS)),
    "the beginning of a call": (call(name="f_44", arguments=""), 4),
    "a piece of a call": (call(arguments="four"), 4),
    "a call without anything": (call(), 1),
    "two calls": ({"tool_calls": [*call(arguments="four")["tool_calls"]] * 2}, 8),
    "a call beside a content": ({"content": "\n", **call(arguments=ARGUMENTS)}, 1 + len(ARGUMENTS)),
    "a custom call": (
        {"tool_calls": [{"index": 0, "custom": {"name": "c", "input": "input"}}]},
        6,
    ),
    "a vendor's call": ({"tool_calls": [{"index": 0, "mcp": "1234567"}]}, 9),
    "a function call": ({"function_call": {"name": "f", "arguments": "four"}}, 5),
    "an empty function call": ({"function_call": {}}, 0),
    "a function call without texts": ({"function_call": {"name": ""}}, 1),
    # Sound: a token for 64 bytes.
    "sound": ({"audio": AUDIO}, 4 + 400),
    "an id of sound": ({"audio": {"id": "a"}}, 1),
    # What the contract does not know.
    "a vendor's member": ({"thinking": "abc"}, 5),
    "a vendor's object": ({"reasoning_details": [{"text": "long " * 100}]}, 513),
    "a vendor's member that says it again": ({"reasoning": "four", "details": ["four"]}, 4),
    "a cut character": ({"content": "\ud83d"}, 8),
    "annotations": ({"annotations": [{"type": "url_citation"}]}, 14),
}


@pytest.mark.parametrize(("delta", "size"), SAID.values(), ids=SAID)
def test_each_piece_counts_by_the_bytes_of_what_the_model_wrote(
    delta: dict[str, Any], size: int
) -> None:
    document = {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    progress = watched(document, document)

    assert progress.counted == 2 * (min(size, 1) if size <= 16 else -(-size // 4))
    assert progress.delivered is (size > 0)


@pytest.mark.parametrize(("delta", "size"), SAID.values(), ids=SAID)
def test_a_whole_message_counts_like_a_piece_of_one(delta: dict[str, Any], size: int) -> None:
    message = {"role": "assistant", **delta}
    choices = [{"index": index, "message": message, "finish_reason": "stop"} for index in (0, 1)]
    progress = Progress(wants_usage=True)
    progress.take(completion_message(completion(choices=choices, usage=None)))

    assert progress.counted == -(-2 * size // 4)


@pytest.mark.parametrize(
    ("documents", "complete"),
    [
        ([], False),
        ([chunk("a")], False),
        ([chunk("a"), chunk(None, "stop")], True),
        ([chunk("a", "length")], True),
        ([chunk("a"), chunk("b", index=1), chunk(None, "stop")], False),
        ([chunk("a"), chunk("b", index=1), chunk(None, "stop"), chunk("c", "x", index=1)], True),
        ([chunk("a"), chunk(None, "stop", index=1)], False),
        ([chunk("a", "")], False),
        ([usage_chunk()], False),
        ([chunk("a", "stop"), usage_chunk()], True),
    ],
)
def test_a_stream_is_complete_when_each_choice_has_its_reason(
    documents: list[dict[str, Any]], complete: bool
) -> None:
    progress = Progress(wants_usage=True)
    for document in documents:
        progress.observe(chunk_message(document))

    assert progress.complete is complete
