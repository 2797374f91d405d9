"""Generate the Python stubs beside their `.proto` files: `make stubs`.

    *.proto         -> *_pb2.py       *_pb2.pyi
    *_service.proto -> *_pb2_grpc.py  *_pb2_grpc.pyi

The proto path equals the import path, so that the generated imports work unchanged. The output
depends only on the inputs and the pinned tools: a test generates it again and compares.
"""

import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write all stubs below `out`, in the layout of `protos/`.

    Raises:
        RuntimeError: protoc failed; it printed the reason to stderr.
    """
    sources = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    services = [source for source in sources if source.endswith("_service.proto")]
    plugins = Path(sys.executable).parent
    common = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={resources.files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
    ]
    messages = [f"--python_out={out}", f"--mypy_out={out}", *sources]
    stubs = [f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *services]
    if protoc.main(common + messages) != 0 or protoc.main(common + stubs) != 0:
        raise RuntimeError("protoc failed; its messages are above")


if __name__ == "__main__":
    generate(PROTOS)
