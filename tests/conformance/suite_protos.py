"""The messages of a suite, from its `.proto` files."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc


def messages(folder: Path) -> SimpleNamespace:
    """Return the top-level messages of all `.proto` files below a folder, by name.

    Raises:
        RuntimeError: protoc failed; it printed the reason to stderr.
    """
    sources = sorted(str(path) for path in folder.rglob("*.proto"))
    with TemporaryDirectory() as directory:
        out = Path(directory, "set.binpb")
        common = [
            f"--proto_path={folder}",
            f"--proto_path={Path(protoc.__file__).parent / '_proto'}",
        ]
        if (
            protoc.main(
                ["protoc", *common, "--include_imports", f"--descriptor_set_out={out}", *sources]
            )
            != 0
        ):
            raise RuntimeError("protoc failed; its messages are above")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.Default()
    for file in files.file:
        with suppress(TypeError):  # a file of protobuf itself that is already there
            pool.AddSerializedFile(file.SerializeToString())
    found = message_factory.GetMessageClassesForFiles([file.name for file in files.file], pool)
    return SimpleNamespace(**{name.rpartition(".")[2]: kind for name, kind in found.items()})
