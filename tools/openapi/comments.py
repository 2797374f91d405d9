"""The comments of the `.proto` files, which the generated stubs do not have.

protoc --include_source_info -> descriptors with comments -> {"chatcompletion.v1.Usage": "…"}
"""

import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from tools.openapi.root import ROOT

PROTOS: Final = ROOT / "protos"

# The numbers of the fields of FileDescriptorProto and its parts, which form the paths of comments.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _ONEOFS, _VALUES, _METHODS = 2, 8, 2, 2


def comments() -> Mapping[str, str]:
    """Return the comment of each message, field, oneof, enum value and method, by full name.

    A paragraph is one line.

    Raises:
        RuntimeError: protoc failed; it printed the reason to stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        command = [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={resources.files('grpc_tools') / '_proto'}",
            f"--descriptor_set_out={image}",
            "--include_source_info",
            *sorted(str(path) for path in PROTOS.rglob("*.proto")),
        ]
        if protoc.main(command) != 0:
            raise RuntimeError("protoc failed; its messages are above")
        files = FileDescriptorSet.FromString(image.read_bytes()).file
    return {name: comment for file in files for name, comment in _of_file(file)}


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name is not None and location.leading_comments:
            yield f"{file.package}.{name}", _paragraphs(location.leading_comments)


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path and the name of each part of a file that can have a comment."""

    def parts(
        tops: Any, kind: int, *members: tuple[str, int]
    ) -> Iterator[tuple[tuple[int, ...], str]]:
        for index, top in enumerate(tops):
            yield (kind, index), top.name
            for attribute, number in members:
                for inner, member in enumerate(getattr(top, attribute)):
                    yield (kind, index, number, inner), f"{top.name}.{member.name}"

    yield from parts(file.message_type, _MESSAGES, ("field", _FIELDS), ("oneof_decl", _ONEOFS))
    yield from parts(file.enum_type, _ENUMS, ("value", _VALUES))
    yield from parts(file.service, _SERVICES, ("method", _METHODS))


def _paragraphs(comment: str) -> str:
    lines = (line.strip() for line in comment.strip().splitlines())
    return "\n\n".join(" ".join(part.split("\n")) for part in "\n".join(lines).split("\n\n"))
