r"""Canonical messages: a gRPC caller's message as if it had been decoded from JSON.

    a caller can send                           result
    extra_json["model"] = '"expensive"'         model = "expensive"
    extra_json["x"] = '1,"model":"expensive"'   rejected: not one JSON value
    extra_json["model"] and model               rejected: a member in two places
    temperature = NaN                           rejected: not a JSON number
    RawJson(text='{"a":1,"a":2}')               RawJson(text='{"a":2}')
    extra_json["refusal"] = "null"              null_fields = b"\x07"
    null_fields = b"\x01" and model            rejected: a member in two places

A message is canonical if encoding and decoding it returns an equal message. To make a message
canonical, the codec encodes and decodes it. Most messages need neither: the checks here walk a
message and find out whether it contains text or a number that could change. There is one check per
message type, generated from the shapes:

    def is_plain_ChatMessage(message):
        has = message.HasField
        extra = message.extra_json
        if extra and not is_plain_extra(extra, members):
            return False
        nulls = message.null_fields
        if nulls and not is_plain_nulls(message, nulls, numbers):
            return False
        items = message.tool_calls
        if items and not all(map(is_plain_ToolCall, items[:])):
            return False
        ...
        return True
"""

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any

from google.protobuf.message import Message

from chatcompletion.openai_json import verbatim
from chatcompletion.openai_json.shapes import EXTRA, NULLS, Arm, Form, Member, Shape

Check = Callable[[Message], bool]
"""Returns True if a message is canonical. If it returns False, the message can still be."""


ExtraCheck = Callable[[Mapping[str, str], Mapping[str, Member]], bool]
"""Whether the extra_json of a message with these members passes a check."""


def checks(shapes: dict[str, Shape], *, extra: ExtraCheck | None = None) -> dict[str, Check]:
    """Generate a check for each shape, by full name.

    Args:
        shapes: All shapes, including those of nested messages.
        extra: Checks each extra_json that is not empty. If given, it replaces all other checks:
            those of numbers, text and nulls.
    """
    namespace: dict[str, Any] = {
        "isfinite": (lambda _: True) if extra else isfinite,
        "is_plain_extra": extra or _is_plain_extra,
        "is_plain_nulls": (lambda *_: True) if extra else _is_plain_nulls,
        "is_plain_text": (lambda _: True) if extra else _is_plain_text,
    }
    for shape in shapes.values():
        namespace[_members_name(shape.name)] = shape.members
        numbers = {member.number: member for member in shape.members.values()}
        namespace[_numbers_name(shape.name)] = numbers
    source = "\n".join(line for shape in shapes.values() for line in _function(shape))
    exec(compile(source, __file__, "exec"), namespace)  # noqa: S102  # made of descriptors only
    return {name: namespace[_function_name(name)] for name in shapes}


def _is_plain_text(text: str) -> bool:
    return text != "null" and verbatim.is_kept(text)


def _is_plain_extra(extra: Mapping[str, str], members: Mapping[str, Member]) -> bool:
    for name in extra:
        text = extra[name]
        if name in members or name[:1] == '"':
            return False
        if text != "null" and not verbatim.is_kept(text):
            return False
    return True


def _is_plain_nulls(message: Message, nulls: bytes, members: Mapping[int, Member]) -> bool:
    if len(nulls) > len(members) or len(set(nulls)) < len(nulls):
        return False
    for number in nulls:
        member = members.get(number)
        if member is None or any(is_set(message, arm) for arm in member.arms):
            return False
    return True


def has_plain_names(extra: Mapping[str, str], members: Mapping[str, Member]) -> bool:
    """Whether extra_json contains no member that has a field."""
    return not any(name in members for name in extra)


def is_empty(extra: Mapping[str, str], _: Mapping[str, Member]) -> bool:
    """Whether extra_json is empty."""
    return not extra


def is_set(message: Message, arm: Arm) -> bool:
    """Whether the field of an arm is set."""
    return bool(getattr(message, arm.field)) if arm.repeated else message.HasField(arm.field)


def _function_name(shape: str) -> str:
    return "is_plain_" + shape.replace(".", "_")


def _members_name(shape: str) -> str:
    return "members_" + shape.replace(".", "_")


def _numbers_name(shape: str) -> str:
    return "numbers_" + shape.replace(".", "_")


def _function(shape: Shape) -> Iterator[str]:
    yield f"def {_function_name(shape.name)}(message):"
    yield "    has = message.HasField"
    yield f"    extra = message.{EXTRA}"
    yield f"    if extra and not is_plain_extra(extra, {_members_name(shape.name)}):"
    yield "        return False"
    yield f"    nulls = message.{NULLS}"
    yield f"    if nulls and not is_plain_nulls(message, nulls, {_numbers_name(shape.name)}):"
    yield "        return False"
    for member in shape.members.values():
        for arm in member.arms:
            yield from ("    " + line for line in _arm(arm))
    yield "    return True"


def _arm(arm: Arm) -> Iterator[str]:
    """Yield statements that return False if the value of an arm is not plain."""
    field = f"message.{arm.field}"
    check = _function_name(arm.shape) if arm.shape else ""
    match arm.form:
        case Form.NUMBER:
            yield f"if not isfinite({field}):"
        case Form.NUMBER_MAP:
            yield f"items = {field}"
            yield "if items and not all(isfinite(items[key]) for key in items):"
        case Form.ANY:
            yield f"if has({arm.field!r}) and not is_plain_text({field}.text):"
        case Form.OBJECT:
            yield f"if has({arm.field!r}) and not {check}({field}):"
        case Form.OBJECTS if arm.boxed:
            yield f"if has({arm.field!r}) and not all(map({check}, {field}.items[:])):"
        case Form.OBJECTS:
            yield f"items = {field}"
            yield f"if items and not all(map({check}, items[:])):"
        case _:
            return
    yield "    return False"
