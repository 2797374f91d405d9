import sys

import pytest

from service.__main__ import main


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


@pytest.mark.parametrize("arguments", [("--port", "1"), ("serve",), ("--help", "x")])
def test_an_argument_is_refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "the settings are environment variables" in capsys.readouterr().err


def test_a_wrong_setting_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, CHAT_LISTEN="canary", CHAT_LOG_LEVEL="canary") == 2
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.err.splitlines()] == [
        "CHAT_LISTEN",
        "CHAT_LOG_LEVEL",
    ]
    assert "canary" not in printed.err
