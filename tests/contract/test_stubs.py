"""The committed stubs and the frozen contract match the .proto files."""

import importlib.util
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).parents[2] / "protos"


def _generate(out: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", PROTOS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate(out)


def _stubs(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")
        for path in root.rglob(pattern)
    }


def test_stubs_are_fresh(tmp_path: Path) -> None:
    _generate(tmp_path)
    generated = _stubs(tmp_path)
    committed = _stubs(PROTOS)
    assert sorted(generated) == sorted(committed)
    assert [name for name in generated if generated[name] != committed[name]] == []
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(generated)


def test_the_contract_is_frozen_as_it_is(tmp_path: Path) -> None:
    # After an addition to the contract, run `make freeze`. `make breaking` rejects other changes.
    image = tmp_path / "contract.binpb"
    buf = Path(sys.executable).parent / "buf"
    command: list[str | Path] = [buf, "build", "--exclude-source-info", "--output", image]
    subprocess.run(command, check=True, cwd=PROTOS.parent)  # noqa: S603
    assert image.read_bytes() == (PROTOS / "frozen.binpb").read_bytes(), "run `make freeze`"
