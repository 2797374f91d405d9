"""The image of deploy/Containerfile, built and run without a container engine.

The build installs from the package index, so these tests run only if CI is set.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.containerfile import NEEDED, Stage, build, instructions
from tests.support.installations import PROJECT
from tests.support.processes import run
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE

CONTAINERFILE: Final = ROOT / "deploy" / "Containerfile"
KEY: Final = "sk-live-0123456789abcdef"

needs_index = pytest.mark.skipif(
    not os.environ.get("CI"), reason="installs from the package index: CI=true"
)
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, NEEDED)),
    reason="a bare folder tree needs root on Linux",
)
pytestmark = pytest.mark.time_limit(300)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return build(CONTAINERFILE, ROOT, tmp_path_factory.mktemp("image") / "stages")


def test_the_containerfile_follows_the_rules_of_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(  # noqa: S603
        [str(hadolint), str(CONTAINERFILE)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_installation_is_checked_against_hashes() -> None:
    commands = [
        command
        for keyword, rest in instructions(CONTAINERFILE.read_text())
        if keyword == "RUN"
        for command in rest.split("&&")
        if " install " in command
    ]
    assert len(commands) == 3
    for command in commands:
        assert "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command


@needs_index
@needs_root
def test_the_image_belongs_to_root_and_data_to_its_user(image: Stage) -> None:
    assert image.user == "65532:65532"
    for path in (image.root / "app").rglob("*"):
        found = path.lstat()
        assert found.st_uid == 0
        assert path.is_symlink() or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    data = (image.root / "data").lstat()
    assert (data.st_uid, stat.S_IMODE(data.st_mode)) == (65532, 0o700)
    assert not (image.root / "build").exists()


@needs_index
@needs_root
def test_every_script_is_in_the_image(image: Stage) -> None:
    for script in PROJECT["scripts"]:
        assert run_in(image, script, "--version") == (0, f"chatcompletion {PROJECT['version']}\n")


@needs_index
@needs_root
def test_nothing_but_data_is_writable(image: Stage) -> None:
    assert run_in(image, "sh", "-c", "id -u; touch /data/probe && rm /data/probe") == (0, "65532\n")
    for place in ("/app/probe", "/probe", "/app/bin/probe"):
        status, text = run_in(image, "touch", place)
        assert status != 0
        assert "Read-only file system" in text or "Permission denied" in text


@needs_index
@needs_root
async def test_the_default_command_serves_and_its_health_check_passes(image: Stage) -> None:
    image.variables |= {
        "CHAT_BOOTSTRAP_API_KEY": KEY,
        "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
        "CHAT_LISTEN": "127.0.0.1:0",
        "CHAT_METRICS_LISTEN": "127.0.0.1:0",
        "CHAT_BRIDGE_METRICS_LISTEN": "127.0.0.1:0",
        "CHAT_BRIDGE_DRAIN_DELAY": "0",
    }
    assert run_in(image, *image.health_check, "127.0.0.1:1")[0] == 1
    async with run(read_only(image, image.command), {}) as running:
        serving = await running.event("serving")
        assert run_in(image, *image.health_check, str(serving["service"])) == (0, "SERVING\n")
        bridge = f"http://{serving['address']}"
        assert run_in(image, *image.health_check, f"{bridge}/readyz") == (0, "200 OK\n")
        async with httpx.AsyncClient(base_url=bridge, trust_env=False) as client:
            asked = {"model": "default", "messages": [{"role": "user", "content": "Hello"}]}
            answer = await client.post(
                "/v1/chat/completions", json=asked, headers={"authorization": f"Bearer {KEY}"}
            )
        assert answer.status_code == 200, answer.text
        running.send(signal.SIGTERM)
        assert await running.exit_status() == 0
    files = {path.name for path in (image.root / "data").iterdir()}
    assert {"chatcompletion.sqlite3", "journal"} <= files


def read_only(image: Stage, command: list[str]) -> tuple[str, ...]:
    return image.shell(command, is_read_only=True, writable=("/data",))


def run_in(image: Stage, *command: str) -> tuple[int, str]:
    done = subprocess.run(  # noqa: S603
        read_only(image, [*command]),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=Path("/"),
    )
    return done.returncode, done.stdout + done.stderr
