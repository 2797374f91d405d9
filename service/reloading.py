"""Reads the models file and the certificates again at SIGHUP: all of each or nothing.

    SIGHUP -> models file -> Catalogue -> Server.use      `models reloaded`
                          -> an error                     `models not reloaded`, the old ones stay
           -> files of TLS                                `process.tls.watching`

Settings and the keys of upstreams come from the environment, which does not change.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from process import log
from service.config import Settings
from service.models import Catalogue
from service.models_document import CatalogueError, catalogue
from service.models_source import models_file
from service.server import Server
from service.start_lines import start_lines

_MOST_ERRORS: Final = 20
_log = logging.getLogger(__name__)


class Reloading:
    """Reloads the models of a server.

    Args:
        server: The server.
        settings: Its settings.
        environment: The environment with the keys of the upstreams.
    """

    def __init__(self, server: Server, settings: Settings, environment: Mapping[str, str]) -> None:
        self._server = server
        self._path = settings.models_file
        self._read: Callable[[], Catalogue] = lambda: catalogue(
            models_file(self._path), environment
        )

    async def __call__(self) -> None:
        """Reload certificates and models, or log why they stay as they are."""
        await self._server.reload_tls()
        if not self._path and self._server.has_tls:
            return
        if not self._path:
            hint = "set CHAT_MODELS_FILE to change models while the service runs"
            log.event(__name__, "nothing to reload", signal="SIGHUP", hint=hint)
            return
        try:
            models = await asyncio.to_thread(self._read)
            await self._server.use(models)
        except CatalogueError as error:
            self._failed(*error.lines)
        except OSError as error:
            self._failed(f"the simulator cannot start: {error.strerror}")
        else:
            log.event(__name__, "models reloaded", file=self._path, models=start_lines(models))

    def _failed(self, *lines: str) -> None:
        errors = [f"CHAT_MODELS_FILE: {line}" for line in lines[:_MOST_ERRORS]]
        members = log.fields(file=self._path, errors=errors)
        _log.error("models not reloaded", extra=members)
