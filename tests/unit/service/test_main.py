import sys

import pytest

from service.__main__ import admin, main
from service.models_source import NO_UPSTREAM


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> int:
    monkeypatch.setattr(sys, "argv", ["service", *arguments])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return main()


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_is_printed_for_who_asks(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, argument) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("usage: python -m service [--workers N]\n")
    assert "  CHAT_LISTEN (default: 0.0.0.0:50051)\n" in printed.out


@pytest.mark.parametrize("arguments", [("--port", "1"), ("--help", "x"), ("--version", "x")])
def test_an_argument_is_refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "The settings are environment variables" in capsys.readouterr().err


def test_an_unknown_command_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "legder") == 2
    assert "unknown command 'legder'; did you mean 'ledger'?" in capsys.readouterr().err


def test_the_commands_alone_do_not_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ((), ("--workers", "2")):
        monkeypatch.setattr(sys, "argv", ["chatcompletion-admin", *arguments])
        assert admin() == 2
        assert capsys.readouterr().err.startswith("chatcompletion-admin: ")


def test_a_wrong_setting_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"CHAT_LISTEN": "nowhere", "CHAT_LOG_LEVEL": "loud"}
    assert run(monkeypatch, **wrong, CHAT_UPSTREAM_BASE_URL="simulator") == 2
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.err.splitlines()] == [
        "CHAT_LISTEN",
        "CHAT_LOG_LEVEL",
    ]
    assert all(f'; found "{value}"' in printed.err for value in wrong.values())


def test_a_service_without_an_upstream_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 2
    assert capsys.readouterr().err == f"{NO_UPSTREAM}\n"
