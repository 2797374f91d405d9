import io
import json
import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import cli, cli_arguments
from service.__main__ import main
from service.accounts import keys, page_tokens
from service.accounts.commands import COMMANDS
from service.accounts.directory import Directory
from service.accounts.export import ExportRow
from service.accounts.reports import DAY
from service.accounts.terminal import table
from service.ledger.migrations import migrate
from service.ledger.rows import Place, Settle
from service.ledger.store import Store, StoreError
from service.ledger.usage import HOUR
from tests.support.tree import ROOT

NOW = 1_790_000_000 * 10**9
HOSTILE = "a'; DROP TABLE accounts; --"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.sqlite3"


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command, and return its exit status, standard output and standard error."""

    def run(*arguments: str, database: str = url) -> tuple[int, str, str]:
        status = cli.run(arguments, {"CHAT_DATABASE_URL": database}, now=lambda: NOW)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return status, printed.out, printed.err

    return run


@pytest.fixture
def document(run: Run) -> Callable[..., Any]:
    def document(*arguments: str) -> Any:
        status, out, err = run(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return document


def existing(url: str, account: str, *, key: str = "") -> None:
    """Create an account whose name no command would give it, and a key."""
    store = Store(url)
    migrate(store)
    directory = Directory(store)
    directory.create_account(account)
    if key:
        directory.create_key(account, key)
    store.close()


def spend(url: str, account: str, key: str, *charges: int, prices_from: int | None = None) -> None:
    """Settle requests with these charges in nano-credits."""
    store = Store(url)
    directory = Directory(store)
    owner = directory.account(account)
    (key_id,) = (view.id for view in directory.keys(account) if view.name == key)
    for number, charge in enumerate(charges):
        id_ = f"{account}-{key}-{number}-{prices_from}"
        hold = {"hold_id": id_, "account_id": owner.id, "key_id": key_id}
        store.apply([Place(**hold, amount=charge, tokens=3, model="m", owner="tests", lease=DAY)])
        used = partial(Settle, charge=charge, prompt_tokens=1, completion_tokens=2)
        store.apply([used(**hold, prices_from=prices_from)])
    store.close()


# ------------------------------------------------------------------------------------- commands


def test_two_commands_give_a_team_a_key_with_a_budget(run: Run, url: str) -> None:
    assert run("accounts", "create", "acme", "--credit", "25")[0] == 0
    status, key, note = run(
        *("keys", "create", "acme", "--name", "ci"),
        *("--rpm", "60", "--tpm", "100000", "--concurrency", "8"),
    )

    assert status == 0
    assert re.fullmatch(r"sk-live-[\w-]{43}\n", key)
    assert "'ci'" in note
    assert key.strip() not in Path(url.removeprefix("sqlite:///")).read_bytes().decode("latin-1")


def test_an_account_is_shown(run: Run, document: Callable[..., Any]) -> None:
    created = document("accounts", "create", "acme", "--credit", "24.5")["account"]

    assert created == {
        "name": "acme",
        "balance_nano_credits": "24500000000",
        "held_nano_credits": "0",
        "available_nano_credits": "24500000000",
        "create_time": created["create_time"],
        "budgets": [],
        "parent": "",
        "payer": "",
        "payer_available_nano_credits": "0",
    }
    _, out, _ = run("accounts", "list")
    head, line = out.splitlines()
    columns = ["ACCOUNT", "BALANCE", "HELD", "AVAILABLE", "CREATED", "SUSPENDED"]
    assert head.split() == [*columns, "PARENT", "BUDGETS"]
    *cells, time, suspended, parent, budgets = line.split()
    assert (suspended, parent, budgets) == ("-", "-", "-")
    assert cells == ["acme", "24.5", "0", "24.5"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)
    assert created["create_time"].startswith(time[:-1])


def test_all_accounts_are_listed(
    document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.accounts.asking.PAGE", 2)
    names = [f"team-{number}" for number in range(5)]
    for name in names:
        document("accounts", "create", name)

    assert [account["name"] for account in document("accounts", "list")["accounts"]] == names


def test_all_keys_are_listed_though_a_page_has_fewer(document: Callable[..., Any]) -> None:
    document("accounts", "create", "acme")
    names = [f"key-{number}" for number in range(page_tokens.LARGEST_OF_KEYS + 1)]
    for name in names:
        document("keys", "create", "acme", "--name", name)

    listed = document("keys", "list", "acme")
    assert [key["name"] for key in listed["api_keys"]] == names
    assert not listed["next_page_token"]


@pytest.mark.parametrize("limit", [1, 3, 5, 9])
def test_the_ledger_is_shown_as_far_as_it_was_asked_for(
    document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("service.accounts.asking.PAGE", 2)
    document("accounts", "create", "acme")
    for number in range(5):
        document("credit", "add", "acme", "1", "--id", str(number))

    shown = document("ledger", "show", "acme", "--limit", str(limit))
    ids = [entry["idempotency_id"] for entry in shown["entries"]]
    assert ids == [*"43210"][:limit]
    assert bool(shown["next_page_token"]) == (limit < 5)


def test_more_usage_than_an_answer_holds_is_refused(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("accounts", "create", "acme", "--credit", "1")
    for name in ("ci", "batch"):
        run("keys", "create", "acme", "--name", name)
        spend(url, "acme", name, 1)
    for most, status in ((2, 0), (1, 1)):
        monkeypatch.setattr("service.accounts.report_commands.MOST_USAGE", most)
        assert run("usage", "acme", "--since", "2000-01-01")[0] == status


def test_a_key_has_the_limits_that_it_was_given(run: Run, document: Callable[..., Any]) -> None:
    document("accounts", "create", "acme")
    created = document(
        *("keys", "create", "acme", "--name", "ci", "--rpm", "60", "--tpm", "100000"),
        *("--concurrency", "8", "--models", "a, org/b:c", "--expires", "30d"),
    )

    assert created["key_string"].startswith("sk-live-")
    assert created["api_key"]["limits"] == {
        "models": {"names": ["a", "org/b:c"]},
        "requests_per_minute": "60",
        "tokens_per_minute": "100000",
        "concurrency": "8",
        "expire_time": "2026-10-21T14:13:20Z",
    }
    assert document("keys", "list", "acme")["api_keys"] == [created["api_key"]]
    line = run("keys", "list", "acme")[1].splitlines()[1]
    assert line.split()[:7] == [
        *("ci", "60", "100000", "8", "a,org/b:c", "2026-10-21T14:13:20Z", "-"),
    ]


def test_a_key_without_limits_has_none(run: Run, document: Callable[..., Any]) -> None:
    document("accounts", "create", "acme")
    created = document("keys", "create", "acme", "--name", "ci")

    assert created["api_key"]["limits"] == {}
    line = run("keys", "list", "acme")[1].splitlines()[1]
    assert line.split()[:7] == ["ci", "-", "-", "-", "all", "-", "-"]


def test_accounts_and_keys_are_suspended_rotated_found_and_deleted(
    run: Run, document: Callable[..., Any], url: str
) -> None:
    document("accounts", "create", "acme", "--credit", "1")
    document("keys", "create", "acme", "--name", "ci")
    assert "suspend_time" in document("accounts", "suspend", "acme")["account"]
    assert "suspend_time" not in document("accounts", "resume", "acme")["account"]
    assert "suspend_time" in document("keys", "suspend", "acme", "ci")["api_key"]
    assert "suspend_time" not in document("keys", "resume", "acme", "ci")["api_key"]

    status, secret, note = run("keys", "rotate", "acme", "ci", "--grace", "1d")
    assert status == 0
    assert re.fullmatch(r"sk-live-[\w-]{43}\n", secret)
    assert re.match(r"The former secret is valid until \d{4}-\d\d-\d\dT", note)
    found = document("keys", "find", secret[:14])["api_key"]
    assert (found["account"], found["name"], found["secret_prefix"]) == ("acme", "ci", secret[:14])
    assert run("keys", "find", secret[:14])[1].splitlines()[1].split()[:2] == ["acme", "ci"]
    assert "no key has this secret" in run("keys", "find", "sk-live-nobody")[2]
    spend(url, "acme", "ci", 1)
    assert "last_use_time" in document("keys", "list", "acme")["api_keys"][0]

    assert "the account has credit" in run("accounts", "delete", "acme")[2]
    document("credit", "deduct", "acme", "0.999999999")
    assert "delete_time" in document("accounts", "delete", "acme")["account"]
    assert document("accounts", "list")["accounts"] == []


def test_each_act_is_recorded_and_a_refused_one_is_not(
    run: Run, document: Callable[..., Any]
) -> None:
    document("accounts", "create", "acme", "--credit", "1")
    secret = document("keys", "create", "acme", "--name", "ci", "--rpm", "5")["key_string"]
    document("accounts", "create", "other")
    document("keys", "suspend", "acme", "ci")
    assert run("accounts", "delete", "acme")[0] == 1
    document("keys", "list", "acme")
    document("keys", "find", secret)

    entries = document("audit")["entries"]
    assert [(entry["method"], entry["account"]) for entry in reversed(entries)] == [
        ("CreateAccount", "acme"),
        ("AddCredit", "acme"),
        ("CreateApiKey", "acme"),
        ("CreateAccount", "other"),
        ("SuspendApiKey", "acme"),
    ]
    assert {entry["actor"].partition(":")[0] for entry in entries} == {"cli"}
    assert json.loads(entries[2]["request_json"]) == {
        "account": "acme",
        "name": "ci",
        "limits": {"requests_per_minute": "5"},
    }
    assert secret not in json.dumps(entries)
    assert len(document("audit", "other")["entries"]) == 1
    assert len(document("audit", "--limit", "2")["entries"]) == 2
    head, *lines = run("audit", "acme")[1].splitlines()
    assert head.split() == ["ID", "CREATED", "ACTOR", "METHOD", "ACCOUNT", "REQUEST"]
    assert len(lines) == 4


def test_limits_of_a_key_change_one_by_one(run: Run, document: Callable[..., Any]) -> None:
    document("accounts", "create", "acme")
    document("keys", "create", "acme", "--name", "ci", "--rpm", "60", "--tpm", "9", "--models", "a")

    changed = document("keys", "update", "acme", "ci", "--rpm", "7", "--models", "none")
    assert changed["api_key"]["limits"] == {
        "requests_per_minute": "7",
        "tokens_per_minute": "9",
    }
    changed = document("keys", "update", "acme", "ci", "--expires", "1d", "--concurrency", "2")
    assert changed["api_key"]["limits"]["concurrency"] == "2"
    assert "expire_time" in changed["api_key"]["limits"]
    status, _, err = run("keys", "update", "acme", "ci")
    assert status == 1
    assert "name a limit to change: --rpm, --tpm, --concurrency, --models, --expires" in err
    assert run("keys", "update", "acme", "other", "--rpm", "7")[0] == 1


def test_a_revoked_key_is_found_no_more(run: Run, document: Callable[..., Any], url: str) -> None:
    document("accounts", "create", "acme")
    key = document("keys", "create", "acme", "--name", "ci")["key_string"]
    store = Store(url)
    assert Directory(store).callers.find(keys.digest(key)) is not None
    revoked = document("keys", "revoke", "acme", "ci")
    assert "revoke_time" in revoked["api_key"]
    assert Directory(store).callers.find(keys.digest(key)) is None
    assert document("keys", "revoke", "acme", "ci") == revoked
    store.close()


def test_the_same_id_adds_credit_once(run: Run, document: Callable[..., Any]) -> None:
    document("accounts", "create", "acme")
    for _ in range(2):
        added = document("credit", "add", "acme", "10.000000001", "--id", "invoice 7")
        assert added["entry"]["idempotency_id"] == "invoice 7"
        assert added["entry"]["amount_nano_credits"] == "10000000001"
        assert added["account"]["balance_nano_credits"] == "10000000001"

    status, out, err = run("credit", "add", "acme", "11", "--id", "invoice 7")
    assert (status, out) == (1, "")
    assert "the id 'invoice 7' was used to add 10.000000001; nothing was added" in err


def test_credit_is_taken_back_once_and_only_if_it_is_there(
    run: Run, document: Callable[..., Any]
) -> None:
    document("accounts", "create", "acme", "--credit", "10")
    for _ in range(2):
        deducted = document("credit", "deduct", "acme", "4", "--id", "refund 7")
        assert deducted["entry"]["kind"] == "LEDGER_ENTRY_KIND_DEDUCTION"
        assert deducted["entry"]["amount_nano_credits"] == "-4000000000"
        assert deducted["account"]["balance_nano_credits"] == "6000000000"

    for arguments, message in (
        (("6.1", "--id", "a"), "less than 6.1 is available; nothing was deducted"),
        (("5", "--id", "refund 7"), "the id 'refund 7' was used to deduct 4; nothing was deducted"),
        (("1", "--id", "opening"), "the id 'opening' was used to add 10; nothing was deducted"),
    ):
        status, out, err = run("credit", "deduct", "acme", *arguments)
        assert (status, out) == (1, "")
        assert message in err
    assert "6 deducted with the id" in run("credit", "deduct", "acme", "6")[2]
    row = run("ledger", "show", "acme", "--limit", "1")[1].splitlines()[1].split()
    assert row[2:4] == ["deduction", "-6"]
    assert run("ledger", "verify")[0] == 0


def test_amounts_show_their_worth_if_a_credit_has_one(
    run: Run, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("accounts", "create", "acme", "--credit", "25")
    run("keys", "create", "acme", "--name", "ci")
    spend(url, "acme", "ci", 206_000)
    environment = {"CHAT_DATABASE_URL": url, "CHAT_CREDIT_WORTH": "0.01 EUR"}

    def printed(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.run(arguments, environment) == 0
        return capsys.readouterr().out

    for arguments, amount in (
        (("accounts", "show", "acme"), "0.24999794"),
        (("accounts", "list"), "0.24999794"),
        (("ledger", "show", "acme"), "-0.00000206"),
        (("usage", "show", "acme", "--since", "2000-01-01"), "0.00000206"),
    ):
        head, line, *_ = printed(*arguments).splitlines()
        assert (head.split()[-1], line.split()[-1]) == ("EUR", amount)
        assert "EUR" not in run(*arguments)[1]
        assert "worth" not in run(*arguments, "--json")[1]
    shown = json.loads(printed("accounts", "show", "acme", "--json"))["account"]
    assert shown["balance_worth"] == {"currency_code": "EUR", "amount": "0.24999794"}
    assert printed("keys", "list", "acme")

    environment["CHAT_CREDIT_WORTH"] = "0.01 euro"
    assert cli.run(("accounts", "list"), environment) == 2
    assert "CHAT_CREDIT_WORTH must be a rate" in capsys.readouterr().err


def test_the_ledger_shows_the_time_of_prices_that_have_one(run: Run, url: str) -> None:
    run("accounts", "create", "acme", "--credit", "1")
    run("keys", "create", "acme", "--name", "ci")
    spend(url, "acme", "ci", 100)
    assert "PRICES FROM" not in run("ledger", "show", "acme")[1]
    spend(url, "acme", "ci", 100, 100, prices_from=1_793_491_200 * 10**9)

    head, newest, *_, oldest = run("ledger", "show", "acme")[1].splitlines()
    assert head.endswith("  PRICES FROM")
    assert newest.endswith("  2026-11-01T00:00:00Z")
    assert oldest.endswith("  -")


def test_without_an_id_each_addition_counts_and_is_told_its_id(run: Run) -> None:
    run("accounts", "create", "acme")
    notes = [run("credit", "add", "acme", "1")[2] for _ in range(2)]

    assert notes[0] != notes[1]
    assert all(re.fullmatch(r"1 added with the id [0-9a-f]{32}\n", note) for note in notes)


def test_usage_and_ledger_tell_what_was_spent(
    run: Run, document: Callable[..., Any], url: str
) -> None:
    document("accounts", "create", "acme", "--credit", "1")
    document("keys", "create", "acme", "--name", "ci")
    spend(url, "acme", "ci", 100, 250)

    (used,) = document("usage", "acme", "--since", "2000-01-01")["usage"]
    assert used.pop("start_time").endswith("T00:00:00Z")
    assert used == {
        "account": "acme",
        "key_name": "ci",
        "model": "m",
        "requests": "2",
        "prompt_tokens": "2",
        "completion_tokens": "4",
        "charged_nano_credits": "350",
    }
    entries = document("ledger", "show", "acme")["entries"]
    assert [(entry["kind"], entry["amount_nano_credits"]) for entry in entries] == [
        ("LEDGER_ENTRY_KIND_SETTLEMENT", "-250"),
        ("LEDGER_ENTRY_KIND_SETTLEMENT", "-100"),
        ("LEDGER_ENTRY_KIND_GRANT", "1000000000"),
    ]
    rows = [line.split() for line in run("ledger", "show", "acme")[1].splitlines()[1:]]
    assert [(row[2], row[3], row[-1]) for row in rows] == [
        ("settlement", "-0.00000025", "-"),
        ("settlement", "-0.0000001", "-"),
        ("grant", "1", "opening"),
    ]
    assert len(document("ledger", "show", "acme", "--limit", "1")["entries"]) == 1
    assert "0.00000035" in run("usage", "acme", "--since", "2000-01-01", "--by", "hour")[1]
    assert document("usage", "acme", "--since", "2000-01-01", "--model", "x")["usage"] == []


def test_usage_of_all_accounts_is_shown_and_exported(
    run: Run, document: Callable[..., Any], url: str
) -> None:
    for name, charge in (("acme", 100), ("show", 250)):
        document("accounts", "create", name, "--credit", "1")
        document("keys", "create", name, "--name", "ci")
        spend(url, name, "ci", charge)

    _, out, _ = run("usage", "--by", "range")
    assert [line.split()[0] for line in out.splitlines()] == ["ACCOUNT", "acme", "show"]
    # An account with the name of a command needs `usage show`.
    assert [used["account"] for used in document("usage", "show", "show")["usage"]] == ["show"]
    assert [used["account"] for used in document("usage", "acme")["usage"]] == ["acme"]
    assert "[ACCOUNT]" not in run("usage", "--help")[1]

    month = f"{datetime.now(UTC):%Y-%m}"
    status, out, _ = run("usage", "export", "--month", month)
    assert (status, out.splitlines()[-1]) == (0, f"total,{month},,,,2,2,4,0.00000035,350")
    (first, *_) = run("usage", "export", "--month", month, "--format", "jsonl")[1].splitlines()
    assert json.loads(first)["account"] == "acme"
    # The clock of the test stands in September 2026.
    assert run("usage", "export", "--month", "2026-09")[2].endswith("later charges are missing.\n")
    assert run("usage", "export", "--month", "2026-08")[2] == ""


def test_an_export_fails_with_the_store(
    run: Run, document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(*_: object) -> Iterator[ExportRow]:
        yield ExportRow(kind="usage", month="2026-08")
        raise StoreError("away")

    document("accounts", "create", "acme")
    monkeypatch.setattr("service.accounts.export_command.rows", rows)
    status, _, err = run("usage", "export", "--month", "2026-08", "--format", "jsonl")
    assert (status, err) == (1, "python -m service: CHAT_DATABASE_URL: away\n")


def test_a_balance_that_is_not_its_ledger_is_found(run: Run, url: str) -> None:
    run("accounts", "create", "acme", "--credit", "1")
    run("accounts", "create", "sound", "--credit", "1")
    assert run("ledger", "verify") == (0, "OK: all balances match the ledger and the holds.\n", "")
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE accounts SET balance = balance + 5 WHERE name = 'acme'")
    database.close()

    status, out, _ = run("ledger", "verify")
    assert status == 1
    _, line = out.splitlines()
    assert line.split() == ["acme", "balance", "1000000005", "1000000000"]
    status, out, _ = run("ledger", "verify", "--json")
    assert status == 1
    (difference,) = json.loads(out)["differences"]
    assert difference == {
        "account": "acme",
        "of": "balance",
        "stored": 1_000_000_005,
        "recomputed": 1_000_000_000,
    }


def test_the_schema_is_made(run: Run, url: str) -> None:
    status, out, _ = run("migrate")

    assert status == 0
    assert url.removeprefix("sqlite:///") in out
    assert run("accounts", "list", "--json") == (0, '{"accounts": [], "next_page_token": ""}\n', "")


def test_names_are_values_and_not_sql(run: Run, document: Callable[..., Any], url: str) -> None:
    existing(url, HOSTILE, key=HOSTILE)
    document("credit", "add", HOSTILE, "1", "--id", HOSTILE)

    assert document("ledger", "show", HOSTILE)["entries"][0]["idempotency_id"] == HOSTILE
    assert document("keys", "revoke", HOSTILE, HOSTILE)["api_key"]["name"] == HOSTILE
    assert document("usage", HOSTILE, "--key", HOSTILE, "--model", HOSTILE)["usage"] == []
    assert [each["name"] for each in document("accounts", "list")["accounts"]] == [HOSTILE]
    assert run("ledger", "show", "' OR 1=1 --")[0] == 1


# ------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("keys", "list", "nobody"), "there is no account 'nobody'"),
        (("keys", "revoke", "acme", "none"), "the account has no key 'none'"),
        (("accounts", "create", "acme"), "'acme' exists already"),
        (("credit", "add", "nobody", "1"), "there is no account 'nobody'"),
        (("usage", "acme", "--key", "none"), "the account has no key 'none'"),
        (("usage", "export", "--month", "2026-10", "--account", "nobody"), "no account 'nobody'"),
        (
            ("usage", "export", "--month", "2026-10", "--time-zone", "Asia/Kolkata"),
            "does not begin and end at full hours in UTC",
        ),
        (("credit", "add", "rich", "1000000000"), "exceed its largest value"),
    ],
)
def test_a_failure_is_one_line(run: Run, arguments: tuple[str, ...], told: str) -> None:
    run("accounts", "create", "acme")
    run("accounts", "create", "rich", "--credit", "1000000000")
    for number in range(3):
        run("credit", "add", "rich", "1000000000", "--id", str(number))
    status, out, err = run(*arguments)

    assert (status, out) == (1, "")
    assert err.startswith("python -m service: ")
    assert told in err
    assert err.count("\n") == 1


def test_a_mistyped_file_is_no_empty_store(run: Run, tmp_path: Path) -> None:
    absent = tmp_path / "absent.sqlite3"
    for arguments in (("accounts", "list"), ("ledger", "verify"), ("credit", "add", "a", "1")):
        status, _, err = run(*arguments, database=f"sqlite:///{absent}")
        assert (status, err.count("\n")) == (3 if "verify" in arguments else 1, 1)
        assert str(absent) in err
    assert not absent.exists()


def test_a_file_that_is_no_store_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 1000)
    status, _, err = run("accounts", "list", database=f"sqlite:///{path}")

    assert (status, err.count("\n")) == (1, 1)
    assert str(path) in err


def test_an_unforeseen_failure_is_told_without_its_text(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setitem(COMMANDS, "accounts create", fail)
    status, _, err = run("accounts", "create", "acme")

    assert (status, err) == (1, "python -m service: unexpected error: RuntimeError\n")


def test_a_verification_that_failed_is_no_difference(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = f"sqlite:///{tmp_path}/absent.sqlite3"
    status, _, err = run("ledger", "verify", database=absent)
    assert (status, err.count("\n")) == (3, 1)
    assert run("ledger", "verify", database="mysql://x")[0] == 2
    assert run("ledger", "verify", "--wrong")[0] == 2
    run("migrate")
    assert run("ledger", "verify")[0] == 0

    def fail(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setitem(COMMANDS, "ledger verify", fail)
    assert run("ledger", "verify")[0] == 3


def test_what_adds_credit_once_can_be_copied_from_the_failure(
    run: Run, document: Callable[..., Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    existing(url, HOSTILE)
    with monkeypatch.context() as away:
        away.setattr(Store, "apply", _lost)
        status, _, err = run("credit", "add", HOSTILE, "2.5", "--id", "$(reboot) `x` 'y' \"z\"")
    assert (status, err.count("\n")) == (1, 1)
    again = shlex.split(err.rpartition("To add it once: ")[2])
    assert again == ["credit", "add", HOSTILE, "2.5", "--id", "$(reboot) `x` 'y' \"z\""]
    for _ in range(2):
        assert document(*again)["account"]["balance_nano_credits"] == "2500000000"


def _lost(*_: object) -> None:
    raise StoreError("the answer was lost")


def terminal(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_no_failure(
    url: str, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    name = "Büro ☃ 😀"

    def printed(*arguments: str) -> str:
        with monkeypatch.context() as shown:
            shown.setattr(sys, "stdout", out := terminal(encoding))
            assert cli.run(arguments, {"CHAT_DATABASE_URL": url}) == 0
        out.seek(0)
        return out.read()

    existing(url, name)
    shown = json.loads(printed("accounts", "suspend", name, "--json"))
    assert shown["account"]["name"] == name
    assert printed("keys", "create", name, "--name", "ci").startswith("sk-live-")
    assert (name in printed("accounts", "list")) == (encoding == "utf-8")
    shown = name.encode(encoding, errors="backslashreplace").decode(encoding)
    assert shown in printed("accounts", "list")
    assert "COMMAND" in printed("--help")


def test_a_wrong_address_is_a_wrong_setting(run: Run) -> None:
    status, _, err = run("accounts", "list", database="mysql://canary")

    assert status == 2
    assert err.startswith("python -m service: CHAT_DATABASE_URL must be ")
    assert "canary" not in err


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ("sqlite:///:memory:", "neither sqlite:///file nor postgresql://…"),
        ("sqlite:///canary?mode=ro", "a SQLite file takes no options"),
        ("postgresql://user:canary@host:port/db", "not a database address"),
        ("postgresql://[::1/canary", "not a database address"),
        ("postgresql:///db?host=canary&port=http", "not a database address"),
        ("postgresql://user:can@ary@host/db", "an @ of the password has to be written as %40"),
    ],
)
def test_an_address_that_cannot_be_is_told(run: Run, database: str, said: str) -> None:
    status, out, err = run("accounts", "list", database=database)

    assert (status, out) == (1, "")
    assert err == f"python -m service: CHAT_DATABASE_URL: {said}\n"


def test_a_host_whose_name_is_too_long_is_told(run: Run) -> None:
    status, _, err = run("accounts", "list", database=f"postgresql://user:canary@{'h' * 300}/db")

    assert status == 1
    assert err.endswith("/db: the name of the host cannot be looked up\n")
    assert "canary" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("accounts",),
        ("accounts", "create"),
        ("accounts", "create", ""),
        ("accounts", "create", " acme"),
        ("accounts", "create", "line\nbreak"),
        ("accounts", "create", "\u202eacme"),
        ("accounts", "create", "half\udcff"),
        ("accounts", "create", "a" * 129),
        ("accounts", "create", "Acme"),
        ("accounts", "create", "acme corp"),
        ("accounts", "create", ".acme"),
        ("accounts", "create", "müller"),
        ("keys", "create", "acme", "--name", "CI"),
        ("accounts", "create", "acme", "--credit", "-1"),
        ("accounts", "create", "acme", "--credit", "1e3"),
        ("accounts", "create", "acme", "--cred", "1"),
        ("credit", "add", "acme", "0"),
        ("credit", "add", "acme", "0.0000000001"),
        ("credit", "add", "acme", "1", "--id", ""),
        ("keys", "create", "acme"),
        ("keys", "create", "acme", "--name", "ci", "--rpm", "0"),
        ("keys", "create", "acme", "--name", "ci", "--tpm", "1.5"),
        ("keys", "create", "acme", "--name", "ci", "--concurrency", "99999999999"),
        ("keys", "create", "acme", "--name", "ci", "--models", "a,,b"),
        ("keys", "create", "acme", "--name", "ci", "--models", "a,a"),
        ("keys", "create", "acme", "--name", "ci", "--expires", "2001-01-01"),
        ("keys", "create", "acme", "--name", "ci", "--expires", "0d"),
        ("keys", "create", "acme", "--name", "ci", "--expires", "soon"),
        ("keys", "create", "acme", "--name", "ci", "--expires", "999999d"),
        ("usage", "acme", "--by", "year"),
        ("usage", "export"),
        ("usage", "export", "--month", "2026"),
        ("usage", "export", "--month", "2026-10", "--format", "xml"),
        ("usage", "export", "--month", "2026-10", "--time-zone", "Nowhere"),
        ("ledger", "show", "acme", "--limit", "0"),
        ("ledger", "erase"),
    ],
)
def test_wrong_arguments_are_refused(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(" See --help.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "0", "acme", "7.of-9_x", "a" * 128])
def test_new_names_are_plain(document: Callable[..., Any], name: str) -> None:
    assert document("accounts", "create", name)["account"]["name"] == name
    assert document("keys", "create", name, "--name", name)["api_key"]["name"] == name


def test_a_wrong_name_is_quoted_with_what_was_expected(run: Run) -> None:
    _, _, err = run("accounts", "create", "Acme")

    assert err == (
        "python -m service accounts create: argument account: must be 1 to 128 characters of a-z, "
        "0-9, '.', '_' and '-', with a letter or digit first, but got 'Acme'. See --help.\n"
    )


# ----------------------------------------------------------------------------------- new stores


def test_a_new_account_names_its_store(run: Run, tmp_path: Path) -> None:
    _, _, err = run("accounts", "create", "acme")

    assert err == f"Account 'acme' is in the store {tmp_path}/store.sqlite3.\n"


def test_a_second_store_is_no_accident(run: Run, tmp_path: Path) -> None:
    run("accounts", "create", "acme")
    other = tmp_path / "typo.sqlite3"
    status, out, err = run("accounts", "create", "acme", database=f"sqlite:///{other}")

    assert (status, out) == (1, "")
    assert err == (
        f"python -m service: CHAT_DATABASE_URL: the file {other} does not exist, but "
        f"{tmp_path}/store.sqlite3 does. To use that store, set "
        f"CHAT_DATABASE_URL=sqlite:///{tmp_path}/store.sqlite3; to create another, add "
        "--new-store\n"
    )
    assert not other.exists()
    created = run("accounts", "create", "acme", "--new-store", database=f"sqlite:///{other}")
    assert created[0] == 0
    assert other.exists()


def test_other_files_beside_a_new_store_are_no_stores(run: Run, tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3-turns").touch()
    (tmp_path / "notes.sqlite3").write_text("SQLite format 2")

    assert run("accounts", "create", "acme")[0] == 0


def test_an_unset_variable_creates_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(("accounts", "create", "acme"), {}) == 1
    assert capsys.readouterr().err == (
        f"python -m service: CHAT_DATABASE_URL is not set, and {tmp_path}/chatcompletion.sqlite3 "
        "does not exist. Set CHAT_DATABASE_URL to the store of the service; to create one here, "
        "add --new-store\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert cli.run(("accounts", "create", "acme", "--new-store"), {}) == 0
    assert cli.run(("accounts", "create", "other"), {}) == 0


# --------------------------------------------------------------------------- models of keys


def test_models_of_a_key_exist(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[models."gpt-4o"]\n[models.large]\n[models."local/*"]\n')
    environment = {"CHAT_DATABASE_URL": url, "CHAT_MODELS_FILE": str(file)}
    cli.run(("accounts", "create", "acme"), environment)
    create = ("keys", "create", "acme", "--name")
    for number, models in enumerate(("gpt-4o", "large,local/a", "local/*", "l*", "local/x*", "*")):
        assert cli.run((*create, f"k{number}", "--models", models), environment) == 0
    capsys.readouterr()
    assert cli.run((*create, "ci", "--models", "large,gpt4o"), environment) == 1
    assert capsys.readouterr().err == (
        "python -m service: there is no model 'gpt4o'. Did you mean 'gpt-4o'? The models are "
        "gpt-4o, large, local/*\n"
    )
    for models in ("m*", "local/", "other"):
        assert cli.run(("keys", "update", "acme", "k0", "--models", models), environment) == 1
    file.write_text("[models")
    assert cli.run((*create, "ci", "--models", "large"), environment) == 1
    assert "CHAT_MODELS_FILE: is not TOML" in capsys.readouterr().err
    assert cli.run((*create, "unlimited"), environment) == 0


@pytest.mark.parametrize("variable", ["CHAT_UPSTREAM_BASE_URL", "SIMPLISMART_API_KEY"])
def test_without_a_models_file_the_only_model_is_default(url: str, variable: str) -> None:
    environment = {"CHAT_DATABASE_URL": url, variable: "simulator"}
    cli.run(("accounts", "create", "acme"), environment)
    create = ("keys", "create", "acme", "--models")

    assert cli.run((*create, "default", "--name", "a"), environment) == 0
    assert cli.run((*create, "other", "--name", "b"), environment) == 1
    assert cli.run((*create, "other", "--name", "b"), {"CHAT_DATABASE_URL": url}) == 0


# ------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("text", "ago"),
    [("15m", 15 * 60 * 10**9), ("12h", 12 * HOUR), ("30d", 30 * DAY), ("0d", 0)],
)
def test_durations_count_from_now(text: str, ago: int) -> None:
    assert (
        cli_arguments.parser(NOW).parse_args(["usage", "acme", "--since", text]).since == NOW - ago
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31", 1_769_817_600),
        ("2026-01-31T12:00:00Z", 1_769_860_800),
        ("2026-01-31T12:00:00", 1_769_860_800),
        ("2026-01-31T12:00:00+02:00", 1_769_853_600),
    ],
)
def test_times_are_in_utc_unless_they_say_otherwise(text: str, seconds: int) -> None:
    asked = cli_arguments.parser(NOW).parse_args(["usage", "acme", "--since", text])
    assert asked.since == seconds * 10**9


def test_each_command_has_a_function_and_each_function_a_command() -> None:
    minimal = {
        "accounts create": ["a"],
        "accounts show": ["a"],
        "accounts budget": ["a"],
        "keys budget": ["a", "b"],
        "audit": [],
        "backup": ["a"],
        "accounts suspend": ["a"],
        "accounts resume": ["a"],
        "accounts delete": ["a"],
        "credit add": ["a", "1"],
        "credit deduct": ["a", "1"],
        "keys create": ["a", "--name", "b"],
        "keys list": ["a"],
        "keys revoke": ["a", "b"],
        "keys update": ["a", "b"],
        "keys rotate": ["a", "b"],
        "keys suspend": ["a", "b"],
        "keys resume": ["a", "b"],
        "keys find": ["sk-live-123456"],
        "ledger show": ["a"],
        "usage export": ["--month", "2026-11"],
    }
    for command in COMMANDS:
        asked = cli_arguments.parser(NOW).parse_args([*command.split(), *minimal.get(command, [])])
        assert asked.command == command
    named = {command.partition(" ")[0] for command in COMMANDS}
    assert {*named, "check", "models"} == set(cli_arguments.AREAS)  # which need no store


def test_help_shows_the_commands_and_the_settings(run: Run) -> None:
    status, out, _ = run("--help")

    assert status == 0
    assert all(f"    {area} " in out for area in cli_arguments.AREAS)
    assert "  CHAT_DATABASE_URL (default: sqlite:///chatcompletion.sqlite3)\n" in out


def test_the_program_runs_commands(
    monkeypatch: pytest.MonkeyPatch, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", "accounts", "create", "acme", "--json"])
    monkeypatch.setitem(os.environ, "CHAT_DATABASE_URL", url)

    assert main() == 0
    assert json.loads(capsys.readouterr().out)["account"]["name"] == "acme"


# --------------------------------------------------------------------------------------- tables

CELLS = st.text(st.characters(categories=["L", "N", "P"]), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6))
def test_columns_stand_below_their_names(rows: list[tuple[str, str, str]]) -> None:
    lines = table(("a", "number", "c"), rows, numbers=("number",)).split("\n")

    assert len(lines) == len(rows) + 1
    end = lines[0].index("NUMBER") + len("NUMBER")
    for line, (first, number, last) in zip(lines[1:], rows, strict=True):
        assert line.startswith(first)
        assert line.ljust(end)[:end].endswith(number)
        assert line.ljust(end)[end:].strip() == last


def test_an_interrupt_has_an_exit_status_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run("accounts", "create", "acme")
    monkeypatch.setattr(Directory, "accounts", interrupted)
    assert run("accounts", "list") == (130, "", "")


_COMMAND = "python -m service "


def shown_commands() -> list[str]:
    """Return the commands of the pages, without their comments and redirections."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = (
        line.strip().partition(" > ")[0]
        for page in pages
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
    )
    return [line.removeprefix(_COMMAND) for line in found if re.match(rf"{_COMMAND}[a-z]", line)]


@pytest.mark.parametrize("shown", shown_commands())
def test_each_command_of_the_pages_can_be_parsed(shown: str) -> None:
    asked = cli_arguments.parser(NOW).parse_args(shlex.split(shown, comments=True))
    assert asked.command
