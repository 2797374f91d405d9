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
message type, made from the shapes. It goes through the fields that are set.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from google.protobuf.message import Message

from chatcompletion.openai_json import verbatim
from chatcompletion.openai_json.shapes import EXTRA, NULLS, Arm, Form, Member, Shape

Check = Callable[[Message], bool]
"""Returns True if a message is canonical. If it returns False, the message can still be."""


ExtraCheck = Callable[[Mapping[str, str], Mapping[str, Member]], bool]
"""Whether the extra_json of a message with these members passes a check."""


_ValueCheck = Callable[[Any], bool]


def checks(shapes: dict[str, Shape], *, extra: ExtraCheck | None = None) -> dict[str, Check]:
    """Make a check for each shape, by full name.

    Args:
        shapes: All shapes, including those of nested messages.
        extra: Checks each extra_json that is not empty. If given, it replaces all other checks:
            those of numbers, text and nulls.
    """
    made: dict[str, Check] = {}
    for shape in shapes.values():
        made[shape.name] = _check(shape, made, extra)
    return made


def _check(shape: Shape, made: Mapping[str, Check], extra: ExtraCheck | None) -> Check:
    """Return the check of a shape, which looks up those of nested shapes in `made`."""
    fields = shape.message.DESCRIPTOR.fields_by_name
    members = shape.members
    values: dict[Any, _ValueCheck] = {}
    for member in members.values():
        for arm in member.arms:
            check = _of_objects(arm, made) or (None if extra else _of_values(arm))
            if check is not None:
                values[fields[arm.field]] = check
    is_plain_extra = extra or _is_plain_extra
    values[fields[EXTRA]] = lambda value: is_plain_extra(value, members)
    numbers = {member.number: member for member in members.values()}
    nulls = None if extra else fields[NULLS]

    def is_plain(message: Message) -> bool:
        for field, value in message.ListFields():
            check = values.get(field)
            if check is not None and not check(value):
                return False
            if field is nulls and not _is_plain_nulls(message, value, numbers):
                return False
        return True

    return is_plain


def _of_objects(arm: Arm, made: Mapping[str, Check]) -> _ValueCheck | None:
    """Return the check of nested objects; None if the arm has none."""
    shape = arm.shape or ""
    match arm.form:
        case Form.OBJECT:
            return lambda value: made[shape](value)  # noqa: PLW0108 - it can be made later
        case Form.OBJECTS if arm.boxed:
            return lambda value: all(map(made[shape], value.items[:]))
        case Form.OBJECTS:
            return lambda value: all(map(made[shape], value[:]))
        case _:
            return None


def _of_values(arm: Arm) -> _ValueCheck | None:
    """Return the check of a number or text that could change; None if the arm has neither."""
    match arm.form:
        case Form.NUMBER:
            return isfinite
        case Form.NUMBER_MAP:
            return lambda value: all(isfinite(value[key]) for key in value)
        case Form.ANY:
            return lambda value: _is_plain_text(value.text)
        case _:
            return None


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
