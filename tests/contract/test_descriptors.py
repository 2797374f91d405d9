"""Checks every message that mirrors JSON against the rules at the head of chat_completion.proto."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from chatcompletion.openai_json.documents import SHAPES
from chatcompletion.v1 import (
    account_pb2,
    account_service_pb2,
    chat_completion_pb2,
    chat_completion_service_pb2,
    credit_service_pb2,
    error_pb2,
    model_service_pb2,
)

FILES = (
    chat_completion_pb2.DESCRIPTOR,
    error_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
)

NOT_OBJECTS = {
    # JSON arrays, and arbitrary JSON values.
    "RawJson",
    "StringList",
    "ContentPartList",
    # Messages without a JSON form: those of RPCs, and the details of a status.
    "ErrorRule",
    "ErrorDetail",
    "ListModelsRequest",
    "GetModelRequest",
    "GetModelResponse",
}
"""The messages that mirror no JSON object."""


OTHER_FILES = (
    account_pb2.DESCRIPTOR,
    account_service_pb2.DESCRIPTOR,
    chat_completion_service_pb2.DESCRIPTOR,
    credit_service_pb2.DESCRIPTOR,
)
"""The files without a mirror."""


def _messages(*files: FileDescriptor) -> Iterator[Descriptor]:
    for file in files or FILES:
        yield from file.message_types_by_name.values()


MESSAGES = [*_messages()]
MIRRORS = [message for message in MESSAGES if message.name not in NOT_OBJECTS]
OTHERS = [message for message in _messages(*FILES, *OTHER_FILES) if message not in MIRRORS]
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


@pytest.mark.parametrize("message", MIRRORS, ids=_name)
def test_null_fields_is_field_14(message: Descriptor) -> None:
    nulls = message.fields_by_name["null_fields"]
    assert (nulls.number, nulls.type) == (14, FieldDescriptor.TYPE_BYTES)
    assert not nulls.is_repeated
    assert not nulls.has_presence


@pytest.mark.parametrize("field", FIELDS, ids=_name)
def test_numbers_fit_into_a_byte_of_null_fields(field: FieldDescriptor) -> None:
    # Below 128 a byte is also what a packed int32 would be.
    assert field.number < 128


@pytest.mark.parametrize("field", FIELDS, ids=_name)
def test_singular_fields_of_a_mirror_have_presence(field: FieldDescriptor) -> None:
    assert field.is_repeated or field.has_presence or field.name == "null_fields"


ABSENCE_SAYS_SOMETHING = {
    # Without one, no output limit is admitted; zero would be a limit.
    "chatcompletion.v1.QuoteChatCompletionResponse.largest_max_tokens",
    # An absent limit is no limit; zero is not a limit.
    "chatcompletion.v1.KeyLimits.requests_per_minute",
    "chatcompletion.v1.KeyLimits.tokens_per_minute",
    "chatcompletion.v1.KeyLimits.concurrency",
    # An empty resume token is a malformed one, which is refused.
    "chatcompletion.v1.StreamChatCompletionRequest.resume_token",
    # A message without a token cannot be resumed.
    "chatcompletion.v1.StreamChatCompletionResponse.resume_token",
}
"""The scalar fields outside of mirrors that have presence."""


def test_other_scalar_fields_have_presence_only_if_their_absence_says_something() -> None:
    with_presence = {
        field.full_name
        for message in OTHERS
        for field in message.fields
        if field.has_presence and field.message_type is None and not _is_arm(field)
    }
    assert with_presence == ABSENCE_SAYS_SOMETHING


def _is_arm(field: FieldDescriptor) -> bool:
    oneof = field.containing_oneof
    return oneof is not None and len(oneof.fields) > 1


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
    assert sorted([*arms, "extra_json", "null_fields"]) == sorted(message.fields_by_name)
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
