"""A request that the service accepted: canonical, within the contract, for a known model."""

from dataclasses import dataclass

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.models import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedRequest:
    """The parameters of a call, and what the service decided about them. Nobody changes them."""

    params: ChatCompletionParams
    model: Model
    output_limit: int
    """The tokens that each choice may have; the upstream is sent it as the maximum."""

    @property
    def choices(self) -> int:
        """The number of choices, at least 1."""
        return self.params.n or 1
