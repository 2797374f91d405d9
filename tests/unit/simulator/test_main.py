import pytest

from service.simulator.__main__ import address, arguments


def test_the_arguments_become_settings() -> None:
    read = arguments(
        ["--listen", "[::1]:0", "--seed", "7", "--inter-token-delay", "0.5", "--api-key", "k"]
    )

    assert read.listen == ("::1", 0)
    assert read.config.seed == 7
    assert read.config.inter_token_delay == 0.5
    assert read.config.api_key == "k"
    assert address("localhost:65535") == ("localhost", 65535)


@pytest.mark.parametrize(
    "argv",
    [
        ["--listen", "8081"],
        ["--listen", "127.0.0.1:65536"],
        ["--listen", ":8081"],
        ["--listen", "127.0.0.1:http"],
        ["--seed", "seven"],
        ["--time-to-first-token", "-1"],
        ["--completion-tokens", "1000001"],
        ["--nonsense"],
    ],
)
def test_wrong_arguments_are_explained(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(argv)

    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
