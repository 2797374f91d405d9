import json
from typing import Any

import pytest

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import ChatCompletion
from service.metering.progress import Progress
from tests.support.samples import (
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
    assert progress.used == (3, 5, False)


@pytest.mark.parametrize(
    ("wants_usage", "wants_totals"), [(True, False), (False, False), (True, True)]
)
def test_usage_beside_choices_does_not_withhold_them(wants_usage: bool, wants_totals: bool) -> None:
    progress = Progress(wants_usage=wants_usage, wants_totals=wants_totals)
    message = chunk_message(chunk("a", usage=usage_chunk()["usage"]))

    assert progress.observe(message)
    assert message.HasField("usage") is wants_totals
    assert progress.used == (3, 5, False)


USAGE = usage_chunk()["usage"]
ESTIMATED = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "estimated": True}


@pytest.mark.parametrize(
    ("documents", "made"),
    [
        ([chunk("a"), chunk(None, "stop"), usage_chunk()], []),
        ([chunk("a"), chunk(None, "stop"), chunk(None, usage=USAGE)], []),
        ([chunk("a", usage=USAGE), chunk(None, "stop", usage=USAGE)], [USAGE]),
        ([chunk("a"), chunk(None, "stop")], [ESTIMATED]),
        ([chunk("a"), chunk(None, "stop", usage={"prompt_tokens": -1})], [ESTIMATED]),
    ],
)
@pytest.mark.parametrize("wants_usage", [True, False])
def test_usage_that_was_asked_for_has_a_chunk_of_its_own(
    documents: list[Any], made: list[Any], wants_usage: bool
) -> None:
    progress = Progress(wants_usage=wants_usage, prompt_estimate=9)
    last = chunk_message(documents[0])
    for document in documents:
        last = chunk_message(document)
        progress.observe(last)
    chunks = [json.loads(openai_json.encode_chunk(each)) for each in progress.missing_usage(last)]

    assert [each["usage"] for each in chunks] == (made if wants_usage else [])
    assert all(each["choices"] == [] and each["id"] == last.id for each in chunks)
    assert not list(progress.missing_usage(last))


def test_a_usage_chunk_can_have_a_choice_that_says_nothing() -> None:
    for wants_usage in (True, False):
        progress = Progress(wants_usage=wants_usage)
        progress.observe(chunk_message(chunk("a", "stop")))
        message = chunk_message(chunk(None, usage=USAGE))

        assert progress.observe(message) is wants_usage
        assert not message.choices
        assert message.extra_json["choices"] == "[]"


def test_a_choice_that_says_nothing_before_the_end_stays() -> None:
    for wants_totals in (True, False):
        progress = Progress(wants_usage=True, wants_totals=wants_totals)
        message = chunk_message(chunk("", usage=USAGE))

        assert progress.observe(message)
        assert len(message.choices) == 1
        assert message.HasField("usage") is wants_totals


def test_a_choice_that_says_something_stays() -> None:
    for more in (chunk("a", usage=USAGE), chunk(None, "stop", usage=USAGE)):
        progress = Progress(wants_usage=True)
        progress.observe(chunk_message(chunk("a", "stop")))
        message = chunk_message(more)

        assert progress.observe(message)
        assert message.choices


@pytest.mark.parametrize(
    ("before", "members", "delivered"),
    [
        # Members beyond the contract, of a chunk before and of the usage chunk.
        ({}, {}, False),
        ({}, {"timings": {"n": 2}}, True),
        ({"timings": 1}, {"timings": {"n": 2}}, False),
        ({"provider": "x"}, {"provider": "x"}, False),
        ({"provider": "x"}, {"provider": "x", "timings": 1}, True),
    ],
)
@pytest.mark.parametrize("beside", [{}, {"usage": usage_chunk()["usage"]}])
def test_a_usage_chunk_is_the_callers_for_its_other_members(
    before: dict[str, Any], members: dict[str, Any], delivered: bool, beside: dict[str, Any]
) -> None:
    progress = Progress(wants_usage=False)
    progress.observe(chunk_message(chunk("a", **before, **beside)))
    last = {**usage_chunk(4, 6), **members}
    message = chunk_message(last)

    assert progress.observe(message) is delivered
    del last["usage"]
    assert message == chunk_message(last)
    assert progress.used == (4, 6, False)


def test_so_many_names_of_members_are_remembered() -> None:
    progress = Progress(wants_usage=False)
    for k in range(100):
        progress.observe(chunk_message({**chunk("a"), f"member-{k}": 1}))

    assert not progress.observe(chunk_message({**usage_chunk(), "member-1": 1}))
    assert progress.observe(chunk_message({**usage_chunk(), "member-99": 1}))


def test_a_null_usage_is_none() -> None:
    progress = Progress(wants_usage=False)

    assert progress.observe(chunk_message(chunk("a", usage=None)))
    assert progress.observe(chunk_message({**chunk("a", usage=None), "choices": []}))
    assert progress.used.estimated


def test_the_last_usage_counts() -> None:
    progress = watched(usage_chunk(1, 1), usage_chunk(2, 3))

    assert progress.used == (2, 3, False)


# ---------------------------------------------------------------------------------------- charges


def watched(
    *documents: dict[str, Any], estimate: int = 90, choices: int = 1, most: int = 10**9
) -> Progress:
    progress = Progress(wants_usage=True, prompt_estimate=estimate, choices=choices, most=most)
    for document in documents:
        progress.observe(chunk_message(document))
    return progress


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
    "before another choice": (
        [*WORDS, STOP, usage_chunk(10, 40), *[piece("four", index=1)] * 5],
        (10, 55, True),
    ),
    "zeros in each": (
        [*[piece("four", prompt=0, completed=0)] * 50, STOP],
        (90, 50, True),
    ),
    "no prompt after all was said": ([*WORDS, STOP, usage_chunk(0, 40)], (90, 40, True)),
    "a prompt, then none": (
        [*WORDS, STOP, usage_chunk(10, 40), usage_chunk(0, 41)],
        (10, 41, True),
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
    assert watched(*documents).used == charge


OF_FOUR: dict[str, tuple[list[dict[str, Any]], tuple[int, int, bool]]] = {
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
}


@pytest.mark.parametrize(("documents", "charge"), OF_FOUR.values(), ids=OF_FOUR)
def test_a_report_beside_one_of_several_choices_can_be_of_that_choice(
    documents: list[dict[str, Any]], charge: tuple[int, int, bool]
) -> None:
    assert watched(*documents, choices=4).used == charge


WANDERING = [piece("four", index=k) for k in range(50)]
"""The pieces of one choice, each under an index of its own."""


@pytest.mark.parametrize(
    ("documents", "charge"),
    [
        ([*WANDERING, piece("", index=50, finish="stop", prompt=10, completed=40)], (10, 40)),
        ([*WANDERING, piece("", index=50, finish="stop"), usage_chunk(10, 40)], (10, 40)),
        ([*WANDERING[:-1], piece("a", index=49, finish="stop", prompt=10, completed=40)], (10, 40)),
    ],
)
def test_the_only_choice_may_wander_from_index_to_index(
    documents: list[dict[str, Any]], charge: tuple[int, int]
) -> None:
    progress = watched(*documents)

    assert progress.complete
    assert progress.used == (*charge, False)


ENDED: dict[str, tuple[int, list[dict[str, Any]], tuple[int, int, bool]]] = {
    # How many choices were asked for, what came before [DONE], and what is charged.
    "no report": (1, WORDS, (90, 50, True)),
    "a report after all pieces": (1, [*WORDS, usage_chunk(10, 40)], (10, 40, False)),
    "a report beside the last piece": (
        1,
        [*WORDS, piece("four", prompt=10, completed=40)],
        (10, 40, False),
    ),
    "a report before a piece": (1, [usage_chunk(10, 40), *WORDS], (10, 50, True)),
    "a report before the finish_reason": (1, [*WORDS, usage_chunk(10, 40), STOP], (10, 50, True)),
    "a report of two choices": (
        2,
        [*WORDS, *[piece("four", index=1)] * 50, usage_chunk(10, 90)],
        (10, 90, False),
    ),
    "a report beside one of two choices": (
        2,
        [*WORDS, *[piece("four", index=1)] * 49, piece("four", index=1, prompt=10, completed=50)],
        (10, 100, True),
    ),
    "a report of one of two choices, of many tokens": (
        2,
        [
            *[piece("a", index=1)] * 79,
            piece("a", index=1, finish="stop"),
            piece("four"),
            usage_chunk(10, 80),
        ],
        (10, 81, True),
    ),
}


@pytest.mark.parametrize(("choices", "documents", "charge"), ENDED.values(), ids=ENDED)
def test_the_end_settles_the_last_report_of_a_stream_without_finish_reasons(
    choices: int, documents: list[dict[str, Any]], charge: tuple[int, int, bool]
) -> None:
    progress = watched(*documents, choices=choices)
    progress.end()

    assert progress.complete
    assert progress.used == charge


def test_the_end_of_nothing_is_no_complete_answer() -> None:
    progress = watched(usage_chunk(10, 0))
    progress.end()

    assert not progress.complete


@pytest.mark.parametrize(
    ("usage", "charge"),
    [
        ({"prompt_tokens": 10, "total_tokens": 45}, (10, 35, False)),
        ({"prompt_tokens": 10, "total_tokens": 45, "completion_tokens": None}, (10, 35, False)),
        ({"prompt_tokens": 0, "total_tokens": 35}, (90, 35, True)),
        ({"prompt_tokens": 10, "total_tokens": 45, "completion_tokens": 30}, (10, 30, False)),
        # No sense.
        ({"prompt_tokens": 10, "total_tokens": 10}, (90, 50, True)),
        ({"prompt_tokens": 10, "total_tokens": 9}, (90, 50, True)),
        ({"prompt_tokens": 10, "total_tokens": 45, "completion_tokens": "35"}, (90, 50, True)),
        ({"prompt_tokens": 10}, (90, 50, True)),
        ({"total_tokens": 45}, (90, 50, True)),
    ],
)
def test_a_report_without_completion_tokens_has_the_rest_of_its_total(
    usage: dict[str, Any], charge: tuple[int, int, bool]
) -> None:
    last = {**usage_chunk(), "usage": usage}
    message = chunk_message(last)
    progress = watched(*WORDS, STOP)
    progress.observe(message)

    assert progress.used == charge
    assert message == chunk_message(last)  # the caller gets the report as it is


def test_a_report_of_a_prompt_alone_makes_sense_where_nothing_was_said() -> None:
    progress = watched(STOP, {**usage_chunk(), "usage": {"prompt_tokens": 10, "total_tokens": 10}})

    assert progress.used == (10, 0, False)


def test_the_usage_after_a_cut_is_the_report_as_it_was() -> None:
    usage = {"prompt_tokens": 10, "total_tokens": 65}
    message = chunk_message({**chunk("a"), "usage": usage})
    sent = chunk_message({**chunk("a"), "usage": usage}).usage
    progress = watched(*WORDS)
    progress.observe(message)

    assert list(progress.cut(message))[-1].usage == sent


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
    assert progress.used == charge
    assert progress.delivered


def test_a_whole_answer_of_nothing_is_believed_to_have_no_tokens() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
    progress = Progress(wants_usage=True, prompt_estimate=90)
    progress.take(completion_message(completion(choices=[choice], usage=counts(10, 0))))

    assert progress.used == (10, 0, False)
    assert progress.delivered


def test_no_more_is_counted_than_the_upstream_was_allowed() -> None:
    progress = Progress(wants_usage=True, most=20)
    for document in [piece("incomprehensibilities")] * 10:
        progress.observe(chunk_message(document))

    assert progress.counted == 20
    assert progress.used == (0, 20, True)
    progress.observe(chunk_message(usage_chunk(10, 25)))
    assert progress.used == (10, 25, False)


# ---------------------------------------------------------------------------------- several choices


def share(count: int, index: int = 0) -> list[dict[str, Any]]:
    """Return the pieces of a choice, with one token each."""
    return [piece("four", index=index)] * count


def stop(index: int = 0, **usage: int) -> dict[str, Any]:
    return piece("", index=index, finish="stop", **usage)


def mixed(*shares: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pieces of several choices, alternating."""
    longest = max(map(len, shares))
    return [each[at] for at in range(longest) for each in shares if at < len(each)]


def spelled_out(count: int, index: int = 0) -> list[dict[str, Any]]:
    """Return the pieces of a choice, with one character each."""
    return [piece("a", index=index)] * 4 * count


BOTH = mixed(share(50), share(40, 1))
EACH_LIMIT = 100

SEVERAL: dict[str, tuple[list[dict[str, Any]], tuple[int, int, bool]]] = {
    # The stream for n = 2, up to 100 tokens per choice, and the charge.
    # A total.
    "a total": ([*BOTH, stop(), stop(1), usage_chunk(10, 92)], (10, 92, False)),
    "a total of an end": ([*BOTH, stop(), stop(1), usage_chunk(10, 190)], (10, 190, False)),
    "a total, twice": ([*BOTH, stop(), stop(1), *[usage_chunk(10, 92)] * 2], (10, 92, False)),
    "a total, of long words": (
        [
            *mixed([piece("abcde ")] * 40, [piece("abcde ", index=1)] * 40),
            stop(),
            stop(1),
            usage_chunk(10, 80),
        ],
        (10, 80, False),
    ),
    "a total, a character a piece": (
        [*mixed(spelled_out(50), spelled_out(40, 1)), stop(), stop(1), usage_chunk(10, 90)],
        (10, 90, False),
    ),
    "a total, and one choice came": ([*share(50), stop(), usage_chunk(10, 12)], (10, 12, False)),
    "a total, before the end": ([*BOTH, usage_chunk(10, 90), stop(), stop(1)], (10, 90, False)),
    "an early report, then a total": (
        [usage_chunk(10, 0), *BOTH, stop(), stop(1), usage_chunk(10, 92)],
        (10, 92, False),
    ),
    # Reports of each choice, as llama.cpp sends them.
    "of each": (
        [*BOTH, stop(1), usage_chunk(10, 41), *share(3), stop(), usage_chunk(10, 54)],
        (10, 95, False),
    ),
    "of each, alike": (
        [
            *mixed(share(40), share(40, 1)),
            stop(1),
            usage_chunk(10, 41),
            stop(),
            usage_chunk(10, 41),
        ],
        (10, 82, False),
    ),
    "of each, one after the other": (
        [*share(50), stop(), usage_chunk(10, 51), *share(40, 1), stop(1), usage_chunk(10, 41)],
        (10, 92, False),
    ),
    "of each, twice": (
        [*BOTH, stop(1), *[usage_chunk(10, 41)] * 2, stop(), *[usage_chunk(10, 51)] * 2],
        (10, 92, False),
    ),
    "of each, then a total": (
        [*BOTH, stop(1), usage_chunk(10, 41), stop(), usage_chunk(10, 51), usage_chunk(10, 91)],
        (10, 91, False),
    ),
    "of each, a prompt first": (
        [usage_chunk(10, 0), *BOTH, stop(1), usage_chunk(10, 41), stop(), usage_chunk(10, 51)],
        (10, 92, False),
    ),
    "of each, then cut": ([*BOTH, stop(1), usage_chunk(10, 41), *share(3)], (10, 93, True)),
    "of each, one silent": ([*BOTH, stop(1), usage_chunk(10, 41), stop()], (10, 90, True)),
    "of each, of one token a piece": (
        [
            *mixed([piece("a")] * 60, [piece("b", index=1)] * 60),
            stop(1),
            usage_chunk(10, 60),
            stop(),
            usage_chunk(10, 60),
        ],
        (10, 120, False),
    ),
    "of one alone, at the end": ([*BOTH, stop(), stop(1), usage_chunk(10, 41)], (10, 90, True)),
    "of each, both at the end": (
        [*BOTH, stop(), stop(1), usage_chunk(10, 51), usage_chunk(10, 41)],
        (10, 90, True),
    ),
    "of one alone, at the end, both by their length": (
        [piece("a", finish="length"), piece("b", index=1, finish="length"), usage_chunk(10, 100)],
        (10, 200, True),
    ),
    "a total, both by their length": (
        [piece("a", finish="length"), piece("b", index=1, finish="length"), usage_chunk(10, 200)],
        (10, 200, False),
    ),
    "a total, both by the length of the context": (
        [piece("a", finish="length"), piece("b", index=1, finish="length"), usage_chunk(10, 90)],
        (10, 90, False),
    ),
    # Running totals.
    "so far, after each choice": (
        [*BOTH, stop(1), usage_chunk(10, 91), *share(5), stop(), usage_chunk(10, 97)],
        (10, 97, False),
    ),
    "so far, beside each piece": (
        [
            *(piece("four", index=k % 2, prompt=10, completed=k + 1) for k in range(90)),
            stop(0, prompt=10, completed=91),
            stop(1, prompt=10, completed=92),
        ],
        (10, 92, False),
    ),
    "so far, beside each piece, a character a piece": (
        [
            *(piece("a", index=k % 2, prompt=10, completed=k // 4 + 1) for k in range(360)),
            stop(0, prompt=10, completed=91),
            stop(1, prompt=10, completed=92),
            usage_chunk(10, 92),
        ],
        (10, 92, False),
    ),
    "so far, in chunks of their own, a character a piece": (
        [
            *(d for k in range(90) for d in (*spelled_out(1, k % 2), usage_chunk(10, k + 1))),
            *(stop(), usage_chunk(10, 91), stop(1), usage_chunk(10, 92)),
        ],
        (10, 92, False),
    ),
    # The usage of the choice in each piece, then a total: vLLM's continuous_usage_stats.
    "of each, beside each piece, then a total": (
        [
            *(piece("four", index=i, prompt=10, completed=k) for k in range(1, 41) for i in (0, 1)),
            *(stop(i, prompt=10, completed=41) for i in (0, 1)),
            usage_chunk(10, 82),
        ],
        (10, 82, False),
    ),
    "of each, beside each piece, then cut": (
        [piece("four", index=i, prompt=10, completed=k) for k in range(1, 41) for i in (0, 1)],
        (10, 80, True),
    ),
    "of each, beside the reason": (
        [*BOTH, stop(prompt=10, completed=51), stop(1, prompt=10, completed=41)],
        (10, 90, True),
    ),
    # Nothing above the limit.
    "of each, more than held": (
        [
            *mixed(share(90), share(90, 1), share(90, 2)),
            stop(),
            usage_chunk(10, 99),
            stop(1),
            usage_chunk(10, 99),
            stop(2),
            usage_chunk(10, 99),
        ],
        (10, 200, False),
    ),
    "no report": ([*BOTH, stop(), stop(1)], (90, 90, True)),
}


@pytest.mark.parametrize(("documents", "charge"), SEVERAL.values(), ids=SEVERAL)
def test_several_choices_are_charged_for_all_of_them_once(
    documents: list[dict[str, Any]], charge: tuple[int, int, bool]
) -> None:
    assert watched(*documents, choices=2, most=2 * EACH_LIMIT).used == charge


ONE_CHOICE: dict[str, tuple[list[dict[str, Any]], int]] = {
    "twice": ([*WORDS, STOP, *[usage_chunk(10, 40)] * 2], 40),
    "beside each piece, a character a piece": (
        [
            *(piece("a", prompt=10, completed=k // 4 + 1) for k in range(160)),
            STOP,
            usage_chunk(10, 41),
        ],
        41,
    ),
    "in chunks of their own": (
        [d for k in range(40) for d in (piece("four"), usage_chunk(10, k + 1))]
        + [stop(), usage_chunk(10, 41)],
        41,
    ),
    "of less than was counted": ([*WORDS, STOP, usage_chunk(10, 5)], 5),
    "of more than the limit": ([*WORDS, STOP, usage_chunk(10, 150)], 150),
}


@pytest.mark.parametrize(("documents", "completion"), ONE_CHOICE.values(), ids=ONE_CHOICE)
def test_the_last_report_of_a_single_choice_is_charged(
    documents: list[dict[str, Any]], completion: int
) -> None:
    assert watched(*documents, most=EACH_LIMIT).used == (10, completion, False)


@pytest.mark.parametrize(
    ("finishes", "reported", "charge"),
    [
        # Tokens of one byte: bytes prove nothing, but the limit does.
        (["length", "length"], 100, (10, 200, True)),
        (["length", "length", "length"], 100, (10, 300, True)),
        (["length", "length", "stop"], 100, (10, 200, True)),
        (["length", "length"], 200, (10, 200, False)),
        # By the length of the context, before the limit.
        (["length", "length"], 90, (10, 90, False)),
        (["stop", "stop"], 100, (10, 100, False)),
        (["length"], 100, (10, 100, False)),
    ],
)
def test_choices_that_ended_by_their_length_have_used_up_their_limit(
    finishes: list[str], reported: int, charge: tuple[int, int, bool]
) -> None:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": "a" * 90}, "finish_reason": finish}
        for i, finish in enumerate(finishes)
    ]
    progress = Progress(wants_usage=True, choices=len(choices), most=len(choices) * EACH_LIMIT)
    progress.take(completion_message(completion(choices=choices, usage=counts(10, reported))))

    assert progress.used == charge


TEXT = "word " * 40
LONG = "Donaudampfschifffahrt " * 20


@pytest.mark.parametrize(
    ("texts", "choices", "reported", "charge"),
    [
        # One choice, although more were requested: the report.
        ([TEXT], 1, 12, (10, 12, False)),
        ([TEXT], 2, 12, (10, 12, False)),
        # A total, of words as long as in English.
        ([TEXT] * 2, 2, 80, (10, 80, False)),
        ([TEXT] * 3, 3, 130, (10, 130, False)),
        # The report of one choice, as llama.cpp sends it.
        ([TEXT] * 2, 2, 40, (10, 100, True)),
        ([TEXT] * 3, 3, 41, (10, 150, True)),
        ([TEXT, "word " * 10], 2, 10, (10, 63, True)),
        # Tokens above the limit of one choice are a total, for words of any length.
        ([LONG] * 2, 2, 101, (10, 101, False)),
        # The count never exceeds the hold.
        (["word " * 100] * 2, 2, 100, (10, 200, True)),
    ],
)
def test_a_whole_answer_is_charged_for_each_choice_for_all_of_them(
    texts: list[str], choices: int, reported: int, charge: tuple[int, int, bool]
) -> None:
    progress = Progress(
        wants_usage=True, prompt_estimate=90, choices=choices, most=choices * EACH_LIMIT
    )
    progress.take(
        completion_message(
            completion(
                choices=[
                    {"index": i, "message": {"role": "assistant", "content": text}}
                    for i, text in enumerate(texts)
                ],
                usage=counts(10, reported),
            )
        )
    )

    assert progress.used == charge


DENSE: dict[str, tuple[str, float]] = {
    # A text, and as many bytes per token as such texts have on average: see tokens.LONG_TOKEN.
    "English": ("The blue whale is the largest animal that has ever lived on our planet. ", 4.7),
    "code": ("for (let i = 0; i < items.length; i++) { total += items[i].price; }\n", 3.5),
    "German": ("Der Blauwal ist das größte Tier, das jemals auf der Erde gelebt hat. ", 6),
    "Russian": ("Синий кит является самым крупным животным на нашей планете. ", 6),
    "Arabic": ("الحوت الأزرق هو أكبر حيوان عاش على كوكب الأرض على الإطلاق. ", 7),
    "Hindi": ("नीली व्हेल पृथ्वी पर अब तक का सबसे बड़ा जानवर है। ", 9),
    "Georgian": ("ლურჯი ვეშაპი არის ყველაზე დიდი ცხოველი დედამიწაზე. ", 10),
    "Chinese": ("蓝鲸是地球上有史以来最大的动物。", 4.5),
    "dense Chinese": ("蓝鲸是地球上有史以来最大的动物。", 6),
    "indented JSON": ('{\n                "name": 1,\n                "size": 2\n}\n', 10),
    "a table": ("| Blue whale                  | 30 m              |\n", 12),
}


@pytest.mark.parametrize(("text", "density"), DENSE.values(), ids=DENSE)
@pytest.mark.parametrize("tokens", [0, 1, 10])
def test_a_total_is_believed_in_any_language_and_that_of_one_choice_is_not(
    text: str, density: float, tokens: int
) -> None:
    """Return the tokens in pieces of a size, or in one piece."""
    texts = [text * 10] * 2
    of_one = -int(-len(texts[0].encode()) // density)
    size = tokens * len(texts[0]) // of_one
    for reported, believed in ((2 * of_one, True), (of_one, False)):
        progress = Progress(wants_usage=True, choices=2, most=20_000)
        if size:
            for at in range(0, len(texts[0]), size):
                for index in (0, 1):
                    progress.observe(chunk_message(piece(texts[0][at : at + size], index=index)))
            for each in (stop(), stop(1), usage_chunk(10, reported)):
                progress.observe(chunk_message(each))
        else:
            choices = [
                {"index": i, "message": {"role": "assistant", "content": each}}
                for i, each in enumerate(texts)
            ]
            usage = counts(10, reported)
            progress.take(completion_message(completion(choices=choices, usage=usage)))

        assert progress.used.estimated is not believed
        if believed:
            assert progress.used.completion == reported
        else:
            assert progress.used.completion > reported


# ------------------------------------------------------------------------------------ overruns


def passes(progress: Progress, delta: dict[str, Any], most: int = 100_000) -> int:
    """Return the number of pieces before a stream of them is cut, up to `most`."""
    document = {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    message = chunk_message(document)
    for number in range(most):
        progress.observe(message)
        if progress.overruns:
            return number
    return most


@pytest.mark.parametrize("most", [1, 20, 1000])
@pytest.mark.parametrize("size", [1, 4, 7, 8, 16, 40])
def test_an_overrun_is_proven_by_its_pieces_and_by_its_bytes(most: int, size: int) -> None:
    pieces = passes(Progress(wants_usage=True, most=most), {"content": "x" * size})

    assert pieces == max(2 * most + 64, 16 * (most + 64) // size)


def test_nothing_is_no_piece() -> None:
    progress = Progress(wants_usage=True, most=20)
    assert passes(progress, {"content": "x" * 16}, 104) == 104
    progress.observe(chunk_message(piece("")))
    assert not progress.overruns
    progress.observe(chunk_message(piece("x" * 16)))
    assert progress.overruns


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "word"},
        {"reasoning_content": "word", "content": ""},
        {"reasoning": "word", "reasoning_content": "word"},
        {"thinking": "word"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "word"}]}]},
        {"content": [{"type": "reasoning", "text": "word"}]},
        {"images": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"audio": {"data": "A" * 160}},
    ],
)
def test_reasoning_is_not_limited_everywhere_and_so_no_overrun(delta: dict[str, Any]) -> None:
    progress = Progress(wants_usage=True, most=10)

    assert passes(progress, delta, 2000) == 2000
    assert progress.used == (0, 10, True)
    # The output after it has its own limit.
    assert passes(progress, {"content": "word"}) == 16 * (10 + 64) // 4


@pytest.mark.parametrize(
    "delta",
    [
        {"content": [{"type": "text", "text": "word"}]},
        {"refusal": "word"},
        {"audio": {"transcript": "word", "data": "A" * 160}},
        {"content": "word", "reasoning": "word"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "word"}}]},
        {"tool_calls": [{"index": 0, "type": "custom", "custom": {"input": "word"}}]},
        {"function_call": {"arguments": "word"}},
    ],
)
def test_the_answer_is_limited_in_each_form(delta: dict[str, Any]) -> None:
    assert passes(Progress(wants_usage=True, most=10), delta) == 16 * (10 + 64) // 4


@pytest.mark.parametrize(
    ("deltas", "calling"),
    [
        ([{"content": "word"}], False),
        ([{"tool_calls": []}, {"function_call": None}], False),
        ([{"tool_calls": [{"index": 0, "function": {"name": "f"}}]}], True),
        ([{"tool_calls": [{"index": 0, "mcp": "x"}]}], True),
        ([{"tool_calls": [{"index": 0, "custom": {"name": "c"}}]}, {"content": "word"}], True),
        ([{"function_call": {"name": "f"}}], True),
        ([{"function_call": {"name": "f"}, "finish_reason": "function_call"}], False),
        (
            [
                {"tool_calls": [{"index": 0, "function": {"name": "f"}}], "index": 1},
                {"finish_reason": "stop"},
            ],
            True,
        ),
    ],
)
def test_a_call_is_unfinished_until_its_choice_is(
    deltas: list[dict[str, Any]], calling: bool
) -> None:
    progress = Progress(wants_usage=True)
    for delta in deltas:
        members = dict(delta)
        index, finish = members.pop("index", 0), members.pop("finish_reason", None)
        choice = {"index": index, "delta": members, "finish_reason": finish}
        progress.observe(chunk_message({**chunk(), "choices": [choice]}))

    assert progress.is_calling is calling


NAME = "a_function_with_a_name_of_40_characters_"


def named(arguments: str, kind: str, **members: Any) -> dict[str, Any]:
    """Return a piece of a call with its name, as NVIDIA NIM sends each piece."""
    function = {"name": NAME, "input" if kind == "custom" else "arguments": arguments}
    delta: dict[str, Any] = {"function_call": function}
    if kind != "function_call":
        delta = {"tool_calls": [{"index": 0, "type": kind, kind: function, **members}]}
    return {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@pytest.mark.parametrize("kind", ["function", "custom", "function_call"])
def test_a_name_that_each_piece_repeats_counts_once(kind: str) -> None:
    pieces = [named(character, kind) for character in "word " * 60]

    progress = watched(*pieces, most=100)

    assert not progress.overruns
    assert progress.used == (90, 100, True)
    assert watched(*pieces[:51]).used == (90, 11 + 50, True)
    assert watched(*[named("", kind)] * 9).used == (90, 10, True)


def test_a_name_counts_for_each_call() -> None:
    # The first piece has the id; the others can lack it.
    calls: list[dict[str, Any]] = [{"id": "1"}, {}, {"id": "2"}, {"id": "2"}, {"index": 1}]

    progress = watched(*(named("", "function", **members) for members in calls))

    assert progress.counted == 3 * 10
    # Endless calls are an overrun.
    assert watched(*(named("{}", "function", index=k) for k in range(400)), most=100).overruns


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
    assert progress.used == (0, 2, True)


def test_a_cut_tells_the_usage_only_as_the_upstream_reported_it() -> None:
    progress = watched(most=2)
    ending, counted = cut(progress)
    assert counted["usage"]["estimated"] is True
    assert counted["usage"]["completion_tokens"] == progress.used.completion
    assert [choice["finish_reason"] for choice in ending["choices"]] == ["length"]

    # A report in the last piece covers all output, and is charged.
    progress = watched(most=2)
    ending, used = cut(progress, usage=counts(10, 7))
    assert (used["choices"], used["usage"], used["id"]) == ([], counts(10, 7), ending["id"])
    assert progress.used == (10, 7, False)

    # A report of one choice does not, and the counted usage is marked.
    each = [piece("four", index=i, prompt=10, completed=1) for i in range(4)]
    _, counted = cut(watched(*each, choices=4, most=400), usage=counts(10, 2))
    assert counted["usage"]["estimated"] is True


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
    # Not text of the model.
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
    "reasoning by both its names": ({"reasoning": "four", "reasoning_content": "four"}, 4),
    "two reasonings": ({"reasoning": "four", "reasoning_content": "five!"}, 9),
    "a thought in parts": ({"content": [{"type": "reasoning", "text": "four"}]}, 17),
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
    # Members beyond the contract.
    "a vendor's member": ({"thinking": "abc"}, 5),
    "a vendor's member by two names": ({"thinking": "abc", "thought": "abc"}, 5),
    "a vendor's object": ({"reasoning_details": [{"text": "long " * 100}]}, 513),
    "a vendor's member that says it again": ({"reasoning": "four", "details": ["four"]}, 4),
    "a cut character": ({"content": "\ud83d"}, 8),
    "annotations": ({"annotations": [{"type": "url_citation"}]}, 14),
}


@pytest.mark.parametrize(("delta", "size"), SAID.values(), ids=SAID)
def test_each_piece_counts_by_the_bytes_of_what_the_model_wrote(
    delta: dict[str, Any], size: int
) -> None:
    # In two choices, a repeated name in the same choice counts once.
    documents = [
        {**chunk(), "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
        for index in (0, 1)
    ]
    progress = watched(*documents)

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
    ("documents", "of_one", "of_two"),
    [
        # Whether the stream is complete if one choice was asked for, and if two were.
        ([], False, False),
        ([chunk("a")], False, False),
        ([chunk("a"), chunk(None, "stop")], True, True),
        ([chunk("a", "length")], True, True),
        ([chunk("a"), chunk("b", index=1)], False, False),
        ([chunk("a"), chunk("b", index=1), chunk(None, "stop")], True, False),
        (
            [chunk("a"), chunk("b", index=1), chunk(None, "stop"), chunk("c", "x", index=1)],
            True,
            True,
        ),
        ([chunk("a"), chunk(None, "stop", index=1)], True, False),
        ([chunk("a", "")], False, False),
        ([usage_chunk()], False, False),
        ([chunk("a", "stop"), usage_chunk()], True, True),
    ],
)
def test_a_stream_is_complete_when_each_choice_has_its_reason(
    documents: list[dict[str, Any]], of_one: bool, of_two: bool
) -> None:
    assert watched(*documents).complete is of_one
    assert watched(*documents, choices=2).complete is of_two
