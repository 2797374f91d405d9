"""A client of the contract installs and imports only protobuf and grpcio."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]

IMPORTED: Final = """
import json, pathlib, pkgutil, sys
import chatcompletion.v1
for module in pkgutil.iter_modules(chatcompletion.v1.__path__):
    __import__(f"chatcompletion.v1.{module.name}")
import chatcompletion.reasons
for name in sys.argv[1:]:
    __import__(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def _imported(*names: str) -> set[str]:
    """Return the top-level modules that a client has after it imported the contract."""
    command = [sys.executable, "-I", "-c", IMPORTED, *names]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return {*json.loads(done.stdout)} - {*sys.stdlib_module_names}


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[>=<;]", requirement)[0] for requirement in requirements}


PYPROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: Final = PYPROJECT["project"]


def test_the_contract_requires_grpcio_and_protobuf_alone() -> None:
    assert _names(PROJECT["dependencies"]) == {"grpcio", "protobuf"}


def test_the_stubs_import_no_event_loop_and_no_metrics() -> None:
    found = _imported()
    assert {"chatcompletion", "grpc", "google"} <= found
    needless = {
        "process",
        "msgspec",
        "uvloop",
        "prometheus_client",
        "httptools",
        "httpx",
        "sqlalchemy",
    }
    assert found & needless == set()


def test_the_json_form_needs_one_library_more() -> None:
    more = _imported("chatcompletion.openai_json") - _imported()
    assert {name for name in more if not name.startswith("_")} == {"msgspec"}
    assert _names(PROJECT["optional-dependencies"]["json"]) == {"msgspec"}


def test_the_wheel_has_every_package() -> None:
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    found = {path.parent for top in (".", "protos") for path in (ROOT / top).glob("*/__init__.py")}
    assert {ROOT / package for package in packages} == found - {ROOT / "tests"}


def test_the_lock_file_of_make_up_has_what_the_extras_name() -> None:
    locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text()))
    extras = PROJECT["optional-dependencies"]
    for extra in ("service", "restbridge", "postgres", "chat", "docs"):
        assert _names(extras[extra]) - {PROJECT["name"]} <= locked, extra


@pytest.mark.parametrize("deployable", ["service", "restbridge"])
def test_each_deployable_has_an_extra_of_its_own(deployable: str) -> None:
    assert "chatcompletion[process]" in PROJECT["optional-dependencies"][deployable]


def test_the_commands_need_a_part_of_what_the_service_needs() -> None:
    extras = PROJECT["optional-dependencies"]
    assert _names(extras["admin"]) - {PROJECT["name"]} <= _names(
        [*extras["service"], *extras["process"]]
    )
