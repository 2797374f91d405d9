"""The TLS of the HTTP listener: the newest certificate, and a log line for each failed handshake.

    accepted -> handshake -> BoundedProtocol
             -> a log line with the cause, and the end of the connection

asyncio does not report failed handshakes, so the objects of this module that run them do.
"""

import ssl
from typing import Any, Final
from weakref import WeakSet

from process.tls.credentials import Credentials, server_context
from process.tls.failures import why
from restbridge.telemetry import Telemetry

LONGEST_HANDSHAKE: Final = 10.0
"""Seconds."""

_LONGEST_GOODBYE: Final = 2.0
"""Seconds in which a client can answer the end of TLS."""


class Tls:
    """The TLS of one listener.

    Args:
        credentials: The first certificate and key.
        telemetry: Records failed handshakes.
        most: The maximum number of handshakes at a time.
    """

    def __init__(self, credentials: Credentials, telemetry: Telemetry, *, most: int) -> None:
        self._telemetry = telemetry
        self._most = most
        self._running: WeakSet[ssl.SSLObject] = WeakSet()
        self._entrance = server_context(credentials)
        self._current = self._entrance
        # A context cannot be emptied. Each handshake takes the newest one instead.
        self._entrance.sni_callback = self._choose
        self._entrance.sslobject_class = self._handshake_class()

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `create_server`."""
        return {
            "ssl": self._entrance,
            "ssl_handshake_timeout": LONGEST_HANDSHAKE,
            "ssl_shutdown_timeout": _LONGEST_GOODBYE,
        }

    def use(self, credentials: Credentials) -> None:
        """Use another certificate and key for later handshakes."""
        self._current = server_context(credentials)

    def _choose(self, handshake: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        handshake.context = self._current

    def step(self, handshake: ssl.SSLObject, do_handshake: Any) -> None:
        """Do a step of a handshake.

        Raises:
            ssl.SSLError: The handshake needs more data, or has failed.
        """
        self._running.add(handshake)
        try:
            if len(self._running) > self._most:
                raise ssl.SSLError(1, "too many handshakes at a time")
            do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._running.discard(handshake)
            self._telemetry.handshake_failed(why(error))
            raise
        self._running.discard(handshake)

    def _handshake_class(self) -> type[ssl.SSLObject]:
        tls = self

        class Handshake(ssl.SSLObject):
            """One connection, whose handshake this module sees."""

            def do_handshake(self) -> None:
                tls.step(self, super().do_handshake)

        return Handshake
