"""The members in the types of the installed openai package.

    a TypedDict or a model      an object with members
    List, Iterable, Sequence    an array
    Dict, object                free-form, or a map
    Union, Optional             each alternative
    Literal, str, int, ...      a scalar

`differences` walks such a type and a shape side by side and names what the shape cannot say.
"""

import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import typing_extensions
from pydantic import BaseModel

from chatcompletion.openai_json.shapes import Arm, Form, Member, Shape

SCALARS = {str: Form.STRING, int: Form.INTEGER, float: Form.NUMBER, bool: Form.BOOLEAN}

UNIONS = {typing.Union, types.UnionType}
ARRAYS = {list, Iterable, Sequence}
WRAPPERS = {typing_extensions.Required, typing_extensions.NotRequired, typing.Annotated}


def differences(shapes: dict[str, Shape], sdk_type: Any, shape: Shape, place: str) -> Iterator[str]:
    """Yield the members of an SDK type at `place` that the shape lacks, as lines of text."""
    for alternative in alternatives(sdk_type):
        if not is_object(alternative):
            continue
        for name, member_type in members(alternative).items():
            member = shape.members.get(name)
            if member is None:
                yield f"{place}.{name}: unknown"
            else:
                yield from _member(shapes, member_type, member, f"{place}.{name}")


def _member(shapes: dict[str, Shape], sdk_type: Any, member: Member, place: str) -> Iterator[str]:
    for alternative in alternatives(sdk_type):
        arms = [arm for arm in member.arms if _fits(alternative, arm)]
        if not arms:
            yield f"{place}: no arm for {alternative}"
        for arm in arms:
            if arm.shape is not None:
                inner = alternative if arm.form is Form.OBJECT else element(alternative)
                yield from differences(shapes, inner, shapes[arm.shape], place)


def _fits(sdk_type: Any, arm: Arm) -> bool:
    if arm.form is Form.ANY:
        return True
    if is_object(sdk_type):
        return arm.form is Form.OBJECT
    origin = typing.get_origin(sdk_type)
    if origin is Literal:
        return all(SCALARS[type(value)] is arm.form for value in typing.get_args(sdk_type))
    if origin in ARRAYS:
        return _fits_array(list(alternatives(element(sdk_type))), arm)
    if origin is dict:
        value = SCALARS.get(typing.get_args(sdk_type)[1])
        numbers = value in {Form.INTEGER, Form.NUMBER}
        return (numbers and arm.form is Form.NUMBER_MAP) or (
            value is Form.STRING and arm.form is Form.STRING_MAP
        )
    return SCALARS.get(sdk_type) is arm.form


def _fits_array(elements: list[Any], arm: Arm) -> bool:
    if elements == [int]:
        return arm.form is Form.BYTES
    if all(is_object(item) or typing.get_origin(item) is dict for item in elements):
        return arm.form is Form.OBJECTS
    return arm.form is Form.STRINGS


def alternatives(sdk_type: Any) -> Iterator[Any]:
    """Return the alternatives of a type, without None and without annotations."""
    origin = typing.get_origin(sdk_type)
    if origin in WRAPPERS:
        yield from alternatives(typing.get_args(sdk_type)[0])
    elif origin in UNIONS:
        for alternative in typing.get_args(sdk_type):
            yield from alternatives(alternative)
    elif sdk_type is not type(None):
        yield sdk_type


def element(sdk_type: Any) -> Any:
    """The type of an array's elements."""
    return typing.get_args(sdk_type)[0]


def is_object(sdk_type: Any) -> bool:
    """Whether a type has named members."""
    if typing_extensions.is_typeddict(sdk_type):
        return True
    return isinstance(sdk_type, type) and issubclass(sdk_type, BaseModel)


def members(sdk_type: Any) -> dict[str, Any]:
    """The members of an object by their names in JSON."""
    if typing_extensions.is_typeddict(sdk_type):
        return typing_extensions.get_type_hints(sdk_type, include_extras=True)
    return {field.alias or name: field.annotation for name, field in sdk_type.model_fields.items()}
