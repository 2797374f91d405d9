"""Prices and bounds, in integer nano-credits.

    price   tokens times price per million, both ways, plus the margin; rounded up once
    hold    the price of the most that a request can use: see `Bound`

A credit is 10^9 nano-credits.
"""

from dataclasses import dataclass
from typing import Final

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ContentPart
from service.models import Model

_MILLION: Final = 10**6
_PERCENT: Final = 100 * 10**9
"""Margins are nano-percents: integers, like prices."""

_BYTES_PER_TOKEN: Final = 4

TOKENS_PER_PROMPT: Final = 512
"""More than chat templates and upstreams add to a prompt by themselves: the system message of a
model that got none, the date, how tools are to be called."""

TOKENS_PER_MESSAGE: Final = 16
"""More than a chat template puts around a message."""

TOKENS_PER_TOOL: Final = 64
"""More than a chat template puts around a tool or a call of one."""

_TEXTS: Final = frozenset({"text", "refusal"})
_OWN_TOOLS: Final = frozenset({"function", "custom"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """The most that a request can use."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


def price(model: Model, prompt_tokens: int, completion_tokens: int) -> int:
    """Return what so many tokens cost, in nano-credits."""
    cost = prompt_tokens * model.input_price + completion_tokens * model.output_price
    return -(-cost * (_PERCENT + model.margin) // (_MILLION * _PERCENT))


def bound(params: ChatCompletionParams, model: Model, output_limit: int) -> Bound:
    """Return the most that a request can use.

    A token has at least one byte of text: the bytes of the message bound the tokens of the texts.
    What chat templates write is added: around messages, tools and calls, and the indentation of
    JSON schemas, which can double them. A picture or sound is bounded by the model's configuration
    instead of its bytes, a file by both; so is what the upstream fetches or says by itself.

    Output counts against the limit that the upstream is sent, with reasoning and with the rejected
    part of a prediction.
    """
    media = _media(params)
    schemas = params.response_format.ByteSize()
    tools = 0
    for tool in (*params.tools, *params.functions):
        tools += 1
        schemas += tool.ByteSize()
    for message in params.messages:
        tools += len(message.tool_calls) + message.HasField("function_call")
    prompt = (
        params.ByteSize()
        - media.bytes
        + schemas
        + TOKENS_PER_PROMPT
        + TOKENS_PER_MESSAGE * len(params.messages)
        + TOKENS_PER_TOOL * tools
        + model.attachment_tokens * media.count
    )
    return Bound(prompt_tokens=prompt, completion_tokens=output_limit * (params.n or 1))


def estimate(params: ChatCompletionParams) -> int:
    """Return about how many tokens a prompt has, for an upstream that does not tell.

    English text has about four bytes per token, other text fewer; this errs in the caller's favour,
    who pays nothing for pictures, sounds and files here.
    """
    media = _media(params)
    return -(-(params.ByteSize() - media.bytes - media.file_bytes) // _BYTES_PER_TOKEN)


@dataclass(kw_only=True, slots=True)
class _Media:
    """What a prompt has beside text."""

    count: int = 0
    bytes: int = 0
    """Of the pictures and sounds, as text: addresses or base64."""
    file_bytes: int = 0


def _media(params: ChatCompletionParams) -> _Media:
    media = _Media()
    for message in params.messages:
        if message.HasField("audio"):
            media.count += 1
            media.bytes += len(message.audio.data)
        if message.HasField("content_parts"):
            for part in message.content_parts.items:
                _count_part(part, media)
    for tool in params.tools:
        media.count += tool.type not in _OWN_TOOLS
    media.count += params.HasField("web_search_options")
    return media


def _count_part(part: ContentPart, media: _Media) -> None:
    # A type in whose place another member stands is the upstream's to understand.
    if part.HasField("image_url") or part.HasField("input_audio") or part.HasField("file"):
        media.count += 1
        media.bytes += len(part.image_url.url) + len(part.input_audio.data)
        media.file_bytes += len(part.file.file_data)
    elif part.type not in _TEXTS:
        media.count += 1


def largest_output(model: Model, prompt_tokens: int, n: int, credit: int) -> int:
    """Return the largest output limit per choice whose hold fits into a credit; 0 where none.

    Args:
        model: Says the prices and the largest limit that there is.
        prompt_tokens: As bounded.
        n: How many choices, at least 1.
        credit: Nano-credits.
    """
    low, high = 0, model.maximum_output_tokens
    while low < high:
        middle = (low + high + 1) // 2
        if price(model, prompt_tokens, middle * n) <= credit:
            low = middle
        else:
            high = middle - 1
    return low
