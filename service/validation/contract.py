"""The limits of the contract, as tables of rules.

    violations(params, streamed=…) -> [] or the first violations, in the order of the tables

A rule is a function that yields the violations in the parameters. `RULES` lists each rule with the
members that it checks; a rule runs only if the request has one of them. Ranges, lengths and
exclusive pairs are rows of separate tables. The rule that depends on the RPC is not in a table.
The upstream checks unknown roles, part types and formats; `members` checks unknown members.

The parameters are canonical (`openai_json.canonicalize_request`): a member of the wrong type is in
`extra_json` under its name.

Source: the OpenAI API reference for chat completions.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Final

from chatcompletion import openai_json
from chatcompletion.default_messages import quoted
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage
from service.errors import MOST_VIOLATIONS, Violation
from service.validation import tool_names
from service.validation.aliases import aliases
from service.validation.survey import UNTYPED, Survey, survey_of
from service.validation.wording import invalid, missing, mistyped, out_of_range, too_long

Rule = Callable[[ChatCompletionParams], Iterator[Violation]]

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "n": (1, 128),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "max_tokens": (1, math.inf),
    "max_completion_tokens": (1, math.inf),
    # In vLLM, -1 requests all of them.
    "top_logprobs": (-1, 20),
}
"""The minimum and the maximum of each number."""

LENGTHS: Final[Mapping[str, tuple[str, int]]] = {
    "safety_identifier": ("characters", 64),
    "functions": ("entries", 128),
    "metadata": ("entries", 16),
}
"""The maximum length of each string, array and map."""

EXCLUSIVE: Final[tuple[tuple[str, str], ...]] = (
    ("max_tokens", "max_completion_tokens"),
    ("functions", "tools"),
)
"""Pairs of members that exclude each other, unless they are equal."""

OPEN: Final = frozenset({"reasoning_effort"})
"""Members that vendors accept with additional JSON types."""

_STOP_SEQUENCES: Final = 4
_METADATA_NAME: Final = 64
_METADATA_VALUE: Final = 512
_LOGIT_BIAS: Final = 100
_CACHE_BREAKPOINTS: Final = 4


def violations(
    params: ChatCompletionParams, *, streamed: bool, survey: Survey | None = None
) -> list[Violation]:
    """Return the first violations of the contract in a request, the most basic first.

    Args:
        params: The parameters, canonical.
        streamed: Whether the RPC is StreamChatCompletion.
        survey: What the parameters have, if it is known.
    """
    survey = survey_of(params) if survey is None else survey
    found = chain.from_iterable(rule(params) for rule in _rules_for(survey))
    return list(islice(chain(found, _form(survey, streamed)), MOST_VIOLATIONS))


@lru_cache(maxsize=1024)
def _rules_for(survey: Survey) -> tuple[Rule, ...]:
    """Return the rules that apply to requests with this survey, of which there are few."""
    return tuple(rule for rule, about in RULES if about is None or not about.isdisjoint(survey))


def _form(survey: Survey, streamed: bool) -> Iterator[Violation]:
    if not streamed and "stream_options" in survey:
        yield invalid("stream_options", "it is only allowed with 'stream' set to true.")


# ------------------------------------------------------------------------------------ presence


def _required(params: ChatCompletionParams) -> Iterator[Violation]:
    if not params.model and "model" not in _mistyped_names(params):
        yield missing("model")
    if not params.messages and "messages" not in _mistyped_names(params):
        if params.extra_json.get("messages") == "[]":
            problem = "expected at least 1 message, but got an empty array."
            yield invalid("messages", problem, "empty_array")
        else:
            yield missing("messages")


def _mistyped_names(params: ChatCompletionParams) -> set[str]:
    return {
        name for name in ("model", "messages") if params.extra_json.get(name, "null") not in _NONE
    }


_NONE: Final = ("null", "[]")


def _messages(params: ChatCompletionParams) -> Iterator[Violation]:
    called: set[str] = set()
    for index, message in enumerate(params.messages[:]):  # a copy is faster
        role = message.role
        if not role and not _is_mistyped(message, "role"):
            yield missing(f"messages[{index}].role")
        if role == "tool":
            yield from _tool_message(message, index, called)
        if role in _NEED_CONTENT and not _has_content(message):
            yield missing(f"messages[{index}].content", "content_text or content_parts")
        if message.tool_calls:
            called.update(call.id for call in message.tool_calls)


_NEED_CONTENT: Final = frozenset({"developer", "system", "user"})
"""The roles whose messages need content. Clients send an assistant's or a tool's message without
content back as they received it; the upstream checks other roles."""


def _tool_message(message: ChatMessage, index: int, called: set[str]) -> Iterator[Violation]:
    param = f"messages[{index}].tool_call_id"
    # Some upstreams send tool calls without an id, or with an empty one.
    if message.tool_call_id in called or _is_mistyped(message, "tool_call_id"):
        return
    if not message.tool_call_id:
        yield missing(param)
    else:
        problem = "matches no tool call in a preceding assistant message."
        yield invalid(param, f"{quoted(message.tool_call_id)} {problem}")


def _has_content(message: ChatMessage) -> bool:
    """Whether a message has content that is not an empty array."""
    if message.HasField("content_parts"):
        return bool(message.content_parts.items)
    # The rule of types reports a mistyped content.
    return message.HasField("content_text") or _is_mistyped(message, "content")


def _is_mistyped(message: ChatMessage, name: str) -> bool:
    return message.extra_json.get(name, "null") != "null"


# --------------------------------------------------------------------------------------- types


def _members(params: ChatCompletionParams) -> Iterator[Violation]:
    """Yield the violations of a request that is not typed."""
    yield from _types(params)
    yield from aliases(params)


def _types(params: ChatCompletionParams) -> Iterator[Violation]:
    for member in openai_json.mistyped_members(params):
        if member.param in OPEN or _is_echoed(params, member.param):
            continue
        if member.out_of_range:
            expected = "a 64-bit integer" if "integer" in member.expected else "a 64-bit number"
            yield out_of_range(member.param, expected, "a number out of its range")
        else:
            yield mistyped(member.param, member.expected, member.received)


def _is_echoed(params: ChatCompletionParams, path: str) -> bool:
    """Whether a member is in an assistant's message, which clients send back unchanged."""
    inside = _IN_MESSAGE.match(path)
    return inside is not None and params.messages[int(inside[1])].role == "assistant"


_IN_MESSAGE: Final = re.compile(r"messages\[(\d+)\]\.")


# -------------------------------------------------------------------------------------- tables


def _range(
    params: ChatCompletionParams, name: str, least: float, most: float
) -> Iterator[Violation]:
    if params.HasField(name) and not least <= getattr(params, name) <= most:  # type: ignore[arg-type]  # a table's string is not a literal
        allowed = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        yield out_of_range(name, f"a number {allowed}", getattr(params, name))


def _range_rules() -> Iterator[tuple[Rule, frozenset[str]]]:
    for name, (least, most) in RANGES.items():
        yield partial(_range, name=name, least=least, most=most), frozenset({name})


def _lengths(params: ChatCompletionParams) -> Iterator[Violation]:
    for name, (unit, most) in LENGTHS.items():
        if (size := len(getattr(params, name))) > most:
            yield too_long(name, most, unit, size)
    if (size := len(params.stop_list.items)) > _STOP_SEQUENCES:
        yield too_long("stop", _STOP_SEQUENCES, "entries", size)
    for name, value in params.metadata.items():
        if len(name) > _METADATA_NAME or len(value) > _METADATA_VALUE:
            yield invalid(
                "metadata",
                f"expected names of at most {_METADATA_NAME} characters and values of at most "
                f"{_METADATA_VALUE}, but got {len(name)} and {len(value)}.",
                "string_too_long",
            )
            return


def _exclusive(params: ChatCompletionParams) -> Iterator[Violation]:
    for first, second in EXCLUSIVE:
        both = _has(params, first) and _has(params, second)
        if both and getattr(params, first) != getattr(params, second):
            yield invalid(first, f"it cannot be set together with '{second}'. Send one of them.")


def _has(params: ChatCompletionParams, name: str) -> bool:
    field = params.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        return len(getattr(params, name)) > 0
    return params.HasField(name)  # type: ignore[arg-type]  # a table's string is not a literal


# --------------------------------------------------------------------------------------- names


def _tools(params: ChatCompletionParams) -> Iterator[Violation]:
    for index, tool in enumerate(params.tools):
        if tool.type == "function":
            if not tool.HasField("function"):
                yield from _absent(tool.extra_json, f"tools[{index}]", "function")
            else:
                function = tool.function
                place = f"tools[{index}].function"
                yield from _named(function.name, function.extra_json, place)
        elif not tool.type:
            yield from _absent(tool.extra_json, f"tools[{index}]", "type")
    for index, function in enumerate(params.functions):
        yield from _named(function.name, function.extra_json, f"functions[{index}]")


def _response_format(params: ChatCompletionParams) -> Iterator[Violation]:
    if not params.HasField("response_format"):
        return
    response_format = params.response_format
    if not response_format.type:
        yield from _absent(response_format.extra_json, "response_format", "type")
    elif response_format.type == "json_schema":
        if not response_format.HasField("json_schema"):
            yield from _absent(response_format.extra_json, "response_format", "json_schema")
        else:
            schema = response_format.json_schema
            place = "response_format.json_schema"
            yield from _named(schema.name, schema.extra_json, place)
            if schema.name and not tool_names.PLAIN.fullmatch(schema.name):
                yield tool_names.misnamed(f"{place}.name", schema.name)


def _named(name: str, extra: Mapping[str, str], place: str) -> Iterator[Violation]:
    if not name:
        yield from _absent(extra, place, "name")


def _absent(extra: Mapping[str, str], place: str, name: str) -> Iterator[Violation]:
    """Yield the violation of a missing member, unless it is present and reported as mistyped."""
    if extra.get(name, "null") == "null":
        yield missing(f"{place}.{name}" if place else name)


# ------------------------------------------------------------------------------ across members


def _logprobs(params: ChatCompletionParams) -> Iterator[Violation]:
    if params.top_logprobs and not params.logprobs:
        yield invalid("top_logprobs", "it is only allowed with 'logprobs' set to true.")


def _logit_bias(params: ChatCompletionParams) -> Iterator[Violation]:
    wrong = next((bias for bias in params.logit_bias.values() if abs(bias) > _LOGIT_BIAS), None)
    if wrong is not None:
        yield out_of_range("logit_bias", f"values from -{_LOGIT_BIAS} to {_LOGIT_BIAS}", wrong)


def _audio(params: ChatCompletionParams) -> Iterator[Violation]:
    if "audio" in params.modalities and not params.HasField("audio"):
        yield from _absent(params.extra_json, "", "audio")


def _tool_choice(params: ChatCompletionParams) -> Iterator[Violation]:
    mode = params.tool_choice_mode
    chosen = params.HasField("tool_choice_object")
    if (chosen or mode not in _WITHOUT_TOOLS) and not params.tools:
        yield invalid("tool_choice", "it is only allowed with 'tools'.")
    elif chosen:
        choice = params.tool_choice_object
        names = {(tool.type, tool.function.name or tool.custom.name) for tool in params.tools}
        for kind, name in (("function", choice.function.name), ("custom", choice.custom.name)):
            if choice.type != kind or (kind, name) in names:
                continue
            if not name:
                yield missing(f"tool_choice.{kind}.name")
            else:
                yield invalid(f"tool_choice.{kind}.name", f"{quoted(name)} {_NO_TOOL}")
        for index, tool in enumerate(choice.allowed_tools.tools):
            name = tool.function.name or tool.custom.name
            if name and (tool.type, name) not in names:
                path = f"tool_choice.allowed_tools.tools[{index}]"
                yield invalid(path, f"{quoted(name)} {_NO_TOOL}")


_NO_TOOL: Final = "is not one of the 'tools'."
_WITHOUT_TOOLS: Final = frozenset({"", "none", "auto"})
"""The values of tool_choice that a request without tools can have."""


def _cache_breakpoints(params: ChatCompletionParams) -> Iterator[Violation]:
    marked = sum(
        part.HasField("prompt_cache_breakpoint")
        for message in params.messages[:]
        if message.HasField("content_parts")
        for part in message.content_parts.items
    )
    if marked > _CACHE_BREAKPOINTS:
        yield too_long("messages", _CACHE_BREAKPOINTS, "of prompt_cache_breakpoint", marked)


RULES: Final[tuple[tuple[Rule, frozenset[str] | None], ...]] = (
    (_required, None),
    (_members, frozenset({UNTYPED})),
    (_messages, None),
    *_range_rules(),
    (_lengths, frozenset({*LENGTHS, "stop_list"})),
    (_exclusive, frozenset(chain.from_iterable(EXCLUSIVE))),
    (_tools, frozenset({"tools", "functions"})),
    (_response_format, frozenset({"response_format"})),
    (_logprobs, frozenset({"top_logprobs"})),
    (_logit_bias, frozenset({"logit_bias"})),
    (_audio, frozenset({"modalities"})),
    (_tool_choice, frozenset({"tool_choice_mode", "tool_choice_object"})),
    (_cache_breakpoints, frozenset({"messages"})),
)
"""Each rule, and the names of which the survey must have one for the rule to run; None always."""
