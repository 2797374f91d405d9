"""`python -m restbridge`: read the settings, serve until a signal, drain.

    python -m restbridge               the bridge, which calls a service in another process
    python -m restbridge --standalone  the bridge and the service in one process, for one machine

SIGTERM drains as configured. SIGINT skips the drain delay. A second signal of either kind ends the
remaining requests immediately. The exit status is 0 after a drain, 1 if an address cannot be
listened on, and 2 if a setting is wrong.

Only this file of the bridge imports the service, and only for --standalone. The bridge then calls
the service's handlers without a socket; other clients use the gRPC port.
"""

import asyncio
import json
import os
import resource
import secrets
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import uvloop

from process import log
from process.lifetime import Signals, settle
from process.settings import Address, SettingsError, read, usage
from restbridge.config import Settings
from restbridge.server import Bridge, ListenError

COMMAND: Final = "python -m restbridge [--standalone]"

_KEY: Final = "CHAT_BOOTSTRAP_API_KEY"
_KEY_BYTES: Final = 32
_FILES_BESIDES: Final = 128
# Descriptors in addition to client connections: the channel, the metrics, the process's own.


async def serve(settings: Settings) -> None:
    """Run a bridge until the first signal, then drain it.

    Raises:
        ListenError: An address cannot be listened on.
    """
    log.report_exceptions(asyncio.get_running_loop())
    signals = Signals()
    bridge = Bridge(settings)
    await bridge.start()
    settle()
    log.event(
        "restbridge",
        "serving",
        address=bridge.address,
        metrics_port=bridge.metrics_port,
        service=settings.service_target,
    )
    await signals.drain("restbridge", bridge.stop, bridge.hurry)


async def serve_standalone(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run a bridge and a service until the first signal, then drain the bridge, then the service.

    Raises:
        SettingsError: A setting of the service is wrong.
        ListenError: An address cannot be listened on.
    """
    from service.config import load  # noqa: PLC0415 - the bridge is deployed without the service
    from service.server import Server, StartError  # noqa: PLC0415 - as above

    key = environment.get(_KEY) or f"sk-live-{secrets.token_urlsafe(_KEY_BYTES)}"
    service_settings, catalogue = load({**environment, _KEY: key})
    log.report_exceptions(asyncio.get_running_loop())
    signals = Signals()
    server = Server(service_settings, catalogue)
    try:
        await server.start()
    except StartError as error:
        raise ListenError(str(error)) from error
    bridge = Bridge(settings, channel=server.channel())

    async def stop(*, delay: float | None) -> None:
        # One delay is enough: both serve during the bridge's.
        await bridge.stop(delay=delay)
        await server.stop(delay=0)

    def hurry() -> None:
        bridge.hurry()
        server.hurry()

    try:
        await bridge.start()
    except ListenError:
        await server.stop(delay=0)
        raise
    settle()
    rest = settings.listen.dialable(bridge.port)
    lines = {
        "REST": f"http://{rest}/v1",
        "gRPC": server.address,
        "metrics": _metrics(settings.metrics_listen, service_settings.metrics_listen),
        "upstream": server.upstream_description,
        "API key": key,
    }
    print("\n".join(f"{name:<9} {value}" for name, value in lines.items()))  # noqa: T201 - asked for
    print(f"\nexport CHAT_KEY={shlex.quote(key)}")  # noqa: T201 - asked for
    print(_curl(rest, key, model=next(iter(catalogue)).name), flush=True)  # noqa: T201 - asked for
    log.event(
        "restbridge",
        "serving",
        address=bridge.address,
        metrics_port=bridge.metrics_port,
        service=server.address,
    )
    await signals.drain("restbridge", stop, hurry)


def _metrics(*listens: Address | None) -> str:
    return ", ".join(f"http://{listen}/metrics" for listen in listens if listen) or "none"


def _curl(rest: Address, key: str, *, model: str) -> str:
    messages = [{"role": "user", "content": "Hello!"}]
    body = json.dumps({"model": model, "messages": messages, "stream": True})
    words = (
        *("curl", "-N", f"http://{rest}/v1/chat/completions"),
        *("-H", f"authorization: Bearer {key}", "-H", "content-type: application/json"),
        *("-d", body),
    )
    return f"\n{shlex.join(words)}\n"


def allow_connections(settings: Settings) -> Settings:
    """Raise the process's limit of descriptors, and return the settings.

    If the system does not allow enough descriptors, the returned settings have fewer connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _FILES_BESIDES
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted:
        return settings
    return replace(settings, max_connections=max(1, soft - _FILES_BESIDES))


def main() -> int:
    """Run the command and return its exit status."""
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        print(usage(COMMAND, (Settings,)))  # noqa: T201 - asked for
        return 0
    try:
        if arguments not in ([], ["--standalone"]):
            raise SettingsError("unknown argument; the settings are environment variables: --help")
        settings = allow_connections(read(Settings, os.environ))
        log.configure(settings.log_level)
        run: Any = serve_standalone(settings, os.environ) if arguments else serve(settings)
        uvloop.run(run)
    except (SettingsError, ListenError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        return 2 if isinstance(error, SettingsError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
