import pytest

from process.workers.arguments import Arguments, Position, parse

ENVIRONMENT = {"CHAT_WORKERS": "3", "OTHER": "x"}


def parsed(*arguments: str) -> Arguments:
    return parse(arguments, ENVIRONMENT, variable="CHAT_WORKERS")


@pytest.mark.parametrize("arguments", [("--workers", "2"), ("--workers=2",)])
def test_the_argument_takes_precedence_over_the_setting(arguments: tuple[str, ...]) -> None:
    assert parsed(*arguments) == Arguments(
        others=[], environment={"CHAT_WORKERS": "2", "OTHER": "x"}, position=None
    )
    assert ENVIRONMENT["CHAT_WORKERS"] == "3"


def test_other_arguments_stay_in_order() -> None:
    asked = parsed("--standalone", "--workers", "2", "--help")

    assert asked.others == ["--standalone", "--help"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--workers",),
        ("--workers=",),
        ("--workers", ""),
        ("--worker",),
        ("--worker", "1"),
        ("--worker", "0:3"),
        ("--worker=1:x",),
        ("--work", "2"),
    ],
)
def test_what_is_incomplete_is_not_understood(arguments: tuple[str, ...]) -> None:
    asked = parsed(*arguments)

    assert asked.others == [arguments[0]] + [each for each in arguments[1:] if asked.others[1:]]
    assert (asked.environment, asked.position) == (ENVIRONMENT, None)


def test_the_place_of_a_worker_comes_back_from_its_arguments() -> None:
    position = Position(number=12, socket=7)

    assert parsed("--workers", "2", *position.arguments()).position == position
