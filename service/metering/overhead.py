"""The maximum tokens that chat templates and upstreams add to messages by themselves.

    params, model -> of_messages -> tokens of the prompt + tokens of each message

The defaults hold for every template that is known. A model can have its own numbers, which
`models measure` finds. They were measured with messages of text alone, so that a request with
anything else that a template can write, such as tools, has the defaults if these are larger.
"""

from typing import Final

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage
from service.models import Model

TOKENS_PER_PROMPT: Final = 512
"""Maximum tokens that chat templates and upstreams add to a prompt by themselves: a default system
message, the date, instructions for tools."""

TOKENS_PER_MESSAGE: Final = 16
"""Maximum tokens that a chat template adds to a message."""

SPOKEN: Final = frozenset({"system", "developer", "user", "assistant"})
"""The roles whose contents go into the prompt unchanged. Some templates, such as Llama's, write the
content of a tool message as JSON."""

HARMLESS: Final = frozenset(
    {
        *("model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options"),
        *("temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "seed"),
        *("stop_text", "stop_list", "n", "logprobs", "top_logprobs", "user", "safety_identifier"),
        *("metadata", "store", "service_tier", "null_fields"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    }
)
"""The fields of a request that no template writes, and the messages."""

_PLAIN: Final = frozenset({"role", "content_text", "content_parts", "null_fields"})
_PLAIN_PART: Final = frozenset({"type", "text", "null_fields"})


def of_messages(params: ChatCompletionParams, model: Model) -> int:
    """Return the maximum tokens that are added to the prompt of a request and to its messages."""
    prompt, message = model.template_tokens, model.message_tokens
    if prompt is None and message is None:
        prompt, message = TOKENS_PER_PROMPT, TOKENS_PER_MESSAGE
    elif _is_plain(params):
        prompt = TOKENS_PER_PROMPT if prompt is None else prompt
        message = TOKENS_PER_MESSAGE if message is None else message
    else:
        prompt = max(prompt or 0, TOKENS_PER_PROMPT)
        message = max(message or 0, TOKENS_PER_MESSAGE)
    return prompt + (message or 0) * len(params.messages)


def _is_plain(params: ChatCompletionParams) -> bool:
    """Return whether a request has only messages of text, and nothing else that becomes tokens."""
    return all(field.name in HARMLESS for field, _ in params.ListFields()) and all(
        map(_is_text, params.messages[:])
    )


def _is_text(message: ChatMessage) -> bool:
    return (
        message.role in SPOKEN
        and all(field.name in _PLAIN for field, _ in message.ListFields())
        and all(
            part.type == "text" and all(field.name in _PLAIN_PART for field, _ in part.ListFields())
            for part in message.content_parts.items
        )
    )
