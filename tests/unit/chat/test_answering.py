import io
from collections.abc import Generator, Mapping
from typing import Any

import pytest

from chat.answering import Conversation, Screen
from chat.ask_error import AskError

PRICED = {"id": "a", "pricing": {"prompt": "0.5", "completion": "1"}}


def chunk(text: str, **members: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}], **members}


class Scripted:
    """A door whose answers are given: chunks, or an exception in place of one."""

    def __init__(self, *answer: Any, models: Any = (PRICED,)) -> None:
        self.answer = answer
        self.listed = models
        self.requests: list[Mapping[str, Any]] = []
        self.lists = 0
        self.open = 0

    def stream(self, request: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        self.requests.append(request)
        self.open += 1
        try:
            for piece in self.answer:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.open -= 1

    def complete(self, request: Mapping[str, Any]) -> bytes:
        self.requests.append(request)
        return b'{"choices":[{"message":{"content":"Hi"}}]}'

    def models(self) -> list[dict[str, Any]]:
        self.lists += 1
        if isinstance(self.listed, BaseException):
            raise self.listed
        return [*self.listed]

    def close(self) -> None:
        pass


def conversation(door: Scripted, model: str = "a", **changes: Any) -> Conversation:
    screen = Screen(
        **{
            "answers": io.StringIO(),
            "notes": io.StringIO(),
            "is_terminal": False,
            "has_colour": False,
            **changes,
        }
    )
    return Conversation(door=door, screen=screen, model=model, as_json=False, messages=[])


def shown(asked: Conversation) -> tuple[str, str]:
    answers, notes = asked.screen.answers, asked.screen.notes
    assert isinstance(answers, io.StringIO)
    assert isinstance(notes, io.StringIO)
    return answers.getvalue(), notes.getvalue()


def test_an_answer_is_printed_with_its_usage() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    asked = conversation(Scripted(chunk("Hi"), chunk(" you"), {"choices": [], "usage": usage}))

    asked.ask("Hello")

    assert shown(asked) == ("Hi you\n", "2 + 3 tokens · 4 credits\n")
    assert [message["content"] for message in asked.messages] == ["Hello", "Hi you"]


def test_the_prices_are_asked_for_once_and_only_if_needed() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    reported = conversation(door := Scripted(chunk("Hi", usage={**usage, "cost": 1})))
    reported.ask("Hello")
    assert door.lists == 0

    computed = conversation(door := Scripted(chunk("Hi", usage=usage), models=AskError("No.")))
    computed.ask("Hello")
    computed.ask("Hello")
    assert door.lists == 1
    assert shown(computed)[1] == "2 + 3 tokens\n" * 2


def test_without_a_name_the_first_model_that_is_no_pattern_is_used() -> None:
    asked = conversation(door := Scripted(chunk("Hi"), models=[{"id": "x/*"}, {"id": "b"}]), "")

    asked.ask("Hello")

    assert door.requests[0]["model"] == "b"
    with pytest.raises(AskError, match="lists no model"):
        conversation(Scripted(models=[{"id": "*"}]), "").ask("Hello")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), AskError("No.")])
def test_a_stopped_answer_stays_as_far_as_it_came(stop: BaseException) -> None:
    asked = conversation(door := Scripted(chunk("Hi"), stop))

    with pytest.raises(type(stop)):
        asked.ask("Hello")

    assert shown(asked) == ("Hi\n", "")
    assert [message["content"] for message in asked.messages] == ["Hello", "Hi"]
    assert door.open == 0


def test_a_question_without_an_answer_does_not_stay() -> None:
    asked = conversation(Scripted(AskError("No.")))

    with pytest.raises(AskError):
        asked.ask("Hello")

    assert asked.messages == []


def test_documents_are_lines() -> None:
    asked = conversation(Scripted())
    asked.as_json = True

    asked.ask("Hello")

    assert shown(asked) == ('{"choices":[{"message":{"content":"Hi"}}]}\n', "")
    assert asked.messages[-1] == {"role": "assistant", "content": "Hi"}


def test_a_terminal_gets_no_commands_of_a_model_and_dimmed_notes() -> None:
    door = Scripted(chunk("a\x1b[2J", usage={"cost": 1}))
    asked = conversation(door, is_terminal=True, has_colour=True)

    asked.ask("Hello")

    answer, note = shown(asked)
    assert answer == "a�[2J\n"
    assert note.startswith("\x1b[2m")
