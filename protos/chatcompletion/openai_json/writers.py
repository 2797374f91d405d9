"""From messages to JSON: one function per message type, generated from the shapes.

For the role and the content of a message, for example, the function is

    def write_ChatMessage(message):
        has = message.HasField
        members = {}
        value = message.role
        if value or has("role"):
            members["role"] = value
        value = message.content_text
        if value or has("content_text"):
            members["content"] = value
        elif has("content_parts"):
            items = message.content_parts.items
            members["content"] = [write_ContentPart(item) for item in items[:]]
        ...
        nulls = message.null_fields
        if nulls:
            add_nulls(members, nulls, names_ChatMessage)
        extra = message.extra_json
        if extra:
            return with_extra(members, extra)
        return members

`items[:]` copies a repeated field into a list, which iterates faster. msgspec writes the result; a
msgspec.Raw in it is text that is written unchanged. The functions check that text. The result is
therefore always one JSON object on one line, in which each name occurs once.
"""

from collections.abc import Callable, Iterator, Mapping
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


def writers(shapes: dict[str, Shape]) -> dict[str, Callable[[Message], Any]]:
    """Generate a writer for each shape, by full name."""
    namespace: dict[str, Any] = {
        "any_value": _any_value,
        "number": written,
        "with_extra": _with_extra,
        "add_nulls": _add_nulls,
    }
    for shape in shapes.values():
        names = {member.number: member.name for member in shape.members.values()}
        namespace[_names_name(shape.name)] = names
    source = "\n".join(line for shape in shapes.values() for line in _function(shape))
    exec(compile(source, __file__, "exec"), namespace)  # noqa: S102  # made of descriptors only
    return {name: namespace[_function_name(name)] for name in shapes}


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
                f"The value of a member in '{EXTRA}' is not one JSON value.",
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


def _function_name(shape: str) -> str:
    return "write_" + shape.replace(".", "_")


def _names_name(shape: str) -> str:
    return "names_" + shape.replace(".", "_")


def _function(shape: Shape) -> Iterator[str]:
    yield f"def {_function_name(shape.name)}(message):"
    yield "    has = message.HasField"
    yield "    members = {}"
    for member in shape.members.values():
        for position, arm in enumerate(member.arms):
            yield from ("    " + line for line in _arm(member, arm, "el" if position else ""))
    yield f"    nulls = message.{NULLS}"
    yield "    if nulls:"
    yield f"        add_nulls(members, nulls, {_names_name(shape.name)})"
    yield f"    extra = message.{EXTRA}"
    yield "    if extra:"
    yield "        return with_extra(members, extra)"
    yield "    return members"


def _arm(member: Member, arm: Arm, otherwise: str) -> Iterator[str]:
    into = f"members[{member.name!r}] = {_value(member, arm)}"
    if arm.repeated:
        yield f"items = message.{arm.field}"
        yield "if items:"
    elif arm.form in {Form.STRING, Form.INTEGER, Form.BOOLEAN} and not otherwise:
        # A non-zero value is set; checking that first is cheaper than HasField.
        yield f"value = message.{arm.field}"
        yield f"if value or has({arm.field!r}):"
    else:
        yield f"{otherwise}if has({arm.field!r}):"
        if arm.boxed:
            yield f"    items = message.{arm.field}.items"
        else:
            yield f"    value = message.{arm.field}"
    yield f"    {into}"


def _value(member: Member, arm: Arm) -> str:
    """Return an expression for the JSON value of an arm, in terms of `value` or `items`."""
    write = _function_name(arm.shape) if arm.shape else ""
    return {
        Form.STRING: "value",
        Form.INTEGER: "value",
        Form.BOOLEAN: "value",
        Form.BYTES: "list(value)",
        Form.NUMBER: f"number(value, {member.name!r})",
        Form.ANY: f"any_value(value.text, {member.name!r})",
        Form.OBJECT: f"{write}(value)",
        Form.OBJECTS: f"[{write}(item) for item in items[:]]",
        Form.STRINGS: "items[:]",
        Form.STRING_MAP: "{key: items[key] for key in items}",
        Form.NUMBER_MAP: f"{{key: number(items[key], {member.name!r}) for key in items}}",
    }[arm.form]
