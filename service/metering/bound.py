"""The maximum usage of a request, and an estimate of its prompt, before anything is sent upstream.

bound_of         the maximum tokens of a request, which are held; and about how many its prompt has,
                 if the upstream reports no usage
largest_output   the largest output limit whose hold an amount of credit covers
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from chatcompletion import openai_json
from chatcompletion.default_messages import quoted
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletionParams,
    ChatMessage,
    Prediction,
)
from service.errors import InvalidRequest, Violation
from service.metering import overhead, tokens
from service.metering.price import most
from service.models import OUTPUT_LIMITS, Model

TOKENS_PER_TOOL: Final = 64
"""Maximum tokens that a chat template adds to a tool or a tool call."""

MOST_PROMPT_TOKENS: Final = 10**9
"""More tokens than any model reads."""

_TEXTS: Final = frozenset({"text", "refusal", "thinking", "reasoning"})
"""The types of parts with a text, including reasoning that is sent back."""
_FILMS: Final = frozenset({"video_url", "video", "input_video", "audio_url"})
"""Vendors' types of parts with sound or film, each in a member of the same name."""

_OWN_TOOLS: Final = frozenset({"function", "custom"})
_AROUND_ARGUMENTS: Final = 5
"""Levels around the arguments of a tool call: messages, message, calls, call, function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """The maximum usage of a request."""

    prompt_tokens: int
    completion_tokens: int
    predicted_tokens: int = 0
    """Completion tokens beyond the output limit: rejected prediction tokens are charged too."""
    prompt_estimate: int = 0
    """An estimate of the tokens of the prompt, if the upstream does not report them. It counts one
    token per four bytes. English has about four bytes per token and other text fewer, so that
    errors favour the caller. An attachment counts as the model's `attachment_estimate`."""

    @property
    def tokens(self) -> int:
        """The sum of prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens


def output_limit(params: ChatCompletionParams, model: Model) -> int:
    """Return the maximum tokens of each choice.

    Raises:
        InvalidRequest: The request sets a limit above the model's maximum, which does not clamp it.
    """
    if params.HasField("max_completion_tokens"):
        name, asked = "max_completion_tokens", params.max_completion_tokens
    elif params.HasField("max_tokens"):
        name, asked = "max_tokens", params.max_tokens
    else:
        return model.default_output_tokens
    if asked > model.maximum_output_tokens and model.clamps_limit:
        return model.maximum_output_tokens
    if asked > model.maximum_output_tokens:
        raise InvalidRequest.of(
            [
                Violation(
                    param=name,
                    field=f"params.{name}",
                    message=f"Invalid '{name}': the model {quoted(model.name)} supports at most "
                    f"{model.maximum_output_tokens} completion tokens, but got {asked}.",
                    code="number_out_of_range",
                )
            ]
        )
    return asked


def bound_of(
    params: ChatCompletionParams,
    model: Model,
    output_limit: int,
    *,
    survey: frozenset[str] | None = None,
) -> Bound:
    """Return the maximum usage of a request.

    A token has at least one byte of text, so the bytes of the texts, plus the bytes that they gain
    in a Unicode normal form, bound their tokens. Tools, formats, tool calls and unknown members
    count as the longest JSON that a template can write. The overhead of templates for messages,
    tools and calls is added.

    A picture counts as the model's `attachment_tokens` instead of its bytes; a sound or film as
    the larger of these and a bound by its bytes; a file as the sum of both.

    The output limit bounds the output, including reasoning.

    Args:
        params: The request, canonical and valid. Its own output limit is ignored.
        model: The model, with the maximum tokens of an attachment.
        output_limit: Maximum tokens per choice.
        survey: The names of the fields that are set, if they are known.
    """
    if survey is None:
        survey = frozenset(field.name for field, _ in params.ListFields())
    prompt = overhead.of_messages(params, model)
    whole = params.ByteSize()
    size = whole if survey.isdisjoint(_NOT_COUNTED) else whole - _output_limits(params)
    others, texts = _apart(params)
    choices = params.n or 1
    if not others and survey <= overhead.HARMLESS:  # texts alone
        return Bound(
            prompt_tokens=min(prompt + size + tokens.gain(texts), MOST_PROMPT_TOKENS),
            completion_tokens=choices * output_limit,
            prompt_estimate=tokens.about(whole),
        )
    attachments = 0
    for attachment in _attachments(params, others):
        prompt += max(model.attachment_tokens, tokens.of_sound(attachment.heard))
        size -= attachment.seen + attachment.heard
        whole -= sum(attachment)
        attachments += 1
    written, arguments = _read(params, others, texts)
    if written is not None:
        document = openai_json.encode_request(written)
        size += openai_json.longest_size(document) - written.ByteSize()
        texts.append(tokens.unescaped(document.decode()))
    for text in arguments:
        size += openai_json.indentation(text, depth=_AROUND_ARGUMENTS)
        texts.append(tokens.unescaped(text))
    prompt += size + tokens.gain(texts)
    prompt += TOKENS_PER_TOOL * (len(params.tools) + len(params.functions) + len(arguments))
    predicted = choices * _predicted(params.prediction) if params.HasField("prediction") else 0
    return Bound(
        prompt_tokens=min(prompt, MOST_PROMPT_TOKENS),
        completion_tokens=choices * output_limit + predicted,
        predicted_tokens=predicted,
        prompt_estimate=tokens.about(whole) + model.attachment_estimate * attachments,
    )


# ------------------------------------------------------------------------- parts of a prompt


def _output_limits(params: ChatCompletionParams) -> int:
    """Return the bytes of the output limits of a request and of its explicit nulls."""
    limits = ChatCompletionParams(null_fields=params.null_fields)
    for name in OUTPUT_LIMITS:
        if params.HasField(name):
            setattr(limits, name, getattr(params, name))
        if name in params.extra_json:
            limits.extra_json[name] = params.extra_json[name]
    return limits.ByteSize()


_NOT_COUNTED: Final = frozenset({*OUTPUT_LIMITS, "null_fields", "extra_json"})
"""The fields that have what `_output_limits` measures."""


class _Attachment(NamedTuple):
    """The bytes of the address or base64 of a picture, sound, film or file."""

    seen: int = 0
    heard: int = 0
    filed: int = 0
    """The bytes of a file, which can be text."""


def _apart(params: ChatCompletionParams) -> tuple[list[ChatMessage], list[str]]:
    """Return the messages that are more than a text, and the texts of the others.

    Almost all messages are a text, which has no attachments and which templates do not write as
    JSON. ASCII has no other normal form, so that only other texts are returned.
    """
    others: list[ChatMessage] = []
    texts: list[str] = []
    for message in params.messages[:]:  # a copy is faster
        role, text = message.role, message.content_text
        if role not in overhead.SPOKEN or not tokens.is_text(message, role, text):
            others.append(message)
        elif not text.isascii():
            texts.append(text)
    return others, texts


def _attachments(
    params: ChatCompletionParams, messages: Sequence[ChatMessage]
) -> Iterator[_Attachment]:
    for message in messages:
        if message.HasField("audio"):
            yield _Attachment(heard=len(message.audio.data))
        if not message.HasField("content_parts"):
            continue
        for part in message.content_parts.items:
            # The member can differ from the type; the upstream decides which one it uses.
            if part.HasField("image_url") or part.HasField("input_audio") or part.HasField("file"):
                yield _Attachment(
                    seen=len(part.image_url.url),
                    heard=len(part.input_audio.data),
                    filed=len(part.file.file_data),
                )
            elif part.type not in _TEXTS:
                film = part.extra_json.get(part.type, "") if part.type in _FILMS else ""
                yield _Attachment(heard=len(film))
    for tool in params.tools[:]:
        if tool.type not in _OWN_TOOLS:
            yield _Attachment()
    if params.HasField("web_search_options"):
        yield _Attachment()


def _read(
    params: ChatCompletionParams, messages: Sequence[ChatMessage], texts: list[str]
) -> tuple[ChatCompletionParams | None, list[str]]:
    """Read a prompt, by the way in which it becomes tokens.

    Args:
        params: The request.
        messages: Its messages that are more than a text.
        texts: Where to put their texts that no template writes as JSON and that are not ASCII.

    Returns:
        The parts that a template can write as JSON, without pictures, sounds and films; and the
        arguments of tool calls, which templates write as a JSON string or as JSON.
    """
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
    arguments: list[str] = []
    for message in messages:
        arguments += _arguments(message)
        if message.role in overhead.SPOKEN:
            texts += [text for text in _texts(message) if not text.isascii()]
            written.messages.extend(_written(message))
        else:
            written.messages.add().CopyFrom(message)
            _remove_attachments(written.messages[-1])
    return (written if written.ListFields() else None), arguments


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
    """Yield the parts of a message that a template can write as JSON, if it does not write all."""
    called = message.HasField("function_call")
    if called or message.tool_calls or _says_more(message.extra_json):
        beside = ChatMessage(tool_calls=message.tool_calls, extra_json=message.extra_json)
        if called:
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
    return bool(extra) and any(extra[name] != "null" for name in extra)


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
    """Return the maximum tokens of a prediction."""
    texts = [prediction.content_text, *(part.text for part in prediction.content_parts.items)]
    return prediction.ByteSize() + tokens.gain(texts)


def largest_output(model: Model, bound: Bound, n: int, credit: int) -> int:
    """Return the largest output limit per choice whose hold the credit covers; 0 if none.

    Args:
        model: The model, with its prices and its maximum output limit.
        bound: The maximum usage of the request. Its completion tokens are ignored.
        n: The number of choices, at least 1.
        credit: The available credit in nano-credits.
    """
    low, high = 0, model.maximum_output_tokens
    while low < high:
        middle = (low + high + 1) // 2
        completion = middle * n + bound.predicted_tokens
        if most(model, bound.prompt_tokens, completion) <= credit:
            low = middle
        else:
            high = middle - 1
    return low
