"""The bootstrap key of a service that has none in its settings, kept in a file beside its store.

sqlite:///chat.sqlite3 -> chat.sqlite3.bootstrap-key           mode 0600
postgresql://…         -> chatcompletion.journal.bootstrap-key, beside the journal
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from process.settings import api_key
from service.accounts import keys

_SUFFIX: Final = ".bootstrap-key"
_LONGEST: Final = 1024


class KeyFileError(Exception):
    """The file cannot be used. The text names it and what to do."""


def path_of(database_url: str, journal_directory: str) -> Path:
    """Return the path of the file.

    Args:
        database_url: The URL of the store.
        journal_directory: The directory of the journal.
    """
    scheme, _, rest = database_url.partition(":///")
    beside = rest.partition("?")[0] if scheme == "sqlite" else journal_directory.rstrip("/")
    return Path(f"{beside}{_SUFFIX}")


class KeyFile:
    """The file with the key.

    Args:
        path: Its path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def use(self, given: str) -> str:
        """Return the given key, or the kept one, which is made if there is none.

        A given key replaces a kept one, which is forgotten.

        Args:
            given: The key of the settings; "" for none.

        Raises:
            KeyFileError: The file cannot be read or written, or holds no key.
        """
        try:
            if given:
                self.path.unlink(missing_ok=True)
                return given
            return self._kept() or self._make()
        except OSError as error:
            raise self._failed(error) from error

    def renew(self) -> str:
        """Make a key that replaces the kept one, and return it.

        Raises:
            KeyFileError: The file cannot be written.
        """
        try:
            self.path.unlink(missing_ok=True)
            return self._make()
        except OSError as error:
            raise self._failed(error) from error

    def _kept(self) -> str:
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            os.fchmod(file.fileno(), 0o600)  # a copy can have lost its mode
            text = file.read(_LONGEST).decode("ascii", errors="replace").strip()
            with suppress(ValueError):
                if text:
                    return api_key(text)
            raise KeyFileError(f"{self.path} holds no API key. Write: rm {self.path}")
        return ""

    def _make(self) -> str:
        """Write a new key; if another process was faster, return its key."""
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{keys.make()}\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, self.path)  # whole, and only if there is none
        finally:
            draft.unlink()
        return self._kept()

    def _failed(self, error: OSError) -> KeyFileError:
        return KeyFileError(
            f"{self.path}: cannot keep the bootstrap key: {error.strerror}. "
            "Set CHAT_BOOTSTRAP_API_KEY, or make the directory writable"
        )
