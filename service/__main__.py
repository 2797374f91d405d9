"""`python -m service`: read the settings, serve until a signal, drain.

    python -m service                 the server
    python -m service COMMAND …       a command on its store, from `cli`

SIGTERM drains as configured. SIGINT skips the drain delay. A second signal of either kind ends the
remaining calls immediately. The exit status is 0 after a drain, 1 if the service could not start,
and 2 if a setting is wrong.
"""

import asyncio
import os
import sys

import uvloop

from process import log
from process.lifetime import Signals, settle
from process.settings import SettingsError
from service import cli
from service.config import Settings, load
from service.models import Catalogue


async def serve(settings: Settings, catalogue: Catalogue) -> None:
    """Run a service until the first signal, then drain it.

    Raises:
        StartError: An address cannot be listened on.
    """
    from service.server import Server  # noqa: PLC0415  (commands do not need the server)

    log.report_exceptions(asyncio.get_running_loop())
    signals = Signals()
    server = Server(settings, catalogue)
    await server.start()
    settle()
    log.event(
        "service",
        "serving",
        address=server.address,
        metrics_port=server.metrics_port,
        upstream=server.upstream_description,
    )
    await signals.drain("service", server.stop, server.hurry)


def main() -> int:
    """Run the command and return its exit status."""
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]) or (arguments and arguments[0] in cli.AREAS):
        return cli.run(arguments, os.environ)
    from service.server import StartError  # noqa: PLC0415  (commands do not need the server)

    try:
        if arguments:
            raise SettingsError("unknown argument; the settings are environment variables: --help")
        settings, catalogue = load(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  (logging is not configured yet)
        return 2
    log.configure(settings.log_level)
    try:
        uvloop.run(serve(settings, catalogue))
    except StartError as error:
        print(error, file=sys.stderr)  # noqa: T201  (for the operator)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
