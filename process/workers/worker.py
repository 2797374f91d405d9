"""The worker's side of the connection to its supervisor.

    the supervisor's signals -> those of this process     -> `process.lifetime`
    its questions            -> the metrics, from a thread
    its end                  -> SIGTERM, unless one came before

A worker ignores signals from outside. A terminal sends Ctrl-C to every process of its group, and an
init system sends SIGTERM to every process of a unit: the supervisor's signal would be the second.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final

import msgspec

from process.workers.arguments import Position
from process.workers.frames import (
    HEAD,
    Scrape,
    Scraped,
    Serving,
    ToSupervisor,
    families,
    frame,
    to_worker,
)

if TYPE_CHECKING:  # commands import this, and do without
    from prometheus_client.registry import Collector

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Receive = Callable[[signal.Signals], None]
"""Takes a signal; called from a thread."""


class Worker:
    """This process as a worker.

    Args:
        position: Its position, from the command line.

    Raises:
        OSError: The descriptor is no socket.
    """

    def __init__(self, position: Position) -> None:
        self.number = position.number
        """From 1."""
        self._socket = socket.socket(fileno=position.socket)
        self._socket.set_inheritable(False)
        self._sending = Lock()
        self._receive: Receive | None = None
        self._registries: Sequence[Collector] = ()
        self._is_stopping = False
        self._is_hung_up = False

    @classmethod
    def start(cls, position: Position | None) -> "Worker | None":
        """Make this process a worker, if it has a position among workers.

        It hears its supervisor from now on. Until `listen`, a signal ends it at once.
        """
        if position is None:
            return None
        worker = cls(position)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        Thread(target=worker._read, name="supervisor", daemon=True).start()
        return worker

    def listen(self, receive: Receive) -> None:
        """Have the supervisor's signals received."""
        self._receive = receive
        if self._is_hung_up:
            receive(signal.SIGHUP)

    def serving(self, *registries: "Collector") -> None:
        """Report that the worker serves.

        Args:
            registries: What the supervisor can ask for, in the order of its listeners.
        """
        self._registries = registries
        self._send(Serving())

    def _read(self) -> None:
        with self._socket.makefile("rb") as stream:
            while head := stream.read(HEAD.size):
                try:
                    message = to_worker.decode(stream.read(*HEAD.unpack(head)))
                except (msgspec.MsgspecError, ValueError):
                    break  # the supervisor ended in the middle of it
                if isinstance(message, Scrape):
                    self._answer(message)
                else:
                    self._signal(signal.Signals(message.number))
        if not self._is_stopping:
            self._signal(signal.SIGTERM)

    def _answer(self, question: Scrape) -> None:
        registry = self._registries[question.registry]
        self._send(Scraped(question.number, families(registry)))

    def _signal(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._is_hung_up = True  # before it listens, it may have read the old files
            if self._receive is not None:
                with suppress(RuntimeError):
                    self._receive(number)
            return
        self._is_stopping = True
        if self._receive is None:
            os._exit(0)  # nothing is served yet
        with suppress(RuntimeError):  # the event loop is closed: the process ends
            self._receive(number)

    def _send(self, message: ToSupervisor) -> None:
        with self._sending, suppress(OSError):  # its end is seen where it is read
            self._socket.sendall(frame(message))
