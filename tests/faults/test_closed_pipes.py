"""Commands whose reader, such as `head`, closes the pipe before they have written."""

import asyncio
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("restbridge --help", 0),
        ("restbridge --standalone --help", 0),
        ("restbridge --version", 0),
        ("service --help", 0),
        ("service accounts --help", 0),
        ("service --version", 0),
        ("service check", 2),
    ],
)
async def test_the_output_ends_quietly(command: str, status: int) -> None:
    variables = {name: value for name, value in os.environ.items() if "CHAT_" not in name}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command.split()),
            env={**variables, "SIMPLISMART_API_KEY": ""},
            stdout=writing,
            stderr=subprocess.PIPE,
        )
        _, said = await running.communicate()
    finally:
        os.close(writing)
    assert (running.returncode, said) == (status, b"")
