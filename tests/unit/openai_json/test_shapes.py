"""Descriptors without a rule raise when the code is generated, not during a call."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor

from chatcompletion.openai_json.shapes import Form, shapes_below
from chatcompletion.v1.chat_completion_pb2 import ChatMessage

FieldProto = descriptor_pb2.FieldDescriptorProto


def _message(*fields: FieldProto, oneofs: int = 0) -> Descriptor:
    file = descriptor_pb2.FileDescriptorProto(name="odd.proto", package="odd", syntax="proto3")
    message = file.message_type.add(name="Odd")
    message.field.extend(fields)
    for index in range(oneofs):
        message.oneof_decl.add(name=f"union_{index}")
    file.message_type.add(name="Empty")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindMessageTypeByName("odd.Odd")


@pytest.mark.parametrize(
    "field",
    [
        FieldProto(name="a", number=1, type=FieldProto.TYPE_FLOAT),
        FieldProto(name="a", number=1, type=FieldProto.TYPE_INT32),
        FieldProto(name="a", number=1, type=FieldProto.TYPE_INT64, label=FieldProto.LABEL_REPEATED),
        FieldProto(name="a", number=1, type=FieldProto.TYPE_MESSAGE, type_name=".odd.Empty"),
    ],
)
def test_a_field_without_a_rule(field: FieldProto) -> None:
    with pytest.raises(TypeError, match=r"odd\.Odd\.a"):
        shapes_below(_message(field))


@pytest.mark.parametrize("odd", [FieldProto.TYPE_BOOL, FieldProto.TYPE_MESSAGE])
def test_a_oneof_without_a_rule(odd: FieldProto.Type.ValueType) -> None:
    name = ".odd.Empty" if odd == FieldProto.TYPE_MESSAGE else ""
    fields = [
        FieldProto(name="a", number=1, type=FieldProto.TYPE_STRING, oneof_index=0),
        FieldProto(name="b", number=2, type=odd, type_name=name, oneof_index=0),
    ]
    with pytest.raises(TypeError, match=r"odd\.Odd"):
        shapes_below(_message(*fields, oneofs=1))


def test_a_shape() -> None:
    shapes = shapes_below(ChatMessage.DESCRIPTOR)
    shape = shapes["chatcompletion.v1.ChatMessage"]
    content = shape.members["content"]
    assert [(arm.field, arm.form, arm.boxed) for arm in content.arms] == [
        ("content_text", Form.STRING, False),
        ("content_parts", Form.OBJECTS, True),
    ]
    assert shape.members["tool_calls"].arms[0].repeated
    assert not content.arms[1].repeated
    assert "extra_json" not in shape.members
    assert "chatcompletion.v1.ImageUrl" in shapes
