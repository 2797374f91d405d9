"""The commands in separate processes, while the store is in use."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.accounts.directory import Directory
from service.ledger.store import Store
from tests.support.postgres import Server
from tests.support.tree import ROOT
from tests.support.waiting import PATIENCE


async def command(
    database: str,
    *arguments: str,
    stdout: int = asyncio.subprocess.PIPE,
    encoding: str = "utf-8",
    redirection: str = "",
) -> tuple[int, str, str]:
    """Run `python -m service` and return its exit status and its output.

    A redirection is in shell syntax, because Python cannot express all of them.
    """
    program = (sys.executable, "-m", "service", *arguments)
    if redirection:
        program = ("sh", "-c", f'exec "$@" {redirection}', "sh", *program)
    child = await asyncio.create_subprocess_exec(
        *program,
        cwd=ROOT,
        env={
            "PATH": os.environ.get("PATH", ""),
            "CHAT_DATABASE_URL": database,
            "PYTHONIOENCODING": encoding,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, (out or b"").decode(), err.decode()


async def document(database: str, *arguments: str) -> Any:
    status, out, err = await command(database, *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


async def test_from_nothing_to_a_verified_ledger(database: str) -> None:
    created = await document(database, "accounts", "create", "acme", "--credit", "25")
    assert created["account"]["balance_nano_credits"] == "25000000000"
    status, key, note = await command(
        database, "keys", "create", "acme", "--name", "ci", "--rpm", "60"
    )
    assert status == 0
    assert key.startswith("sk-live-")
    assert key.strip() not in note
    added = await asyncio.gather(
        *(command(database, "credit", "add", "acme", "10", "--id", "twice") for _ in range(2))
    )
    assert [status for status, _, _ in added] == [0, 0]
    (account,) = (await document(database, "accounts", "list"))["accounts"]
    assert account["balance_nano_credits"] == "35000000000"
    revoked = await document(database, "keys", "revoke", "acme", "ci")
    assert "revoke_time" in revoked["api_key"]
    status, out, _ = await command(database, "ledger", "verify")
    assert (status, out) == (0, "OK: all balances match the ledger and the holds.\n")


async def test_failures_are_one_line(database: str) -> None:
    url = sa.make_url(database)
    mistyped = url.set(database=f"{url.database}x")
    status, out, err = await command(
        mistyped.render_as_string(hide_password=False), "accounts", "list"
    )
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert str(mistyped.database) in err
    status, out, err = await command(database, "keys", "create", "acme")
    assert (status, out) == (2, "")
    assert "Traceback" not in err


_WARN = """
CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN
        RAISE WARNING USING MESSAGE = TG_TABLE_NAME, DETAIL = ''might be lost'';
        RETURN NULL;
    END'
"""
_WARN_AT_COMMIT = """
CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON {} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION warn()
"""


async def test_a_warning_of_the_server_stands_beside_the_answer(postgres: Server) -> None:
    with postgres.lent() as name:
        database = postgres.url(name)
        await command(database, "migrate")
        with postgres.connect(name) as connection:
            connection.execute(_WARN)
            for table in ("accounts", "ledger"):  # one for each way to commit
                connection.execute(_WARN_AT_COMMIT.format(table))
        created = await command(database, "accounts", "create", "acme", "--credit", "25", "--json")
        status, out, err = created
        assert (status, json.loads(out)["account"]["name"]) == (0, "acme")
        assert err.splitlines() == [
            f"PostgreSQL warns: {table}: might be lost" for table in ("accounts", "ledger")
        ]


async def test_a_reader_may_leave(database: str) -> None:
    await command(database, "migrate")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        status, _, err = await command(database, "accounts", "list", stdout=writing)
        unread, _, _ = await command(database, "ledger", "verify", stdout=writing)
        export = ("usage", "export", "--month", "2026-01")
        exported = await command(database, *export, stdout=writing)
    finally:
        os.close(writing)
    assert (status, err) == (1, "")
    assert unread == 3  # 1 would mean that a balance differs
    assert exported == (1, "", "")
    status, _, err = await command(database, *export, redirection="> /dev/full")
    assert (status, err.count("\n")) == (1, 1)
    assert "No space left on device" in err


async def test_a_key_that_nobody_can_be_shown_is_not_made_or_told_of(database: str) -> None:
    await command(database, "accounts", "create", "acme")
    create = ("keys", "create", "acme", "--name")
    status, _, err = await command(database, *create, "closed", redirection=">&-")
    assert (status, err) == (1, "python -m service: standard output is closed\n")
    status, _, err = await command(database, *create, "full", redirection="> /dev/full")
    assert (status, err.count("\n")) == (1, 1)
    assert "No space left on device" in err
    assert "revoke it" in err
    reading, writing = os.pipe()
    os.close(reading)
    try:
        status, _, err = await command(database, *create, "left", stdout=writing)
    finally:
        os.close(writing)
    assert (status, err.count("revoke it")) == (1, 1)
    # A note that cannot be written is not a failure.
    for name, redirection in (("mute", "2> /dev/full"), ("closed", "2>&-")):
        status, key, _ = await command(database, *create, name, redirection=redirection)
        assert (status, key[:8]) == (0, "sk-live-")
    listed = await document(database, "keys", "list", "acme")
    assert [key["name"] for key in listed["api_keys"]] == ["full", "left", "mute", "closed"]


async def test_who_only_reads_waits_for_no_lock(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/accounts.db"
    await command(database, "accounts", "create", "acme", "--credit", "25")
    store = Store(database)
    try:
        with store.writing():
            asked = [
                *(("accounts", "list"), ("keys", "list", "acme"), ("usage", "acme")),
                *(("ledger", "show", "acme"), ("ledger", "verify"), ("migrate",)),
            ]
            answers = await asyncio.gather(*(command(database, *words) for words in asked))
    finally:
        store.close()
    assert [(status, err) for status, _, err in answers] == [(0, "")] * 6


async def test_a_terminal_need_not_know_every_character(database: str) -> None:
    await command(database, "migrate")
    store = Store(database)
    directory = Directory(store)
    directory.create_account("Büro")  # as older versions did
    directory.create_key("Büro", "☃")
    store.close()
    status, key, note = await command(database, "keys", "rotate", "Büro", "☃", encoding="ascii")
    assert (status, key[:8], note.count("\n")) == (0, "sk-live-", 1)
    status, out, err = await command(database, "keys", "list", "Büro", encoding="ascii")
    assert (status, err) == (0, "")
    assert "\\u2603" in out
    status, out, _ = await command(database, "keys", "list", "Büro", "--json", encoding="ascii")
    assert (status, json.loads(out)["api_keys"][0]["name"]) == (0, "☃")
