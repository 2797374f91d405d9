"""Checks members beyond the contract, and members of the contract that have an extra cost.

    first rule that applies              harmless          forward           refuse
    the model's refused_members          rejected          rejected          rejected
    the model's allowed_members          accepted          accepted          accepted
    null                                 accepted          accepted          accepted
    dialects.REFUSED                     rejected          rejected          rejected
    dialects.CHARGED, if not free        rejected          rejected          rejected
    dialects.HARMLESS                    accepted          accepted          rejected
    dialects.REFUSED_PREFIXES            rejected          rejected          rejected
    dialects.REFUSED_WORDS               rejected          rejected          rejected
    any other                            rejected          accepted          rejected

The columns are the values of the model's `unknown_members`. Nested members have separate tables.
If a rejected member has a value without effect (false, "", [] or {}, which frameworks send), it is
removed from the request instead, so that its meaning at the upstream does not matter; except one of
dialects.HARMLESS, which has a known meaning with such a value.

A request without unknown members costs one walk over its objects.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from chatcompletion import openai_json
from chatcompletion.default_messages import quoted
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ContentPart
from service.errors import MOST_VIOLATIONS, Violation
from service.models import Model
from service.validation import dialects
from service.validation.aliases import folded
from service.validation.survey import UNTYPED, Survey, survey_of
from service.validation.wording import unsupported_value

OWN_TOOLS: Final = frozenset({"function", "custom"})
"""Types of tools that the caller runs."""

OWN_TIERS: Final = frozenset({"auto", "default"})
"""Values of service_tier that a model's prices cover."""

OWN_TTL: Final = "30m"
"""The lifetime of OpenAI's prompt cache, with or without the parameter."""

_TEMPLATE: Final = "chat_template_kwargs"
_LONGEST_VALUE: Final = 64
_MOST_ENTRIES: Final = 16
_LONGEST_NAME: Final = 64

_REFUSED: Final = {folded(name): reason for name, reason in dialects.REFUSED.items()}
_CHARGED: Final = frozenset(map(folded, dialects.CHARGED))
_SAY_SOMETHING: Final = frozenset(map(folded, dialects.SAY_SOMETHING_EMPTY))
_COUNTS: Final = frozenset(map(folded, dialects.ZERO_SAYS_NOTHING))
_TEMPLATE_REFUSED: Final = frozenset(map(folded, dialects.TEMPLATE_REFUSED))
_REFUSED_INSIDE: Final = {
    kind: frozenset(map(folded, names)) for kind, names in dialects.REFUSED_INSIDE.items()
}
_CACHE_CONTROL: Final = folded("cache_control")
_NOTHING: Final[frozenset[str]] = frozenset()


def refused(
    params: ChatCompletionParams, model: Model, *, survey: Survey | None = None
) -> list[Violation]:
    """Return the first members of a request that a model rejects, each once.

    Args:
        params: The parameters, canonical and within the contract.
        model: The model, whose settings select the accepted members.
        survey: What the parameters have, if it is known.
    """
    survey = survey_of(params) if survey is None else survey
    rules: list[Iterator[Violation]] = []
    if model.refused_members:
        rules.append(_by_operator(params, model))
    if not _CAN_BE_CHARGED.isdisjoint(survey):
        rules.append(_priced(params, model))
    rules.append(_marks(params, model))
    if UNTYPED in survey:
        rules.append(_unknown(params, model))
    found: dict[str, Violation] = {}
    for violation in chain.from_iterable(rules):
        found.setdefault(violation.param, violation)
        if len(found) == MOST_VIOLATIONS:
            break
    return list(found.values())


def take_out_what_says_nothing(params: ChatCompletionParams, model: Model) -> None:
    """Remove rejected members whose values have no effect.

    Args:
        params: Parameters for which `refused` returned nothing.
        model: The model.
    """
    extra = params.extra_json
    for name in list(extra):
        # A member of the contract can be here with an empty array.
        if name in _CONTRACT or name in dialects.HARMLESS or name in model.allowed_members:
            continue
        plain = folded(name)
        is_rejected = model.unknown != "forward" or _table_reason(name, plain, model)
        if extra[name] != "null" and is_rejected and _says_nothing(plain, extra[name]):
            del extra[name]


# ------------------------------------------------------------------------ by the model's entry


@lru_cache(maxsize=1024)
def _by_folded_name(names: frozenset[str]) -> Mapping[str, str]:
    return {folded(name): name for name in names}


def _by_operator(params: ChatCompletionParams, model: Model) -> Iterator[Violation]:
    names = _by_folded_name(model.refused_members)
    found = {name for name in model.refused_members if openai_json.has_member(params, name)}
    extra = params.extra_json
    said = (folded(name) for name in extra if extra[name] != "null")
    found |= {names[name] for name in said if name in names}
    for name in sorted(found):
        yield _unsupported(name, _not_accepted(model), _setting(model, "refused"))


# ------------------------------------------------------------------- the contract's own members

_Value = Callable[[ChatCompletionParams], str | None]


def _tier(params: ChatCompletionParams) -> str | None:
    is_set = params.HasField("service_tier") and params.service_tier not in OWN_TIERS
    return params.service_tier if is_set else None


def _modality(params: ChatCompletionParams) -> str | None:
    return next((kind for kind in params.modalities if kind != "text"), None)


def _time_in_cache(params: ChatCompletionParams) -> str | None:
    if not params.HasField("prompt_cache_options"):
        return None
    options = params.prompt_cache_options
    return options.ttl if options.HasField("ttl") and options.ttl != OWN_TTL else None


PRICED: Final[Mapping[str, tuple[_Value, tuple[str, ...]]]] = {
    "service_tier": (_tier, ("auto", "default")),
    "modalities": (_modality, ("text",)),
    "audio": (lambda params: "" if params.HasField("audio") else None, ()),
    "web_search_options": (
        lambda params: "" if params.HasField("web_search_options") else None,
        (),
    ),
    "prompt_cache_options.ttl": (_time_in_cache, (OWN_TTL,)),
}
"""Members of the contract that have a cost beyond the model's prices: a function that returns the
value that has one, or None, and the values that have none, if there are any."""

_CAN_BE_CHARGED: Final = frozenset({"tools", *(name.partition(".")[0] for name in PRICED)})
"""The fields that `_priced` reads."""


def _priced(params: ChatCompletionParams, model: Model) -> Iterator[Violation]:
    """Yield the members of the contract for which the model has no price."""
    for index, tool in enumerate(params.tools):
        if tool.type not in OWN_TOOLS and not model.allows_tool(tool.type):
            kinds = sorted(OWN_TOOLS | (model.allowed_tools or _NOTHING), key=_own_first)
            path = f"tools[{index}].type"
            yield unsupported_value(path, kinds, tool.type, _setting(model, "tools"))
    if model.is_free:
        return
    setting = _setting(model, "allowed")
    for name, (value_of, values) in PRICED.items():
        value = value_of(params)
        if value is not None and name not in model.allowed_members:
            if values:
                yield unsupported_value(name, values, value, setting)
            else:
                yield _unsupported(name, dialects.CHARGED_REASON, setting)


def _marks(params: ChatCompletionParams, model: Model) -> Iterator[Violation]:
    if model.is_free:
        return
    for index, message in enumerate(params.messages[:]):
        if message.HasField("content_parts"):
            for place, part in enumerate(message.content_parts.items):
                if not part.HasField("prompt_cache_breakpoint"):
                    continue
                mark = part.prompt_cache_breakpoint
                if mark.HasField("ttl") and mark.ttl != OWN_TTL:
                    path = f"messages[{index}].content[{place}].prompt_cache_breakpoint.ttl"
                    if _without_indexes(path) not in model.allowed_members:
                        setting = _setting(model, "allowed")
                        yield unsupported_value(path, (OWN_TTL,), mark.ttl, setting)


def _own_first(kind: str) -> tuple[bool, str]:
    return kind not in OWN_TOOLS, kind


# ------------------------------------------------------------------------------ unknown members


def _unknown(params: ChatCompletionParams, model: Model) -> Iterator[Violation]:
    """Yield the members beyond the contract that the model rejects."""
    top: openai_json.Unknown | None = None
    inner: list[Iterator[Violation]] = []
    for found in openai_json.unknown_members(params):
        if found.path:
            inner.append(_inside(found, model, echoed=_is_echoed(found, params)))
        else:
            top = found
    if top is not None:
        yield from _at_the_top(top, model)
    yield from chain.from_iterable(inner)


def _at_the_top(found: openai_json.Unknown, model: Model) -> Iterator[Violation]:
    for name in found.names:
        text = found.owner.extra_json[name]
        if name not in model.allowed_members and not _is_harmless(name, model):
            plain = folded(name)
            reason = _table_reason(name, plain, model)
            if reason or model.unknown != "forward":
                if name in dialects.HARMLESS or not _says_nothing(plain, text):
                    reason = reason or _unknown_reason(name, model)
                    yield _unsupported(name, reason, _setting(model, "allowed"))
                continue
        if name == _TEMPLATE or (model.unknown == "forward" and folded(name) == _FOLDED_TEMPLATE):
            yield from _in_template(name, text, model)


_FOLDED_TEMPLATE: Final = folded(_TEMPLATE)


def _is_harmless(name: str, model: Model) -> bool:
    return name in dialects.HARMLESS and model.unknown != "refuse"


def _table_reason(name: str, plain: str, model: Model) -> str:
    """Return the reason why the tables reject a name; "" if they do not.

    Args:
        name: The name.
        plain: The name, folded.
        model: The model.
    """
    if plain in _REFUSED:
        return _REFUSED[plain]
    if plain in _CHARGED and not model.is_free:
        return dialects.CHARGED_REASON
    return _by_prefix(name) or _by_word(name)


def _not_accepted(model: Model) -> str:
    return f"The model {quoted(model.name)} does not accept it."


def _unknown_reason(name: str, model: Model) -> str:
    """Return the reason for an unknown name: the similar name that the caller can have meant."""
    similar = get_close_matches(name[:_LONGEST_NAME], _KNOWN, n=1, cutoff=_SIMILAR)
    return f"Did you mean '{similar[0]}'?" if similar else _not_accepted(model)


_CONTRACT: Final = openai_json.member_names(ChatCompletionParams)
_KNOWN: Final = sorted(_CONTRACT | dialects.HARMLESS)
_SIMILAR: Final = 0.8


def _by_prefix(name: str) -> str:
    words = _in_snake_case(name)
    prefixes = dialects.REFUSED_PREFIXES
    return next((prefixes[prefix] for prefix in prefixes if words.startswith(prefix)), "")


def _by_word(name: str) -> str:
    words = f"_{_in_snake_case(name)}_"
    refused = dialects.REFUSED_WORDS
    return next((refused[word] for word in refused if f"_{word}_" in words), "")


def _in_snake_case(name: str) -> str:
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name[:_LONGEST_NAME])
    return _BETWEEN_WORDS.sub("_", name[:_LONGEST_NAME]).lower().replace("-", "_")


_BETWEEN_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _says_nothing(plain: str, text: str) -> bool:
    if len(text) > _LONGEST_EMPTY:
        return False
    value = json.loads(text)
    if value is False or value in ("", [], {}):
        return plain not in _SAY_SOMETHING
    return value == 0 and plain in _COUNTS


_LONGEST_EMPTY: Final = 16


# ----------------------------------------------------------------------------- nested objects


def _in_template(name: str, text: str, model: Model) -> Iterator[Violation]:
    """Yield the rejected variables of a chat template.

    A variable can be an argument of the function that renders the template.
    """
    value = json.loads(text, parse_int=str, parse_float=str)
    strict = model.unknown != "forward"
    if not isinstance(value, dict):
        if strict:
            yield _unsupported(name, "It must be an object.", _setting(model, "allowed"))
        return
    for inner, said in value.items():
        if f"{_TEMPLATE}.{inner}" in model.allowed_members:
            continue
        if folded(inner) in _TEMPLATE_REFUSED:
            reason = dialects.TEMPLATE_REASON
        elif strict and not _is_harmless_value(inner, said):
            reason = _not_accepted(model)
        else:
            continue
        yield _unsupported(f"{name}.{_shown(inner)}", reason, _setting(model, "allowed"))


def _is_harmless_value(name: str, value: Any) -> bool:
    """Whether a variable of a chat template cannot make a prompt much longer."""
    if value is None or isinstance(value, bool):
        return True
    if name not in dialects.TEMPLATE_HARMLESS:
        return False
    if isinstance(value, list):
        return len(value) <= _MOST_ENTRIES and all(map(_is_short, value))
    return _is_short(value)


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_VALUE


def _inside(found: openai_json.Unknown, model: Model, *, echoed: bool) -> Iterator[Violation]:
    """Yield the rejected members of a nested object."""
    kind = found.owner.DESCRIPTOR.name
    place = _without_indexes(found.path)
    for name in found.names:
        allowed = f"{place}.{name}" in model.allowed_members
        path = f"{found.path}.{_shown(name)}"
        attached = kind == "ContentPart" and name in dialects.ATTACHMENT
        if attached and (allowed or model.unknown != "refuse"):
            yield from _attachment(found, name, model, allowed=allowed)
            continue
        reason = "" if allowed else _reason_inside(kind, name, found, model, echoed=echoed)
        if reason:
            yield _unsupported(path, reason, _setting(model, "allowed"))


def _reason_inside(
    kind: str, name: str, found: openai_json.Unknown, model: Model, *, echoed: bool
) -> str:
    """Return the reason why a member of a nested object is rejected; "" if it is accepted."""
    plain = folded(name)
    if plain == _CACHE_CONTROL and not model.is_free:
        return dialects.CHARGED_REASON
    if plain in _REFUSED_INSIDE.get(kind, _NOTHING):
        empty = kind == "ChatMessage" and _says_nothing(plain, found.owner.extra_json[name])
        return "" if empty else dialects.ATTACHMENT_REASON
    if _passes_inside(kind, name, found, model, echoed=echoed):
        return ""
    return (
        dialects.ATTACHMENT_REASON if kind in dialects.ATTACHMENT_OBJECTS else _not_accepted(model)
    )


def _passes_inside(
    kind: str, name: str, found: openai_json.Unknown, model: Model, *, echoed: bool
) -> bool:
    if kind == "Tool" and found.owner.type not in OWN_TOOLS:
        return True  # an accepted type includes its members
    if model.unknown == "refuse":
        return False
    is_echoed = echoed and not (kind == "ContentPart" and _by_prefix(name))
    if name in dialects.HARMLESS_INSIDE.get(kind, _NOTHING) or is_echoed:
        return True
    if model.unknown == "harmless" or kind in dialects.ATTACHMENT_OBJECTS:
        return False
    if kind == "Tool":
        # Some upstreams use the members of a tool and ignore its type.
        return model.is_free and model.allowed_tools is None
    return kind != "ContentPart" or not _by_prefix(name)


def _is_echoed(found: openai_json.Unknown, params: ChatCompletionParams) -> bool:
    """Whether an object accepts all members because callers send completions back unchanged."""
    kind = found.owner.DESCRIPTOR.name
    if kind == "ContentPart":
        message = _MESSAGE.match(found.path)
        is_answer = message is not None and params.messages[int(message[1])].role == "assistant"
        return is_answer and not _is_attachment(found.owner)
    if kind == "ChatMessage":
        return bool(found.owner.role == "assistant")
    if kind == "Tool":
        return found.path.startswith("tool_choice")  # it names a tool and adds none
    return kind in dialects.ECHOED


def _is_attachment(part: ContentPart) -> bool:
    """Return whether a part is a picture, sound or film, by its type or its members."""
    return (
        part.type in dialects.ATTACHMENT
        or part.type in dialects.ATTACHMENT_TYPES
        or any(map(part.HasField, dialects.ATTACHMENT_TYPES))
    )


def _attachment(
    found: openai_json.Unknown, name: str, model: Model, *, allowed: bool
) -> Iterator[Violation]:
    """Yield the members of a vendor's picture, sound or film other than its address."""
    path = f"{found.path}.{name}"
    setting = _setting(model, "allowed")
    text = found.owner.extra_json[name]
    value = json.loads(text, parse_int=str, parse_float=str)
    inside = value if isinstance(value, dict) else {}
    place = _without_indexes(path)
    for inner in inside:
        passes = inner in dialects.ATTACHMENT[name] or f"{place}.{inner}" in model.allowed_members
        if not passes:
            yield _unsupported(f"{path}.{_shown(inner)}", dialects.ATTACHMENT_REASON, setting)
    if model.unknown == "harmless" and not allowed:
        # The hold covers one attachment of an array, and none in a part of another type. An object
        # in place of an address has unchecked members.
        several = isinstance(value, list) or any(
            isinstance(said, list | dict) for said in inside.values()
        )
        if several or found.owner.type not in {name, ""}:
            yield _unsupported(path, dialects.ATTACHMENT_REASON, setting)


# ------------------------------------------------------------------------------------- messages


def _unsupported(path: str, reason: str, setting: str) -> Violation:
    path = _shown(path)
    return Violation(
        param=path,
        message=f"Unsupported parameter: '{path}'. {reason}",
        code="unsupported_parameter",
        setting=setting,
    )


_SETTINGS: Final = {
    "allowed": "allowed_members",
    "refused": "refused_members",
    "tools": "allowed_tools",
}


def _setting(model: Model, kind: str) -> str:
    return f"models.{model.name}.{_SETTINGS[kind]}"


_INDEX: Final = re.compile(r"\[\d+\]")
_MESSAGE: Final = re.compile(r"messages\[(\d+)\]")


def _without_indexes(path: str) -> str:
    return _INDEX.sub("", path)


def _shown(name: str) -> str:
    """Return a name that a caller chose, in a form that is safe in messages and log lines."""
    if len(name) <= _LONGEST_PATH and name.isprintable():
        return name
    return json.dumps(name[:_LONGEST_PATH])[1:-1][:_LONGEST_PATH]


_LONGEST_PATH: Final = 120
