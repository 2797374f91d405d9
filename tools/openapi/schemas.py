"""The JSON Schemas of the messages, from the shapes of `openai_json`.

    shape of a message    schema of an object, under the name of the message
    member                property; null is allowed, because a null member is kept as it is
    "Required" at the start of a comment -> required, and not null
    RANGES, LENGTHS       minimum, maximum, maxItems, maxLength, maxProperties

Members that the contract does not have are allowed everywhere, because both sides forward them.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.openai_json.shapes import Arm, Form, Member, Shape
from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams
from service.validation.contract import LENGTHS, OPEN, RANGES
from service.validation.entry_counts import MOST

Schema = dict[str, Any]

_PARAMS: Final = ChatCompletionParams.DESCRIPTOR.full_name
_REQUIRED: Final = "Required"
_NULL: Final[Schema] = {"type": "null"}
_LENGTH_KEYWORD: Final = {"string": "maxLength", "array": "maxItems", "object": "maxProperties"}

ALWAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "chatcompletion.v1.ChatCompletion": ("id", "object", "created", "model", "choices"),
    "chatcompletion.v1.ChatCompletionChunk": ("id", "object", "created", "model", "choices"),
    "chatcompletion.v1.ListModelsResponse": ("object", "data"),
    "chatcompletion.v1.Model": ("id", "object", "created", "owned_by"),
    "chatcompletion.v1.ApiError": ("message", "type", "param", "code"),
}
"""The members of each document of a response. Of them, only `param` and `code` can be null."""

_NULL_OF_ERRORS: Final = frozenset({"param", "code"})

_OF_FORM: Final[Mapping[Form, Schema]] = {
    Form.STRING: {"type": "string"},
    Form.INTEGER: {"type": "integer", "format": "int64"},
    Form.NUMBER: {"type": "number", "format": "double"},
    Form.BOOLEAN: {"type": "boolean"},
    Form.BYTES: {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    Form.ANY: {},
    Form.STRINGS: {"type": "array", "items": {"type": "string"}},
    Form.STRING_MAP: {"type": "object", "additionalProperties": {"type": "string"}},
    Form.NUMBER_MAP: {
        "type": "object",
        "additionalProperties": {"type": "number", "format": "double"},
    },
}


def reference(full_name: str) -> Schema:
    """Return a reference to the schema of a message."""
    return {"$ref": f"#/components/schemas/{name_of(full_name)}"}


def name_of(full_name: str) -> str:
    """Return the name of the schema of a message."""
    return full_name.rpartition(".")[2]


def schemas(comments: Mapping[str, str]) -> dict[str, Schema]:
    """Return the schema of each message that mirrors a JSON object, by its name.

    Args:
        comments: The comments of the messages and fields, by full name.
    """
    return {
        name_of(name): _object(SHAPES[name], comments)
        for name in sorted(SHAPES, key=lambda name: list(comments).index(name))
    }


def _object(shape: Shape, comments: Mapping[str, str]) -> Schema:
    required = [
        name
        for name in shape.members
        if name in ALWAYS.get(shape.name, ())
        or comments[f"{shape.name}.{name}"].startswith(_REQUIRED)
    ]
    properties = {
        name: _property(
            shape, member, comments, null=name not in required or name in _NULL_OF_ERRORS
        )
        for name, member in shape.members.items()
    }
    return {
        "type": "object",
        "description": comments[shape.name],
        **({"required": required} if required else {}),
        "properties": properties,
    }


def _property(shape: Shape, member: Member, comments: Mapping[str, str], *, null: bool) -> Schema:
    fields = shape.message.DESCRIPTOR.fields_by_name
    about = comments[f"{shape.name}.{member.name}"].removeprefix(f"{_REQUIRED}. ")
    schema: Schema = {"description": about}
    if any(fields[arm.field].GetOptions().deprecated for arm in member.arms):
        schema["deprecated"] = True
    if shape.name == _PARAMS and member.name in OPEN:
        return schema
    if len(member.arms) == 1 and member.arms[0].form is not Form.OBJECT:
        own = _arm(member.arms[0])
        if shape.name == _PARAMS:
            own |= _limits(member.name, own)
        if null and "type" in own:
            own["type"] = [own["type"], "null"]
        return schema | own
    arms = [_arm(arm) for arm in member.arms]
    if len(arms) > 1:
        arms = [
            {"description": comments[f"{shape.name}.{arm.field}"], **one}
            for arm, one in zip(member.arms, arms, strict=True)
        ]
    return schema | {"anyOf": [*arms, _NULL] if null else arms}


def _arm(arm: Arm) -> Schema:
    if arm.shape is None:
        return dict(_OF_FORM[arm.form])
    if arm.form is Form.OBJECT:
        return reference(arm.shape)
    return {"type": "array", "items": reference(arm.shape)}


def _limits(name: str, own: Schema) -> Schema:
    found: Schema = {}
    if name in RANGES:
        least, most = RANGES[name]
        found["minimum"] = least
        if most < math.inf:
            found["maximum"] = most
    if name in LENGTHS:
        found[_LENGTH_KEYWORD[own["type"]]] = LENGTHS[name][1]
    elif own["type"] == "array":
        found["maxItems"] = MOST
    if name == "messages":
        found["minItems"] = 1
    return found
