"""From messages to JSON: one function per message type, made from the shapes.

For a message with a role and a text, for example, the function goes through

    ListFields()                 member      value
    (role, "user")               role        "user"
    (content_text, "Hi")         content     "Hi"
    (extra_json, {...})          the members of extra_json, last

Most messages have few of the fields that they can have, so that going through those that are set is
cheaper than asking for each. msgspec writes the result; a msgspec.Raw in it is text that is written
unchanged. The functions check that text. The result is therefore always one JSON object on one
line, in which each name occurs once.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from google.protobuf.message import Message

from chatcompletion.openai_json import verbatim
from chatcompletion.openai_json.codec_errors import EncodeError
from chatcompletion.openai_json.numbers import written
from chatcompletion.openai_json.shapes import EXTRA, NULLS, Arm, Form, Member, Shape

Writer = Callable[[Any], dict[str, Any] | msgspec.Raw]
"""Returns the members of a message's object, or its text if a name has an unpaired surrogate."""

encode_value = msgspec.json.Encoder().encode


_Write = Callable[[Any], Any]
"""Returns the JSON value of a field, as msgspec writes it."""


def writers(shapes: dict[str, Shape]) -> dict[str, Writer]:
    """Make a writer for each shape, by full name."""
    made: dict[str, Writer] = {}
    for shape in shapes.values():
        made[shape.name] = _writer(shape, made)
    return made


def _writer(shape: Shape, made: Mapping[str, Writer]) -> Writer:
    """Return the writer of a shape, which looks up those of nested shapes in `made`."""
    fields = shape.message.DESCRIPTOR.fields_by_name
    values: dict[Any, tuple[str, _Write | None]] = {
        fields[arm.field]: (member.name, _value(member, arm, made))
        for member in shape.members.values()
        for arm in member.arms
    }
    names = {member.number: member.name for member in shape.members.values()}
    # Fields come by number, members in the order of the .proto file.
    late = _late(names)
    nulls, extra = fields[NULLS], fields[EXTRA]

    def write(message: Message) -> dict[str, Any] | msgspec.Raw:
        members: dict[str, Any] = {}
        null_fields, others = b"", None
        for field, value in message.ListFields():
            found = values.get(field)
            if found is not None:
                name, write_value = found
                members[name] = value if write_value is None else write_value(value)
            elif field is extra:
                others = value
            elif field is nulls:
                null_fields = value
        if late and not late.isdisjoint(members):
            members = {name: members[name] for name in names.values() if name in members}
        if null_fields:
            _add_nulls(members, null_fields, names)
        return members if others is None else _with_extra(members, others)

    return write


def _any_value(text: str, name: str) -> msgspec.Raw:
    if not verbatim.is_value(text):
        raise EncodeError(f"'{name}' is not one JSON value.", code="invalid_json", param=name)
    return msgspec.Raw(verbatim.one_line(text))


def _add_nulls(members: dict[str, Any], numbers: bytes, names: Mapping[int, str]) -> None:
    # A repeated number is rejected too, so that there are at most as many numbers as members.
    for number in numbers:
        name = names.get(number)
        if name is None:
            raise EncodeError(
                f"A number in '{NULLS}' is not the first field of a member.",
                code="invalid_null_field",
                param=NULLS,
            )
        if name in members:
            raise EncodeError(
                f"A member is in '{NULLS}' and elsewhere.", code="duplicate_member", param=name
            )
        members[name] = None


def _with_extra(members: dict[str, Any], extra: Mapping[str, str]) -> dict[str, Any] | msgspec.Raw:
    cut: dict[str, str] = {}  # names with unpaired surrogates, which msgspec cannot write
    for key in extra:
        text = extra[key]
        if text == "null" and key[:1] != '"' and key not in members:
            members[key] = None
            continue
        name = key if key[:1] != '"' else _name_of(key)
        if name in members or name in cut:
            raise EncodeError(
                f"A member is in '{EXTRA}' and elsewhere.", code="duplicate_member", param=name
            )
        if not verbatim.is_value(text):
            raise EncodeError(
                f"Expected the text of one JSON value in '{EXTRA}', but got another text.",
                code="invalid_json",
                param=name,
            )
        text = verbatim.one_line(text)
        if verbatim.is_unicode(name):
            members[name] = msgspec.Raw(text)
        else:
            cut[name] = text
    if not cut:
        return members
    whole = {name: encode_value(value).decode() for name, value in members.items()}
    return msgspec.Raw(verbatim.object_text(whole | cut))


def _name_of(key: str) -> str:
    try:
        return verbatim.name_of(key)
    except ValueError:
        raise EncodeError(
            f"A key in '{EXTRA}' begins with a quotation mark and is not a JSON string.",
            code="invalid_json",
            param=EXTRA,
        ) from None


def _late(names: Mapping[int, str]) -> frozenset[str]:
    """Return the members that the .proto file has before one with a smaller number."""
    numbers = list(names)
    return frozenset(
        names[number] for at, number in enumerate(numbers) if number > min(numbers[at:])
    )


def _value(member: Member, arm: Arm, made: Mapping[str, Writer]) -> _Write | None:
    """Return the function that writes the value of an arm; None if it is written as it is."""
    name, shape = member.name, arm.shape or ""
    items: _Write = (lambda value: value.items[:]) if arm.boxed else (lambda value: value[:])
    ways: dict[Form, _Write] = {
        Form.BYTES: list,
        Form.NUMBER: lambda value: written(value, name),
        Form.ANY: lambda value: _any_value(value.text, name),
        Form.OBJECT: lambda value: made[shape](value),  # noqa: PLW0108 - it can be made later
        Form.OBJECTS: lambda value: [made[shape](item) for item in items(value)],
        Form.STRINGS: items,
        Form.STRING_MAP: dict,
        Form.NUMBER_MAP: lambda value: {key: written(value[key], name) for key in value},
    }
    return ways.get(arm.form)
