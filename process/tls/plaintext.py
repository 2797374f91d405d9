"""The warning about listeners without TLS that other machines can reach."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from process import log
from process.settings import Address, Listen

_HINT: Final = (
    "keys and answers can be read on the network: set {certificate} and its key, or let a proxy or "
    "a mesh on this machine add TLS"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """A listener, as the warning names it."""

    setting: str
    listen: Listen
    certificate: str
    """The setting with the certificate."""
    has_tls: bool

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it without TLS."""
        return not self.has_tls and isinstance(self.listen, Address) and not _is_local(self.listen)


def warn(logger: str, listeners: Iterable[Listener]) -> None:
    """Log a warning for each listener without TLS outside of loopback. Call it once, at start."""
    to = logging.getLogger(logger)
    for each in listeners:
        if each.is_open:
            members = log.fields(
                setting=each.setting,
                address=str(each.listen),
                hint=_HINT.format(certificate=each.certificate),
            )
            to.warning("listener without TLS", extra=members)


def _is_local(address: Address) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"
