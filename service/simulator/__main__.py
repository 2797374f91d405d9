"""`python -m service.simulator --listen 127.0.0.1:8081`: the simulator on its own.

arguments -> SimulatorConfig -> server -> SIGINT or SIGTERM -> stop, exit 0
"""

import signal

if __name__ == "__main__":
    # Before the other imports, which take most of the start: SIGINT ends the process in silence.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import sys
from collections.abc import Sequence

import uvloop

from service.simulator.config import SimulatorConfig
from service.simulator.server import COMPLETIONS, SimulatorServer


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. If it is wrong, print an error and exit with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m service.simulator",
        description="Run an OpenAI-compatible upstream that calls no model.",
    )
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 8081), metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the texts")
    parser.add_argument("--time-to-first-token", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--inter-token-delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--completion-tokens", type=int, default=48, metavar="TOKENS")
    parser.add_argument("--api-key", default=None, help="require this bearer key")
    read = parser.parse_args(argv)
    try:
        read.config = SimulatorConfig(
            seed=read.seed,
            time_to_first_token=read.time_to_first_token,
            inter_token_delay=read.inter_token_delay,
            completion_tokens=read.completion_tokens,
            api_key=read.api_key,
            records_kept=0,
        )
    except ValueError as exc:
        parser.error(str(exc))
    return read


def address(text: str) -> tuple[str, int]:
    """Parse "host:port" or "[::1]:port".

    Raises:
        argparse.ArgumentTypeError: The text has another form, or the port is not 0 to 65535.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


async def serve(host: str, port: int, config: SimulatorConfig) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        OSError: The address cannot be listened on.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with await SimulatorServer.start(config, host=host, port=port) as server:
        sys.stdout.write(f"simulator (no model is called) at {server.base_url}{COMPLETIONS}\n")
        sys.stdout.flush()
        await stopped.wait()


def main(argv: Sequence[str]) -> int:
    """Run the simulator; return the exit status."""
    read = arguments(argv)
    host, port = read.listen
    try:
        uvloop.run(serve(host, port, read.config))
    except OSError as exc:
        sys.stderr.write(f"cannot listen on {host}:{port}: {exc.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
