import os

import pytest

from process.command_line import (
    CommandParser,
    flag,
    program,
    show,
    suggestion,
    unknown,
    version_line,
)

KNOWN = {"--help": "", "--standalone": "", "--workers": "a number of processes"}
VARIABLES = ("CHAT_LISTEN", "CHAT_WORKERS", "SIMPLISMART_API_KEY")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/opt/chat/bin/chatcompletion-service", "chatcompletion-service"),
        ("/src/service/__main__.py", "python -m service"),
        ("", "python -m service"),
    ],
)
def test_a_program_has_the_name_by_which_it_was_started(path: str, name: str) -> None:
    assert program("service", path) == name


def test_the_nearest_name_is_suggested() -> None:
    assert suggestion("acounts", ["accounts", "keys"]) == "; did you mean 'accounts'?"
    assert suggestion("xyz", ["accounts", "keys"]) == ""


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["--wrokers", "2"], "unknown argument '--wrokers'; did you mean '--workers'?"),
        (["--wrokers=2"], "unknown argument '--wrokers'; did you mean '--workers'?"),
        (["--listen=:80"], "'--listen'; did you mean the variable CHAT_LISTEN?"),
        (["--help", "nonsense"], "unknown argument 'nonsense'."),
        (["--workers"], "the argument --workers needs a number of processes"),
    ],
)
def test_an_argument_that_a_server_does_not_have(others: list[str], said: str) -> None:
    assert said in unknown(others, KNOWN, VARIABLES)


def test_a_flag_that_a_person_could_expect() -> None:
    assert [*map(flag, VARIABLES)] == ["--listen", "--workers", "--simplismart-api-key"]


def parser() -> CommandParser:
    top = CommandParser(prog="chat")
    commands = top.add_subparsers(prog="chat", metavar="COMMAND", required=True)
    keys = commands.add_parser("keys").add_subparsers(metavar="COMMAND", required=True)
    create = keys.add_parser("create")
    create.add_argument("account")
    create.add_argument("--name", required=True)
    return top


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kyes",), "chat: unknown command 'kyes'; did you mean 'keys'? See --help.\n"),
        (("keys", "craete"), "chat keys: unknown command 'craete'; did you mean 'create'?"),
        (("keys", "create", "acme", "--nmae", "x"), "'--nmae'; did you mean '--name'?"),
        (("keys", "create", "acme", "--na", "x"), "'--na'; did you mean '--name'?"),
        (("keys", "create", "acme", "--name", "x", "y"), "unknown argument 'y'. See --help.\n"),
        (("keys", "create", "acme"), "the following arguments are required: --name. See"),
        (("keys",), "chat keys: the following arguments are required: COMMAND. See --help.\n"),
    ],
)
def test_an_unknown_word_is_one_line_with_the_nearest(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words)
    text = capsys.readouterr().err
    assert (ended.value.code, text.count("\n")) == (2, 1)
    assert said in text


def test_words_after_two_dashes_are_values() -> None:
    found = parser().parse_args(["keys", "create", "--name", "x", "--", "--acme"])
    assert (found.account, found.name) == ("--acme", "x")


@pytest.mark.parametrize("words", [(), ("keys",), ("keys", "create")])
def test_every_level_has_the_version(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*words, "--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"{version_line()}\n")


def test_a_reader_that_closed_the_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", stream)
        show("a" * 100_000)
        show("b")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", stream)
        for argument in ("--help", "--version"):
            with pytest.raises(SystemExit) as end:
                parser().parse_args([argument])
            assert end.value.code == 0


def test_no_standard_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", None)
        show("a")
