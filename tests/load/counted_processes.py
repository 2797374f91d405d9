"""A service with counted calls and the simulator as its upstream, as processes."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from chatcompletion.v1.chat_completion_pb2 import ChatCompletionParams, ChatMessage

KEY = "sk-live-benchmark-0123456789"
TOKENS = 200
FRESH = (("grpc.use_local_subchannel_pool", 1),)
"""Make each attempt connect anew, without the pause after one that failed."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def until_serving(target: str) -> None:
    while True:
        try:
            async with grpc.aio.insecure_channel(target, options=FRESH) as channel:
                check = channel.unary_unary(
                    "/grpc.health.v1.Health/Check",
                    request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                    response_deserializer=health_pb2.HealthCheckResponse.FromString,
                )
                answer = await check(health_pb2.HealthCheckRequest(), timeout=10)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.01)


def params(model: str) -> ChatCompletionParams:
    return ChatCompletionParams(
        model=model,
        messages=[
            ChatMessage(role="system", content_text="You are a helpful assistant."),
            ChatMessage(role="user", content_text="Tell me about the sea. " * 10),
        ],
        temperature=0.7,
        max_tokens=TOKENS,
    )


def start(
    directory: Path,
    models: Mapping[str, str],
    program: Sequence[str] = ("-m", "service"),
    **variables: str,
) -> tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Start a simulator and a service.

    Args:
        directory: Where they run.
        models: The upstream's model for each name.
        program: What Python runs as the service; it can be asked over pipes.
        variables: More of their environment.

    Returns:
        Where the service will listen, the service, the simulator.
    """
    simulator_port, service_port = free_port(), free_port()
    models_file = directory / "models.toml"
    models_file.write_text(
        f'[upstreams.simulator]\nbase_url = "http://127.0.0.1:{simulator_port}"\n'
        + "".join(
            f'[models.{name}]\nupstream = "simulator"\nupstream_model = "{upstream_model}"\n'
            "default_output_tokens = 1024\nmaximum_output_tokens = 8192\n"
            for name, upstream_model in models.items()
        )
    )
    environment = {
        **os.environ,
        "CHAT_LISTEN": f"127.0.0.1:{service_port}",
        "CHAT_METRICS_LISTEN": "none",
        "CHAT_MODELS_FILE": str(models_file),
        "CHAT_BOOTSTRAP_API_KEY": KEY,
        "CHAT_DRAIN_DELAY": "0",
        "CHAT_LOG_LEVEL": os.environ.get("CHAT_LOG_LEVEL", "info"),
        **variables,
    }
    simulator = subprocess.Popen(
        [sys.executable, "-m", "service.simulator", "--listen", f"127.0.0.1:{simulator_port}"],
        env=environment,
        cwd=directory,
        stdout=subprocess.DEVNULL,
    )
    service = subprocess.Popen(
        [sys.executable, *program],
        env=environment,
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return f"127.0.0.1:{service_port}", service, simulator
