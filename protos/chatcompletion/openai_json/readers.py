r"""From JSON to messages: one function per message type, generated from the shapes.

For the role of a message, for example, the function is

    def read_ChatMessage(message, members):
        nulls = b""
        while True:
            value = members.pop("role", None)
            if value is not None:
                try:
                    read = value_STRING(value)
                except misfits:
                    members["role"] = value
                else:
                    if read is None:
                        nulls += b"\x01"
                    else:
                        message.role = read
                if not members:
                    break
            ...
            keep(message.extra_json, members)
            break
        if nulls:
            message.null_fields = nulls

The function removes each member that fits its field from `members`. The rest goes to extra_json.
The same source runs on the values of `strict_values` and of `lenient_values`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from google.protobuf.message import Message

from chatcompletion.openai_json.numbers import integral
from chatcompletion.openai_json.shapes import EXTRA, NULLS, Arm, Form, Member, Shape

Reader = Callable[[Message, dict[str, Any]], None]
"""Fills an empty message from the members of an object, which it consumes."""


class ValueReaders(Protocol):
    """The functions of a module that reads one value at a time."""

    MISFITS: tuple[type[Exception], ...]

    def reader(self, forms: tuple[Form, ...]) -> Callable[[Any], Any]:
        """Return a function that reads a slice of any of these forms, or null as None."""

    def text(self, value: Any) -> str:
        """Return the JSON text of a slice."""

    def keep(self, extra: Any, members: dict[str, Any]) -> None:
        """Put members into extra_json."""


PYTHON_TYPES = {
    Form.STRING: "str",
    Form.INTEGER: "int",
    Form.OBJECT: "dict",
    Form.STRINGS: "list",
    Form.OBJECTS: "list",
}
"""The Python type of a value of each form, for members with several forms."""


def readers(shapes: dict[str, Shape], values: Any) -> dict[str, Reader]:
    """Generate a reader for each shape, by full name.

    Args:
        shapes: All shapes, including those of nested messages.
        values: A module with the functions of `ValueReaders`.
    """
    module: ValueReaders = values
    namespace: dict[str, Any] = {
        "misfits": module.MISFITS,
        "keep": module.keep,
        "respelt": lambda value: integral(module.text(value)),
    }
    for shape in shapes.values():
        for member in shape.members.values():
            namespace[_value_function(member)] = module.reader(member.forms)
    source = "\n".join(line for shape in shapes.values() for line in _function(shape))
    exec(compile(source, __file__, "exec"), namespace)  # noqa: S102  # made of descriptors only
    return {name: namespace[_function_name(name)] for name in shapes}


def _function_name(shape: str) -> str:
    return "read_" + shape.replace(".", "_")


def _value_function(member: Member) -> str:
    return "value_" + "_".join(form.name for form in member.forms)


def _function(shape: Shape) -> Iterator[str]:
    yield f"def {_function_name(shape.name)}(message, members):"
    yield "    nulls = b''"
    yield "    while True:"
    for member in shape.members.values():
        yield from _indent(2, _member(member))
    yield f"        keep(message.{EXTRA}, members)"
    yield "        break"
    yield "    if nulls:"
    yield f"        message.{NULLS} = nulls"


def _member(member: Member) -> Iterator[str]:
    name = member.name
    yield f"value = members.pop({name!r}, None)"
    yield "if value is not None:"
    yield "    try:"
    yield f"        read = {_value_function(member)}(value)"
    yield "    except misfits:"
    yield from _indent(2, _misfit(member))
    yield "    else:"
    yield "        if read is None:"
    yield f"            nulls += {bytes((member.number,))!r}"
    for arm in member.arms:
        if len(member.arms) > 1:
            yield f"        elif type(read) is {PYTHON_TYPES[arm.form]}:"
        elif arm.repeated:
            yield "        elif not read:"
            yield f"            members[{name!r}] = value"
            yield "        else:"
        else:
            yield "        else:"
        yield from _indent(3, _assignment(arm))
    yield "    if not members:"
    yield "        break"


def _misfit(member: Member) -> Iterator[str]:
    integers = [arm for arm in member.arms if arm.form is Form.INTEGER]
    if not integers:
        yield f"members[{member.name!r}] = value"
        return
    # 7.0 and 70e-1 are the integer 7.
    yield "read = respelt(value)"
    yield "if read is None:"
    yield f"    members[{member.name!r}] = value"
    yield "else:"
    yield f"    message.{integers[0].field} = read"


def _assignment(arm: Arm) -> Iterator[str]:
    """Yield statements that assign `read` to the field of an arm."""
    field = f"message.{arm.field}"
    reader = _function_name(arm.shape) if arm.shape else ""
    if arm.boxed:
        yield f"box = {field}"
        yield "if not read:"
        yield "    box.SetInParent()"
        field = "box.items"
    match arm.form:
        case Form.OBJECT:
            yield f"child = {field}"
            yield "if read:"
            yield f"    {reader}(child, read)"
            yield "else:"
            yield "    child.SetInParent()"
        case Form.OBJECTS:
            yield f"add = {field}.add"
            yield "for item in read:"
            yield f"    {reader}(add(), item)"
        case Form.STRINGS:
            yield f"{field}.extend(read)"
        case Form.STRING_MAP | Form.NUMBER_MAP:
            yield f"{field}.update(read)"
        case Form.ANY:
            yield f"{field}.text = read"
        case _:
            yield f"{field} = read"


def _indent(levels: int, lines: Iterator[str]) -> Iterator[str]:
    return (" " * 4 * levels + line for line in lines)
