"""langchain4j in two versions, through bridge and service: a broken stream is not a complete one.

langchain4j reads an error event as an empty chunk, so only the end of the connection shows that a
response is incomplete. If Java or its packages are missing, the tests are skipped; in CI they fail.
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.support.grpc_client import KEY
from tests.support.running_bridge import Via
from tests.support.stack import PUBLIC, stack
from tests.support.waiting import PATIENCE

JAVA_TESTS: Final = Path(__file__).parent / "java"
VERSIONS: Final = ("1.8.0", "1.19.0")
"""As in the Makefile."""
BROKEN: Final = {
    "sim-fault:cut-chunked-body": "This is the built",
    "sim-fault:error-event": "This is the built",
    "sim-fault:clean-end-mid-stream": "This is the built",
    "sim-fault:500,ttft=0.5": "",
}
"""Models whose streams break, and the text that arrives before."""


@pytest.fixture(params=VERSIONS)
def java(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the command that runs `Streams.java` with a version of langchain4j."""
    found = shutil.which("java")
    packages = JAVA_TESTS / "target" / request.param
    if found is None or shutil.which("javac") is None or not packages.is_dir():
        missing = "Java or its packages are not here: make test installs them with mvn"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return (found, "-cp", f"{packages}/*", str(JAVA_TESTS / "Streams.java"))


async def test_a_broken_stream_is_an_error(java: tuple[str, ...], via: Via) -> None:
    async with stack(tuple(BROKEN), silence=0.1, via=via) as running:
        process = await asyncio.create_subprocess_exec(
            *(*java, running.base_url, KEY, str(int(PATIENCE)), PUBLIC, *BROKEN),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(2 * PATIENCE):  # the start of Java is slow
                printed = (await process.stdout.read()).decode()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    lines = [tuple(line.split("\t")) for line in printed.splitlines()]
    whole, *broken = lines
    assert whole == (PUBLIC, "complete", "This is the built-in simulator; no model was called.")
    assert broken == [(model, "error", text) for model, text in BROKEN.items()]
