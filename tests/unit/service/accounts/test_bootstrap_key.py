import os
import stat
from pathlib import Path

import pytest

from service.accounts.bootstrap_key import KeyFile, KeyFileError, path_of

GIVEN = "key-given-0123456789"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///chat.sqlite3", "chat.sqlite3.bootstrap-key"),
        ("sqlite:////var/lib/chat/chat.db", "/var/lib/chat/chat.db.bootstrap-key"),
        ("sqlite:///chat.db?timeout=5", "chat.db.bootstrap-key"),
        ("postgresql://chat@db/chat", "/var/lib/chat/journal.bootstrap-key"),
        ("postgresql:///chat", "/var/lib/chat/journal.bootstrap-key"),
    ],
)
def test_the_file_is_beside_the_store_or_the_journal(url: str, path: str) -> None:
    assert path_of(url, "/var/lib/chat/journal/") == Path(path)


def test_a_key_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "key")
    key = file.use("")

    assert key.startswith("sk-live-")
    assert KeyFile(tmp_path / "key").use("") == key
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key"]


def test_a_copy_that_others_can_read_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{GIVEN}\n")
    path.chmod(0o644)

    assert KeyFile(path).use("") == GIVEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_given_key_is_not_written_and_replaces_the_kept_one(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "key")
    kept = file.use("")

    assert file.use(GIVEN) == GIVEN
    assert os.listdir(tmp_path) == []
    assert file.use("") != kept


def test_a_key_can_be_renewed(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "key")
    kept = file.use("")

    renewed = file.renew()
    assert renewed != kept
    assert file.use("") == renewed


@pytest.mark.parametrize("text", [b"", b"short", b"\xff" * 20, b"x" * 300])
def test_a_file_without_a_key_is_named(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(text)

    with pytest.raises(KeyFileError, match=f"^{path} holds no API key. Write: rm {path}$"):
        KeyFile(path).use("")
    assert path.read_bytes() == text


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "key"

    with pytest.raises(KeyFileError, match=f"^{path}: cannot keep the bootstrap key: No such file"):
        KeyFile(path).use("")
