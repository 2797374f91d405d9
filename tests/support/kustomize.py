"""Kubernetes objects, as kustomize renders them from deploy/kubernetes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.tree import ROOT

FOLDER: Final = ROOT / "deploy" / "kubernetes"

Object = dict[str, Any]


def rendered(folder: Path) -> list[Object]:
    """Return the objects of a kustomization.

    Without kustomize, skip the test, or fail it in CI.
    """
    tool = shutil.which("kustomize")
    if tool is None and not os.environ.get("CI"):
        pytest.skip("kustomize is not installed: see .ci/run")
    done = subprocess.run(  # noqa: S603
        [str(tool), "build", str(folder)], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def templates(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Yield each workload with the template of its pods."""
    for each in objects:
        if each["kind"] in {"Deployment", "StatefulSet"}:
            yield each, each["spec"]["template"]


def containers(objects: list[Object]) -> Iterator[Object]:
    """Yield each container."""
    for _, template in templates(objects):
        yield from template["spec"]["containers"]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [each for each in objects if each["kind"] == kind]
