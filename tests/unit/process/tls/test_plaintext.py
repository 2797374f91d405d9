import logging

import pytest

from process.settings import Address, Listen, UnixAddress
from process.tls.plaintext import Listener, warn


@pytest.mark.parametrize(
    ("listen", "has_tls", "is_open"),
    [
        (Address("0.0.0.0", 1), False, True),
        (Address("0.0.0.0", 1), True, False),
        (Address("::", 1), False, True),
        (Address("chat.example", 1), False, True),
        (Address("127.0.0.2", 1), False, False),
        (Address("::1", 1), False, False),
        (Address("localhost", 1), False, False),
        (UnixAddress("/run/a"), False, False),
    ],
)
def test_only_plaintext_that_other_machines_can_reach_is_open(
    listen: Listen, has_tls: bool, is_open: bool
) -> None:
    listener = Listener(setting="A", listen=listen, certificate="B", has_tls=has_tls)
    assert listener.is_open == is_open


def test_an_open_listener_has_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    everywhere, here = Address("0.0.0.0", 1), Address("127.0.0.1", 1)
    with caplog.at_level(logging.WARNING, "service"):
        warn(
            "service",
            [
                Listener(setting="A", listen=each, certificate="B", has_tls=False)
                for each in (everywhere, here)
            ],
        )
    assert [record.message for record in caplog.records] == ["listener without TLS"]
