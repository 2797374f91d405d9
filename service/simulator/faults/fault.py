"""Faults, and the requests that they answer.

Fault(name, form, covers, play)               one row of a table
@plays(FAULTS, name, form, covers)            adds the row of the function below it
Play(exchange, request, completion, value)    one request that meets the fault
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

from service.simulator.completion import Completion
from service.simulator.completion_request import CompletionRequest, Document
from service.simulator.error_objects import HttpError
from service.simulator.exchange import Exchange
from service.simulator.response_documents import chunk_documents, completion_document, encode

FaultForm = Literal["any", "stream", "unary"]


@dataclass(kw_only=True, frozen=True, slots=True)
class Play:
    """One request that is answered with a fault."""

    exchange: Exchange
    request: CompletionRequest
    completion: Completion
    value: str | None
    """The text after the fault's name and "="."""
    delay: float
    """The inter-token delay, in seconds."""

    def chunks(self) -> list[Document]:
        """Return the chunks of the valid response."""
        return list(chunk_documents(self.completion, include_usage=self.request.include_usage))

    def payloads(self) -> list[bytes]:
        """Return the data of the events of the valid response, without `[DONE]`."""
        return [encode(chunk) for chunk in self.chunks()]

    def document(self) -> Document:
        """Return the valid unary response."""
        return completion_document(self.completion)

    def number(self, default: float, *, lowest: float = 0, highest: float = 1e9) -> float:
        """Return the value as a number.

        Raises:
            HttpError: The value is not a number or out of range (400).
        """
        if self.value is None:
            return default
        try:
            number = float(self.value)
        except ValueError:
            number = float("nan")
        if not lowest <= number <= highest:
            self.refuse(f"The value of this fault is a number of {lowest:g} to {highest:g}.")
        return number

    def refuse(self, message: str, param: str = "model") -> NoReturn:
        """Reject a request that does not suit the fault.

        Raises:
            HttpError: Always (400).
        """
        raise HttpError(status=400, message=message, param=param, code="invalid_value")


Player = Callable[[Play], Awaitable[None]]


@dataclass(kw_only=True, frozen=True, slots=True)
class Fault:
    """A failure of an upstream."""

    name: str
    form: FaultForm
    """The kind of requests that it can answer; the other kind gets 400."""
    covers: str
    """Its item of the failure catalogue."""
    play: Player


def plays(
    table: list[Fault], name: str, form: FaultForm, covers: str
) -> Callable[[Player], Player]:
    """Add a fault to the table; the decorated function produces it."""

    def add(play: Player) -> Player:
        table.append(Fault(name=name, form=form, covers=covers, play=play))
        return play

    return add
