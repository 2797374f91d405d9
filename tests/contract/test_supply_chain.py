"""What is installed: by hash, as wheels, without code that runs by itself, each with a reason."""

import re
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from tests.support.tree import ROOT
from tools.audit.__main__ import report

RUNTIME: Final = ROOT / "requirements.lock"
LOCKS: Final = sorted(
    path
    for path in ROOT.rglob("*.lock")
    if not {"node_modules", ".venv", ".venv-audit", ".venv-clients", "target"} & set(path.parts)
    and path.name not in ("crates.lock", "Cargo.lock", "uv.lock")
)
PACKAGES: Final = 37
"""The number of packages that a deployment with everything installs."""
_STARTS_CODE: Final = re.compile(r"^import[ \t]", re.MULTILINE)


def _locked(text: str) -> dict[str, str]:
    """Return the lines of each package of a lock file, by its name."""
    parts = re.split(r"^(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.M), flags=re.M)
    return {_requirement(part).name: part for part in parts if part.strip()}


def _requirement(part: str) -> Requirement:
    return Requirement(re.split(r"\\|--hash", part)[0])


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_package_is_pinned_by_hashes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, part in _locked(text).items():
        requirement = _requirement(part)
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), name
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", part), name
        assert requirement.url is None, name
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash)", text, re.MULTILINE)


def test_installations_take_wheels_and_check_hashes() -> None:
    files = [ROOT / "Makefile", *(ROOT / "deploy").rglob("Containerfile"), ROOT / ".ci" / "run"]
    for file in files:
        text = re.sub(r"\\\n\s*", " ", file.read_text(encoding="utf-8"))
        for line in re.findall(r"^.*pip install .*$", text, re.MULTILINE):
            if "--editable ." in line or "/wheels/" in line or "*.whl" in line:
                continue  # our own code
            assert "--require-hashes" in line, line
            assert re.search(r"--only-binary[ =]:all:", line), line


def test_no_package_runs_code_at_the_start_of_python() -> None:
    found = [
        (name, str(file))
        for name in _locked(RUNTIME.read_text(encoding="utf-8"))
        if _is_installed(name)
        for file in metadata.files(name) or ()
        if file.suffix == ".pth" and _STARTS_CODE.search(file.read_text())
    ]
    assert found == []


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_each_package_of_a_deployment_has_its_reason() -> None:
    locked = set(_locked(RUNTIME.read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    part = page.partition("## Runtime dependencies")[2]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| ")]
    told = {name.strip() for row in rows[1:] for name in row.split(",")}
    assert told == locked
    assert len(locked) == PACKAGES
    assert f"installs {PACKAGES} packages" in part


def test_a_vulnerability_fails_the_audit_and_a_lack_of_data_does_not() -> None:
    sound = {"name": "a", "version": "1", "vulns": []}
    unknown = {"name": "b", "skip_reason": "not found"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    assert report([sound]) == (["1 of 1 packages audited"], 0)
    lines, status = report([sound, unknown])
    assert (status, lines[0]) == (0, "1 of 2 packages audited")
    assert lines[1].startswith("NOT AUDITED")
    lines, status = report([bad, unknown])
    assert (status, lines[0]) == (1, "VULNERABLE: c 2: PYSEC-1, fixed in 3")
