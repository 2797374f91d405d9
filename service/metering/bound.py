"""The most that a request can use, and about how much, before anything is sent upstream.

bound_of         the tokens that are held: see `Bound`
estimate         about how many tokens the prompt has, for an upstream that reports none
largest_output   the largest output limit whose hold an amount of credit covers
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from chatcompletion import openai_json
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletionParams,
    ChatMessage,
    Prediction,
)
from service.errors import InvalidRequest, Violation
from service.metering import tokens
from service.metering.price import price
from service.models import OUTPUT_LIMITS, Model

TOKENS_PER_PROMPT: Final = 512
"""More than chat templates and upstreams add to a prompt by themselves: the system message of a
model that got none, the date, how tools are to be called."""

TOKENS_PER_MESSAGE: Final = 16
"""More than a chat template puts around a message."""

TOKENS_PER_TOOL: Final = 64
"""More than a chat template puts around a tool or a call of one."""

MOST_PROMPT_TOKENS: Final = 10**9
"""More than any model reads."""

_SPOKEN: Final = frozenset({"system", "developer", "user", "assistant"})
"""The roles whose contents go into the prompt as they are. What a tool answered may be written as
JSON, as Llama's templates do."""

_TEXTS: Final = frozenset({"text", "refusal", "thinking", "reasoning"})
"""Types of parts that hold a text, those of reasoning that is sent back among them."""
_FILMS: Final = frozenset({"video_url", "video", "input_video", "audio_url"})
"""Types of parts that vendors add, each with a member of the same name: bytes of sound or film."""

_OWN_TOOLS: Final = frozenset({"function", "custom"})
_AROUND_ARGUMENTS: Final = 5
"""Levels around the arguments of a call: messages, message, calls, call, function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """The most that a request can use."""

    prompt_tokens: int
    completion_tokens: int
    predicted_tokens: int = 0
    """Those of the completion that the output limit does not bound: a prediction that is rejected
    is paid for."""

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


def output_limit(params: ChatCompletionParams, model: Model) -> int:
    """Return how many tokens each choice may have.

    Raises:
        InvalidRequest: the request asks for more than the model's maximum.
    """
    if params.HasField("max_completion_tokens"):
        name, asked = "max_completion_tokens", params.max_completion_tokens
    elif params.HasField("max_tokens"):
        name, asked = "max_tokens", params.max_tokens
    else:
        return model.default_output_tokens
    if asked > model.maximum_output_tokens:
        raise InvalidRequest.of(
            [
                Violation(
                    param=name,
                    message=f"Must be at most {model.maximum_output_tokens} for this model.",
                    code="number_out_of_range",
                )
            ]
        )
    return asked


def bound_of(params: ChatCompletionParams, model: Model, output_limit: int) -> Bound:
    """Return the most that a request can use.

    A token has at least one byte of text: the bytes of the message bound the tokens of the texts,
    with what these gain in a Unicode normal form. Tools, formats, calls and what the contract does
    not know are counted as templates write JSON at its longest, and what templates put around
    messages, tools and calls is added. A picture is bounded by the model's configuration instead
    of its bytes, a sound or film by whichever is more, a file by both; so is what the upstream
    fetches or says by itself.

    Output counts against the limit that the upstream is sent, with reasoning.

    Args:
        params: The request, canonical and valid. The output limit in it does not count.
        model: Says how many tokens an attachment is at the most.
        output_limit: Tokens per choice.
    """
    prompt = TOKENS_PER_PROMPT + TOKENS_PER_MESSAGE * len(params.messages)
    size = params.ByteSize() - _output_limits(params).ByteSize()
    for attachment in _attachments(params):
        prompt += max(model.attachment_tokens, tokens.of_sound(attachment.heard))
        size -= attachment.seen + attachment.heard
    written, texts, arguments = _read(params)
    if written is not None:
        document = openai_json.encode_request(written)
        size += openai_json.longest_size(document) - written.ByteSize()
        texts.append(tokens.unescaped(document.decode()))
    for text in arguments:
        size += openai_json.indentation(text, depth=_AROUND_ARGUMENTS)
        texts.append(tokens.unescaped(text))
    prompt += size + tokens.gain(texts)
    prompt += TOKENS_PER_TOOL * (len(params.tools) + len(params.functions) + len(arguments))
    choices = params.n or 1
    predicted = choices * _predicted(params.prediction) if params.HasField("prediction") else 0
    return Bound(
        prompt_tokens=min(prompt, MOST_PROMPT_TOKENS),
        completion_tokens=choices * output_limit + predicted,
        predicted_tokens=predicted,
    )


def estimate(params: ChatCompletionParams, model: Model) -> int:
    """Return about how many tokens a prompt has, for an upstream that does not tell.

    English text has about four bytes per token, other text fewer; this errs in the caller's favour.
    For a picture, sound or file the model's configuration says it.
    """
    texts, attachments = params.ByteSize(), 0
    for attachment in _attachments(params):
        texts -= sum(attachment)
        attachments += 1
    return tokens.about(texts) + model.attachment_estimate * attachments


# ------------------------------------------------------------------------- parts of a prompt


def _output_limits(params: ChatCompletionParams) -> ChatCompletionParams:
    """Return the limits of a request alone, with the explicit nulls of its members."""
    limits = ChatCompletionParams(null_fields=params.null_fields)
    for name in OUTPUT_LIMITS:
        if params.HasField(name):
            setattr(limits, name, getattr(params, name))
        if name in params.extra_json:
            limits.extra_json[name] = params.extra_json[name]
    return limits


class _Attachment(NamedTuple):
    """What is no text, as far as it is in the request: the bytes of its address or base64."""

    seen: int = 0
    heard: int = 0
    filed: int = 0
    """Of a file, which may be text."""


def _attachments(params: ChatCompletionParams) -> Iterator[_Attachment]:
    for message in params.messages:
        if message.HasField("audio"):
            yield _Attachment(heard=len(message.audio.data))
        if not message.HasField("content_parts"):
            continue
        for part in message.content_parts.items:
            # A type in whose place another member stands is the upstream's to understand.
            if part.HasField("image_url") or part.HasField("input_audio") or part.HasField("file"):
                yield _Attachment(
                    seen=len(part.image_url.url),
                    heard=len(part.input_audio.data),
                    filed=len(part.file.file_data),
                )
            elif part.type not in _TEXTS:
                film = part.extra_json.get(part.type, "") if part.type in _FILMS else ""
                yield _Attachment(heard=len(film))
    for tool in params.tools:
        if tool.type not in _OWN_TOOLS:
            yield _Attachment()
    if params.HasField("web_search_options"):
        yield _Attachment()


class _Parts(NamedTuple):
    """A prompt, by how it becomes tokens."""

    written: ChatCompletionParams | None
    """What a template may write as JSON, without pictures, sounds and films."""
    texts: list[str]
    """The other texts, as far as they are not ASCII."""
    arguments: list[str]
    """What tools were called with: a string in JSON, or JSON again."""


def _read(params: ChatCompletionParams) -> _Parts:
    written = ChatCompletionParams()
    if params.tools:
        written.tools.extend(params.tools)
    if params.functions:
        written.functions.extend(params.functions)
    if params.HasField("response_format"):
        written.response_format.CopyFrom(params.response_format)
    for name in params.extra_json:
        if name not in OUTPUT_LIMITS:
            written.extra_json[name] = params.extra_json[name]
    texts: list[str] = []
    arguments: list[str] = []
    for message in params.messages:
        arguments += _arguments(message)
        if message.role in _SPOKEN:
            texts += [text for text in _texts(message) if not text.isascii()]
            written.messages.extend(_written(message))
        else:
            written.messages.add().CopyFrom(message)
            _remove_attachments(written.messages[-1])
    return _Parts(written if written.ListFields() else None, texts, arguments)


def _arguments(message: ChatMessage) -> list[str]:
    calls = message.tool_calls
    arguments = [call.function.arguments or call.custom.input for call in calls] if calls else []
    if message.HasField("function_call"):
        arguments.append(message.function_call.arguments)
    return arguments


def _texts(message: ChatMessage) -> list[str]:
    texts = [
        message.content_text,
        message.name,
        message.refusal,
        message.reasoning_content,
        message.reasoning,
    ]
    if message.HasField("content_parts"):
        for part in message.content_parts.items:
            texts += (part.text, part.refusal)
    return texts


def _written(message: ChatMessage) -> Iterator[ChatMessage]:
    """Yield what of a message may be written as JSON although the rest is not."""
    if message.tool_calls or _says_more(message.extra_json) or message.HasField("function_call"):
        beside = ChatMessage(tool_calls=message.tool_calls, extra_json=message.extra_json)
        if message.HasField("function_call"):
            beside.function_call.CopyFrom(message.function_call)
        yield beside
    if message.HasField("content_parts"):
        for part in message.content_parts.items:
            if _says_more(part.extra_json):
                beside = ChatMessage()
                extra = beside.content_parts.items.add(extra_json=part.extra_json).extra_json
                if part.type in _FILMS:
                    extra.pop(part.type, None)
                yield beside


def _says_more(extra: Mapping[str, str]) -> bool:
    return any(extra[name] != "null" for name in extra)


def _remove_attachments(message: ChatMessage) -> None:
    if message.HasField("audio"):
        message.audio.ClearField("data")
    if message.HasField("content_parts"):
        for part in message.content_parts.items:
            part.ClearField("image_url")
            part.ClearField("input_audio")
            if part.type in _FILMS:
                part.extra_json.pop(part.type, None)


def _predicted(prediction: Prediction) -> int:
    """Return the most tokens of a prediction."""
    texts = [prediction.content_text, *(part.text for part in prediction.content_parts.items)]
    return prediction.ByteSize() + tokens.gain(texts)


def largest_output(model: Model, bound: Bound, n: int, credit: int) -> int:
    """Return the largest output limit per choice whose hold fits into a credit; 0 where none.

    Args:
        model: Says the prices and the largest limit that there is.
        bound: Of the request; its own output limit does not count.
        n: How many choices, at least 1.
        credit: Nano-credits.
    """
    low, high = 0, model.maximum_output_tokens
    while low < high:
        middle = (low + high + 1) // 2
        completion = middle * n + bound.predicted_tokens
        if price(model, bound.prompt_tokens, completion) <= credit:
            low = middle
        else:
            high = middle - 1
    return low
