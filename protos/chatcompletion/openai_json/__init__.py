r"""The OpenAI JSON form of the messages: lossless in both directions.

    {"id": "chatcmpl-1",            id: "chatcmpl-1"
     "created": 1700000000,         created: 1700000000
     "choices": [                   choices {
       {"index": 0,                   index: 0
        "delta": {"content": "Hi"},   delta { content_text: "Hi" }
        "finish_reason": null,        null_fields: "\003"
        "stop_reason": 7}],           extra_json { key: "stop_reason" value: "7" }
                                    }
     "usage": null}                 null_fields: "\006"

`decode_*` reads JSON and `encode_*` writes it, one pair per kind of document. A member that no
field can carry is kept in the extra_json of the same object. Decoding and encoding a document
returns the same JSON, except for the order of members, spaces, escapes in strings and the spelling
of numbers that are in fields. Of duplicate members, the last is kept.

Pure: no I/O, no policy, and no state except the pattern of a stream's chunks in `text_chunks` and
`wire_chunks`. A chunk takes a few microseconds, because the code for each message is made from
its descriptor at import.

    shapes            the JSON form of each message, from the descriptors
    readers           JSON -> message, generated; strict_values and lenient_values read values
    writers           message -> JSON, made of closures
    canonical         whether a message equals the one decoded from its JSON
    places            the paths of members, and members of a wrong type
    numbers           which number fits which field
    verbatim          JSON that stays text
    document_limits   depth, number of values and length of JSON
    documents         the public functions, by kind of document
    wire_form         serialized messages that differ only in the text of their chunk
    text_chunks       chunks that differ from an earlier one only in their text
    wire_chunks       reads such chunks from serialized messages
"""

from chatcompletion.openai_json.codec_errors import CodecError, DecodeError, EncodeError
from chatcompletion.openai_json.document_limits import (
    MAX_DEPTH,
    MAX_UNKNOWN,
    MAX_VALUES,
    count_values,
    indentation,
    longest_size,
)
from chatcompletion.openai_json.documents import (
    canonicalize_request,
    check_size,
    clear_member,
    decode_chunk,
    decode_completion,
    decode_error,
    decode_model,
    decode_model_list,
    decode_request,
    encode_chunk,
    encode_completion,
    encode_error,
    encode_model,
    encode_model_list,
    encode_request,
    field_path,
    has_member,
    is_null,
    is_typed,
    member_names,
    mistyped_members,
    of_members,
    unknown_members,
)
from chatcompletion.openai_json.lenient_values import elements, members
from chatcompletion.openai_json.places import Mistyped, Unknown
from chatcompletion.openai_json.text_chunks import TextChunk, TextChunks
from chatcompletion.openai_json.wire_chunks import WireChunks

__all__ = [
    "MAX_DEPTH",
    "MAX_UNKNOWN",
    "MAX_VALUES",
    "CodecError",
    "DecodeError",
    "EncodeError",
    "Mistyped",
    "TextChunk",
    "TextChunks",
    "Unknown",
    "WireChunks",
    "canonicalize_request",
    "check_size",
    "clear_member",
    "count_values",
    "decode_chunk",
    "decode_completion",
    "decode_error",
    "decode_model",
    "decode_model_list",
    "decode_request",
    "elements",
    "encode_chunk",
    "encode_completion",
    "encode_error",
    "encode_model",
    "encode_model_list",
    "encode_request",
    "field_path",
    "has_member",
    "indentation",
    "is_null",
    "is_typed",
    "longest_size",
    "member_names",
    "members",
    "mistyped_members",
    "of_members",
    "unknown_members",
]
