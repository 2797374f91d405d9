"""The public functions of this package: one pair for each kind of document.

    decode_                 encode_                  message
    request                 request                  ChatCompletionParams
    completion              completion               ChatCompletion
    chunk                   chunk                    ChatCompletionChunk
    error                   error                    ApiError, under "error"
    model                   model                    Model
    model_list              model_list               ListModelsResponse

Decoding first uses msgspec, the strict values. msgspec rejects strings with unpaired surrogates; a
document that it rejects is decoded again with the lenient values, which accept them and report
every other error.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, Self, TypeVar

import msgspec
from google.protobuf.message import Message

from chatcompletion.openai_json import lenient_values, places, strict_values, verbatim
from chatcompletion.openai_json.canonical import (
    Check,
    checks,
    has_plain_names,
    is_empty,
    is_set,
)
from chatcompletion.openai_json.codec_errors import DecodeError, EncodeError, not_an_object
from chatcompletion.openai_json.document_limits import (
    MAX_DEPTH,
    MAX_UNKNOWN,
    MAX_VALUES,
    check_shape,
    count_openers,
    count_rare,
    count_values,
    too_wide,
)
from chatcompletion.openai_json.places import Mistyped, Unknown
from chatcompletion.openai_json.readers import Reader, readers
from chatcompletion.openai_json.shapes import EXTRA, NULLS, Form, Shape, shapes_below
from chatcompletion.openai_json.writers import Writer, encode_value, writers
from chatcompletion.v1.chat_completion_pb2 import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionParams,
)
from chatcompletion.v1.error_pb2 import ApiError
from chatcompletion.v1.model_service_pb2 import ListModelsResponse, Model

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_EXTRA_TAG = b"z"
"""The tag of each entry of extra_json on the wire: field 15, length-delimited."""

_EXTRA_ENTRY = re.compile(_EXTRA_TAG + rb"[\x80-\xff]*[\x00-\x7f]\n")
"""The beginning of each entry: its tag, its length, and the tag of its key."""

_SEARCHED = 16 * 1024
"""Maximum bytes in which entries are searched; a walk over the objects is as fast beyond."""

AnyMessage = TypeVar("AnyMessage", bound=Message)
Value = str | int | float | bool

SHAPES = shapes_below(
    ChatCompletionParams.DESCRIPTOR,
    ChatCompletion.DESCRIPTOR,
    ChatCompletionChunk.DESCRIPTOR,
    ApiError.DESCRIPTOR,
    ListModelsResponse.DESCRIPTOR,
)
"""The shape of each message that mirrors a JSON object, by full name."""

_STRICT = readers(SHAPES, strict_values)
_LENIENT = readers(SHAPES, lenient_values)
_WRITERS = writers(SHAPES)
_CHECKS = checks(SHAPES)
_HAS_PLAIN_NAMES = checks(SHAPES, extra=has_plain_names)[ChatCompletionParams.DESCRIPTOR.full_name]
_IS_TYPED = checks(SHAPES, extra=is_empty)[ChatCompletionParams.DESCRIPTOR.full_name]


@dataclass(kw_only=True, frozen=True, slots=True)
class _Codec(Generic[AnyMessage]):
    """The functions for one kind of document."""

    message: type[AnyMessage]
    shape: Shape
    read: Reader
    read_lenient: Reader
    write: Writer
    is_plain: Check

    @classmethod
    def of(cls, message: type[AnyMessage]) -> Self:
        name = message.DESCRIPTOR.full_name
        return cls(
            message=message,
            shape=SHAPES[name],
            read=_STRICT[name],
            read_lenient=_LENIENT[name],
            write=_WRITERS[name],
            is_plain=_CHECKS[name],
        )

    def decode(self, data: bytes, into: AnyMessage | None = None) -> AnyMessage:
        """Decode a document whose depth and number of values were checked."""
        members, strict = _members(data)
        message = self.message() if into is None else into
        (self.read if strict else self.read_lenient)(message, members)
        return message

    def members(self, message: AnyMessage) -> dict[str, Any] | msgspec.Raw:
        """Return the JSON members of a message, or its JSON text, as a `Writer` does."""
        try:
            return self.write(message)
        except EncodeError as error:
            raise self._located(error, message) from None

    def encode(self, message: AnyMessage) -> bytes:
        """Encode a message as JSON on one line."""
        return encode_value(self.members(message))

    def _located(self, error: EncodeError, message: AnyMessage) -> EncodeError:
        """Return an error with the full path of the first object that cannot be encoded."""
        for path, shape, inner in places.objects(SHAPES, self.shape, message):
            try:
                _WRITERS[shape.name](inner)
            except EncodeError as found:
                param = places.join(path, _printable(found.param or EXTRA))
                return EncodeError(found.message, code=found.code, param=param)
        return error


def _printable(name: str) -> str:
    """Return a name, which can be the caller's, shortened and without control characters."""
    shown = name[:_LONGEST_NAME]
    return shown if shown.isprintable() else json.dumps(shown)[1:-1]


_LONGEST_NAME = 64

_REQUEST = _Codec.of(ChatCompletionParams)
_COMPLETION = _Codec.of(ChatCompletion)
_CHUNK = _Codec.of(ChatCompletionChunk)
_ERROR = _Codec.of(ApiError)
_MODEL = _Codec.of(Model)
_MODEL_LIST = _Codec.of(ListModelsResponse)


def _members(data: bytes) -> tuple[dict[str, Any], bool]:
    """Return the slices of an object by name, and whether they are strict values.

    Raises:
        DecodeError: The document is not JSON (`invalid_json`) or not an object (`invalid_type`).
    """
    try:
        if not data.isascii():
            data.decode()  # msgspec does not check the strings that it skips
        return strict_values.members(data), True
    except UnicodeDecodeError as error:
        raise _malformed(f"not UTF-8 (byte {error.start})") from None
    except msgspec.DecodeError:
        if lenient_values.CUT_PAIR.search(data):
            return lenient_values.document(data), False
    if not data.strip():
        raise _malformed("expected an object, but got no text")
    # msgspec reports the wrong type before it checks the syntax.
    try:
        strict_values.whole(data)
    except msgspec.DecodeError as error:
        raise _malformed(str(error).removeprefix("JSON is malformed: ")) from None
    raise not_an_object(chr(data.lstrip()[0]))


def _malformed(reason: str) -> DecodeError:
    return DecodeError(f"The JSON is malformed: {reason}.", code="invalid_json")


def decode_request(
    data: bytes, *, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES
) -> ChatCompletionParams:
    """Read the body of POST /v1/chat/completions.

    Args:
        data: The body, with or without a byte-order mark.
        max_depth: Maximum levels of arrays and objects: up to 500.
        max_values: Maximum values of any kind, including those in arrays and objects.

    Raises:
        DecodeError: The body is not JSON or exceeds a limit (`invalid_json`), or is not an object
            (`invalid_type`).
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)  # RFC 8259, section 8.1
    check_shape(data, max_depth=max_depth, max_values=max_values)
    return _REQUEST.decode(data)


def encode_request(
    params: ChatCompletionParams, changes: Mapping[str, Value | Message | None] | None = None
) -> bytes:
    """Write the body of POST /v1/chat/completions, on one line.

    Args:
        params: The request.
        changes: Top-level members that replace those of the request. None removes a member.

    Raises:
        EncodeError: A number is not finite, text in extra_json or RawJson is not JSON, or a member
            is both in extra_json and in a field.
    """
    members = _REQUEST.members(params)
    if not changes:
        return encode_value(members)
    if isinstance(members, msgspec.Raw):
        # A name contains an unpaired surrogate, which msgspec cannot write.
        texts = lenient_values.document(bytes(members))
        _change(texts, changes, lambda value: encode_value(_written(value)).decode())
        return verbatim.object_text(texts).encode()
    _change(members, changes, _written)
    return encode_value(members)


def _written(value: Value | Message) -> Any:
    return _WRITERS[value.DESCRIPTOR.full_name](value) if isinstance(value, Message) else value


def _change(
    members: dict[str, Any],
    changes: Mapping[str, Value | Message | None],
    written: Callable[[Value | Message], Any],
) -> None:
    for name, value in changes.items():
        if value is None:
            members.pop(name, None)
        else:
            members[name] = written(value)


def decode_completion(data: bytes, *, max_depth: int = MAX_DEPTH) -> ChatCompletion:
    """Read a `chat.completion`. Arguments and errors are those of `decode_request`."""
    check_shape(data, max_depth=max_depth)
    return _COMPLETION.decode(data)


def encode_completion(completion: ChatCompletion) -> bytes:
    """Write a `chat.completion` on one line. Errors are those of `encode_request`."""
    return _COMPLETION.encode(completion)


def decode_chunk(
    data: bytes, *, max_depth: int = MAX_DEPTH, into: ChatCompletionChunk | None = None
) -> ChatCompletionChunk:
    """Read a `chat.completion.chunk`. Other arguments and errors are those of `decode_request`.

    Args:
        data: The document.
        max_depth: Maximum levels of arrays and objects.
        into: The empty message to fill; None for a new one.
    """
    check_shape(data, max_depth=max_depth)
    return _CHUNK.decode(data, into)


def encode_chunk(chunk: ChatCompletionChunk) -> bytes:
    """Write a `chat.completion.chunk` on one line. Errors are those of `encode_request`."""
    return _CHUNK.encode(chunk)


def decode_error(data: bytes, *, max_depth: int = MAX_DEPTH) -> ApiError:
    """Read an error body, `{"error": {...}}`, and ignore its other members.

    Raises:
        DecodeError: The body is not JSON or too deep (`invalid_json`), or has no object `error`
            (`invalid_type`; the param is "error" if the body is an object).
    """
    check_shape(data, max_depth=max_depth)
    body, strict = _members(data)
    values: ModuleType = strict_values if strict else lenient_values
    try:
        members = values.reader((Form.OBJECT,))(body["error"])
    except (KeyError, *values.MISFITS):
        members = None
    if members is None:
        raise DecodeError("'error' is not an object.", code="invalid_type", param="error")
    error = ApiError()
    (_ERROR.read if strict else _ERROR.read_lenient)(error, members)
    return error


def encode_error(error: ApiError) -> bytes:
    """Write an error body on one line. Absent message, type, param and code are written as null.

    Errors are those of `encode_request`.
    """
    members = _ERROR.members(error)
    if isinstance(members, dict):
        members = dict.fromkeys(("message", "type", "param", "code")) | members
    return encode_value({"error": members})


def decode_model(data: bytes, *, max_depth: int = MAX_DEPTH) -> Model:
    """Read a `model`. Arguments and errors are those of `decode_request`."""
    check_shape(data, max_depth=max_depth)
    return _MODEL.decode(data)


def encode_model(model: Model) -> bytes:
    """Write a `model` on one line. Errors are those of `encode_request`."""
    return _MODEL.encode(model)


def decode_model_list(data: bytes, *, max_depth: int = MAX_DEPTH) -> ListModelsResponse:
    """Read a `list` of models. Arguments and errors are those of `decode_request`."""
    check_shape(data, max_depth=max_depth)
    return _MODEL_LIST.decode(data)


def encode_model_list(models: ListModelsResponse) -> bytes:
    """Write a `list` of models on one line. An empty `data` is written as [].

    Errors are those of `encode_request`.
    """
    members = _MODEL_LIST.members(models)
    if isinstance(members, dict):
        members.setdefault("data", [])
    return encode_value(members)


def canonicalize_request(params: ChatCompletionParams) -> ChatCompletionParams:
    """Return the canonical form of a message, or `params` itself if it is canonical.

    Use it for messages that do not come from `decode_request`. In the canonical form, every member
    that has a field is in that field, so that rules that check fields see what the upstream sees.

    Raises:
        DecodeError: A number is not finite (`invalid_number`), text in extra_json or RawJson is not
            one JSON value or exceeds a limit (`invalid_json`), a number in null_fields is not that
            of a member (`invalid_null_field`), or a member is in two places (`duplicate_member`).
    """
    if _REQUEST.is_plain(params):
        return params
    try:
        canonical = decode_request(_REQUEST.encode(params))
    except EncodeError as error:
        raise DecodeError(error.message, code=error.code, param=error.param) from None
    return params if canonical == params else canonical


def check_size(params: ChatCompletionParams, data: bytes) -> None:
    """Reject a message whose JSON text is too large to parse, at a cost of some ns per byte.

    Use it for messages that do not come from `decode_request`. It walks the fields, so bound the
    number of messages, parts and tools first.

    Args:
        params: The message.
        data: The message, serialized.

    Raises:
        DecodeError: The message has more than `MAX_UNKNOWN` entries of extra_json, or its
            extra_json and RawJson together have more than `MAX_VALUES` values (`invalid_json`).
    """
    # The number of bytes shows for most messages that they are within the limits.
    if len(data) <= min(MAX_UNKNOWN, MAX_VALUES):
        return
    if count_rare(data, _EXTRA_TAG) > MAX_UNKNOWN:
        entries = sum(len(getattr(owner, EXTRA)) for _, _, owner in _objects(params))
        if entries > MAX_UNKNOWN:
            message = f"More than {MAX_UNKNOWN} members are not of the contract."
            raise DecodeError(message, code="invalid_json", param=EXTRA)
    rough = data.count(b",") + count_openers(data)
    if rough >= MAX_VALUES and sum(map(count_values, _verbatim(params))) > MAX_VALUES:
        raise too_wide(MAX_VALUES)


def _verbatim(params: ChatCompletionParams) -> Iterator[bytes]:
    """Yield each JSON text in a message."""
    for _, shape, owner in _objects(params):
        extra = getattr(owner, EXTRA)
        yield from (extra[name].encode() for name in extra)
        for member in shape.members.values():
            if member.forms == (Form.ANY,) and owner.HasField(member.name):
                yield getattr(owner, member.name).text.encode()


def _objects(params: ChatCompletionParams) -> Iterator[tuple[str, Shape, Message]]:
    return places.objects(SHAPES, _REQUEST.shape, params)


def is_typed(params: ChatCompletionParams, data: bytes) -> bool:
    """Whether every extra_json of a canonical request is empty: no mistyped, no unknown member.

    Args:
        params: The request.
        data: The request, serialized.
    """
    # Most requests have no bytes that look like an entry, which is cheap to see.
    if len(data) <= _SEARCHED and _EXTRA_ENTRY.search(data) is None:
        return True
    return _IS_TYPED(params)


def mistyped_members(params: ChatCompletionParams) -> Iterator[Mistyped]:
    """Yield the members of a canonical request whose values have another type than their fields.

    Such a member is in extra_json under the name of a field. Empty arrays and objects of repeated
    and map fields, and strings with unpaired surrogates, do not count.
    """
    if not _HAS_PLAIN_NAMES(params):
        yield from places.mistyped_members(SHAPES, _REQUEST.shape, params)


def unknown_members(params: ChatCompletionParams) -> Iterator[Unknown]:
    """Yield the objects of a canonical request that have members outside the contract.

    Null members do not count. Nested objects come before the objects that contain them.
    """
    if not _IS_TYPED(params):
        yield from places.unknown_members(SHAPES, _REQUEST.shape, params)


def of_members(kind: type[AnyMessage], members: Mapping[str, str]) -> AnyMessage:
    """Return the message of an object.

    Args:
        kind: The type of the message.
        members: The valid JSON text of each value, by name.
    """
    message = kind()
    _LENIENT[kind.DESCRIPTOR.full_name](message, dict(members))
    return message


def field_path(path: str) -> str:
    """Return the protobuf path of a member of a request, such as `messages[0].content_text`.

    A member without a field is an entry of extra_json. A member with several fields has the path
    of the first one that can carry it.

    Args:
        path: The path of the member in the document, such as `messages[0].content`.
    """
    return places.field_path(SHAPES, _REQUEST.shape, path)


def member_names(message: type[Message]) -> frozenset[str]:
    """Return the JSON names of the members that a message type has fields for."""
    return frozenset(SHAPES[message.DESCRIPTOR.full_name].members)


def has_member(params: ChatCompletionParams, name: str) -> bool:
    """Whether a canonical request has a non-null top-level member, in the contract or not."""
    member = _REQUEST.shape.members.get(name)
    if member is not None and any(is_set(params, arm) for arm in member.arms):
        return True
    return params.extra_json.get(verbatim.key(name), "null") != "null"


def is_null(message: Message, name: str) -> bool:
    """Whether a member of the contract is explicitly null in a canonical message."""
    return SHAPES[message.DESCRIPTOR.full_name].members[name].number in getattr(message, NULLS)


def clear_member(message: Message, name: str) -> None:
    """Remove a member of the contract from its field, null_fields and extra_json."""
    member = SHAPES[message.DESCRIPTOR.full_name].members[name]
    for arm in member.arms:
        message.ClearField(arm.field)
    nulls = getattr(message, NULLS)
    if nulls:
        setattr(message, NULLS, nulls.replace(bytes((member.number,)), b""))
    extra = getattr(message, EXTRA)
    if extra:
        extra.pop(name, None)
