import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import trustme

from process.tls.credentials import Credentials, TlsError
from process.tls.files import ServerFiles
from process.tls.watching import TlsReloading, Watched
from tests.support.certificates import Files, written

OURS: Final = trustme.CA()


class Used:
    """Files of a listener, and what was used of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = self.write()
        self.watched = Watched(
            ServerFiles.of(
                {"tls_cert_file": self.files.certificate, "tls_key_file": self.files.key}, "tls"
            ),
            logger="service",
        )
        self.used: list[Credentials] = []
        self.news = asyncio.Event()
        self.watched.changed = self._use

    def _use(self, credentials: Credentials) -> None:
        self.used.append(credentials)
        self.news.set()

    def spoil(self) -> None:
        Path(self.files.key).write_text("no key")

    def write(self) -> Files:
        return written(self.folder, OURS, "server", "localhost")


@pytest.fixture
def used(tmp_path: Path) -> Used:
    return Used(tmp_path)


async def test_files_that_stay_are_read_only_if_asked(used: Used) -> None:
    await used.watched.look(asked=False)
    assert used.used == []

    await TlsReloading([used.watched])()
    assert used.used == [used.watched.credentials]


async def test_changed_files_are_used_without_being_asked(used: Used) -> None:
    before = used.watched.credentials
    used.write()
    running = asyncio.create_task(TlsReloading([used.watched], interval=0.0).run())
    async with asyncio.timeout(20):
        await used.news.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

    assert used.watched.credentials != before


async def test_unusable_files_leave_the_old_ones_and_are_reported_once(
    used: Used, caplog: pytest.LogCaptureFixture
) -> None:
    before = used.watched.credentials
    used.spoil()
    with caplog.at_level(logging.INFO, "service"):
        for _ in range(3):
            await used.watched.look(asked=False)

    assert used.used == []
    assert used.watched.credentials == before
    assert [record.message for record in caplog.records] == ["tls not reloaded"]

    used.write()
    await used.watched.look(asked=False)
    assert len(used.used) == 1


def test_the_first_files_must_work(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="cannot read"):
        Watched(ServerFiles.of({"tls_cert_file": "/no", "tls_key_file": "/no"}, "tls"), logger="a")
