"""The rules at the head of chat_completion.proto, held by every message that mirrors JSON."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.v1 import chat_completion_pb2, error_pb2, model_service_pb2

FILES = (
    chat_completion_pb2.DESCRIPTOR,
    error_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
)

NOT_OBJECTS = {
    # What a JSON array or any JSON value is.
    "RawJson",
    "StringList",
    "ContentPartList",
    # What has no JSON form: the RPCs' own, and the details of a status.
    "ErrorRule",
    "ErrorDetail",
    "ListModelsRequest",
    "GetModelRequest",
    "GetModelResponse",
}
"""The messages that mirror no JSON object."""


def _messages() -> Iterator[Descriptor]:
    for file in FILES:
        yield from file.message_types_by_name.values()


MESSAGES = [*_messages()]
MIRRORS = [message for message in MESSAGES if message.name not in NOT_OBJECTS]
FIELDS = [field for message in MIRRORS for field in message.fields]


def _name(item: Descriptor | FieldDescriptor) -> str:
    return item.full_name


def test_every_mirror_of_an_object_has_a_shape() -> None:
    assert {message.full_name for message in MIRRORS} == set(SHAPES)
    assert {message.name for message in MESSAGES} >= NOT_OBJECTS


@pytest.mark.parametrize("message", MIRRORS, ids=_name)
def test_extra_json_is_field_15(message: Descriptor) -> None:
    extra = message.fields_by_name["extra_json"]
    assert extra.number == 15
    entry = extra.message_type
    assert entry is not None
    assert entry.GetOptions().map_entry
    kinds = [entry.fields_by_name[name].type for name in ("key", "value")]
    assert kinds == [FieldDescriptor.TYPE_STRING] * 2


@pytest.mark.parametrize("field", FIELDS, ids=_name)
def test_singular_fields_have_presence(field: FieldDescriptor) -> None:
    assert field.is_repeated or field.has_presence


@pytest.mark.parametrize("field", FIELDS, ids=_name)
def test_types_lose_nothing(field: FieldDescriptor) -> None:
    lossless = {
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_MESSAGE,
    }
    assert field.type in lossless  # no float, no enum
    if field.message_type is not None:
        assert field.message_type.file.package == "chatcompletion.v1"  # no Struct


@pytest.mark.parametrize("message", MIRRORS, ids=_name)
def test_a_member_has_one_name(message: Descriptor) -> None:
    shape = SHAPES[message.full_name]
    arms = [arm.field for member in shape.members.values() for arm in member.arms]
    assert sorted([*arms, "extra_json"]) == sorted(message.fields_by_name)
    boxes = [arm.field for member in shape.members.values() for arm in member.arms if arm.boxed]
    for name in boxes:
        box = message.fields_by_name[name].message_type
        assert box is not None
        assert [field.name for field in box.fields] == ["items"]


def test_a_message_and_its_delta_share_numbers() -> None:
    message = chat_completion_pb2.ChatMessage.DESCRIPTOR.fields_by_name
    delta = chat_completion_pb2.ChatMessageDelta.DESCRIPTOR.fields_by_name
    assert set(delta) <= set(message)
    for name, field in delta.items():
        assert (field.number, field.type) == (message[name].number, message[name].type)
    missing = [message[name].number for name in set(message) - set(delta)]
    proto = chat_completion_pb2.ChatMessageDelta.DESCRIPTOR
    numbers = {field.number for field in proto.fields}
    assert numbers.isdisjoint(missing)
