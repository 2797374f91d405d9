"""An accepted request: canonical, within the contract, for a known model."""

from dataclasses import dataclass

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.models import OUTPUT_LIMITS, Model


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedRequest:
    """The parameters of a call, and the service's decisions about them. Do not change them."""

    params: ChatCompletionParams
    """The parameters as the caller sent them, which the upstream receives."""
    priced: ChatCompletionParams
    """The same parameters in the form of the contract, which determines their price."""
    model: Model
    output_limit: int
    """Maximum tokens of each choice."""
    survey: frozenset[str] | None = None
    """The names of the fields of `priced` that are set, and other names; None if not known."""

    @property
    def sends_limit(self) -> bool:
        """Whether the service sends the output limit to the upstream."""
        return self.model.imposes_limit or any(map(self.params.HasField, OUTPUT_LIMITS))

    @property
    def choices(self) -> int:
        """The number of choices, at least 1."""
        return self.params.n or 1
