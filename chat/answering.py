"""One conversation: asks questions through a door and prints the answers.

A stopped answer stays in the conversation as far as it came; a question without an answer does not.
"""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from chat.ask_error import AskError, printable
from chat.events import finish_of, parsed, text_of
from chat.usage_line import cost_of, pricing_of, usage_line


class Door(Protocol):
    """A way to the API. Each method raises AskError."""

    def stream(self, request: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Yield the chunks of an answer."""

    def complete(self, request: Mapping[str, Any]) -> bytes:
        """Return an answer as one line of JSON."""

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the key can use."""

    def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Screen:
    """Where an answer and what is known about it are printed."""

    answers: TextIO
    notes: TextIO
    is_terminal: bool
    """Whether people see the answers: control characters are replaced."""
    has_colour: bool
    """Whether the notes are dimmed."""

    def add(self, text: str) -> None:
        """Print the next part of an answer at once."""
        self.answers.write(printable(text) if self.is_terminal else text)
        self.answers.flush()

    def note(self, line: str) -> None:
        """Print a line about an answer."""
        self.notes.write(f"\x1b[2m{line}\x1b[0m\n" if self.has_colour else f"{line}\n")
        self.notes.flush()


@dataclass(kw_only=True, slots=True)
class Conversation:
    """Questions and answers so far."""

    door: Door
    screen: Screen
    model: str
    """The model, or "" for the first that the server lists."""
    as_json: bool
    messages: list[dict[str, str]]
    """At the beginning: the system message, if there is one."""
    _models: list[dict[str, Any]] | None = field(default=None, init=False)

    def ask(self, question: str) -> None:
        """Ask a question, and print the answer and its usage.

        Raises:
            AskError: There is no answer, or it broke off.
            KeyboardInterrupt: A person stopped the answer. The request has ended.
        """
        if not self.model:
            self.model = self._first_model()
        asked = [*self.messages, {"role": "user", "content": question}]
        request = {"model": self.model, "messages": asked}
        said: list[str] = []
        try:
            if self.as_json:
                self._print_document(request, said)
            else:
                self._print_stream(request, said)
        finally:
            if text := "".join(said):
                self.messages = [*asked, {"role": "assistant", "content": text}]

    def _print_stream(self, request: Mapping[str, Any], said: list[str]) -> None:
        usage: Any = None
        finish = ""
        try:
            with closing(self.door.stream(request)) as stream:
                for chunk in stream:
                    if text := text_of(chunk):
                        said.append(text)
                        self.screen.add(text)
                    finish = finish_of(chunk) or finish
                    usage = chunk.get("usage") or usage
        finally:
            if said and not said[-1].endswith("\n"):
                self.screen.add("\n")
        if line := usage_line(usage, finish, cost_of(usage, self._pricing(usage))):
            self.screen.note(line)

    def _print_document(self, request: Mapping[str, Any], said: list[str]) -> None:
        document = self.door.complete(request)
        self.screen.answers.write(document.decode() + "\n")
        self.screen.answers.flush()
        choices = parsed(document).get("choices") or [{}]
        said.append(text_of({"choices": [{"delta": choices[0].get("message")}]}))

    def _first_model(self) -> str:
        self._models = self.door.models()
        names = [str(model.get("id", "")) for model in self._models]
        for name in names:
            if name and not name.endswith("*"):
                return name
        raise AskError("The server lists no model. Name one with --model.")

    def _pricing(self, usage: Any) -> Any:
        """Return the prices of the model if they are needed for the cost; None without a list."""
        if not usage or usage.get("cost") is not None:
            return None
        if self._models is None:
            try:
                self._models = self.door.models()
            except AskError:
                self._models = []
        return pricing_of(self._models, self.model)
