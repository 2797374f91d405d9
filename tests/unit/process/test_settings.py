from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import pytest

from process.settings import (
    Address,
    Listen,
    Row,
    SettingsError,
    UnixAddress,
    address,
    api_key,
    base_url,
    header_key,
    integer,
    listen_address,
    one_of,
    optional_address,
    read,
    readable_file,
    rows,
    seconds,
    setting,
    usage,
)

KEY = "key-canary-0123456789"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    listen: Address = setting("A_LISTEN", "127.0.0.1:1", address, "Where it listens.")
    key: str = setting("A_KEY", "", api_key, "The key.")
    most: int = setting("A_MOST", "5", integer(1, 9), "How many.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    listen: Listen = setting("A_LISTEN", "127.0.0.1:1", listen_address, "Where it listens.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    key: str = setting("A_KEY", "", api_key, "The key.")
    other: str = setting("ANOTHER_KEY", "", header_key, "The key for another server.")


def test_what_is_absent_or_empty_has_its_default() -> None:
    expected = Sample(listen=Address("127.0.0.1", 1), key="", most=5)

    assert read(Sample, {}) == expected
    assert read(Sample, {"A_MOST": "", "A_KEY": "", "OTHER": "x"}) == expected


def test_what_is_there_is_read() -> None:
    assert read(Sample, {"A_LISTEN": "h:2", "A_KEY": KEY, "A_MOST": "9"}) == Sample(
        listen=Address("h", 2), key=KEY, most=9
    )


def test_every_wrong_value_has_a_line_that_shows_no_secret() -> None:
    with pytest.raises(SettingsError) as refused:
        read(Sample, {"A_LISTEN": "canary", "A_KEY": "canary", "A_MOST": "canary"})

    assert str(refused.value).splitlines() == [
        "A_LISTEN must be host:port, such as 127.0.0.1:8080 or [::1]:8080, "
        'with a port from 0 to 65535; found "canary". Write for example: A_LISTEN=127.0.0.1:1',
        "A_KEY must be a key of 16 to 256 printable ASCII characters without spaces; found a value "
        "of 6 characters, which is not shown. Write for example: A_KEY=$(openssl rand -hex 24)",
        'A_MOST must be an integer from 1 to 9; found "canary". Write for example: A_MOST=5',
    ]
    assert refused.value.lines == tuple(str(refused.value).splitlines())


def test_keys_are_not_shown() -> None:
    shown = repr(read(Sample, {"A_KEY": KEY}))

    assert KEY not in shown
    assert "most=5" in shown
    assert "canary" not in repr(read(Keys, {"A_KEY": KEY, "ANOTHER_KEY": "canary"}))


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        read(Sample, {}).most = 6  # type: ignore[misc]  # what is tested


def test_the_table_is_in_the_order_of_the_fields() -> None:
    assert rows(Sample) == (
        Row(
            name="A_LISTEN",
            default="127.0.0.1:1",
            allowed="host:port, such as 127.0.0.1:8080 or [::1]:8080, with a port from 0 to 65535",
            meaning="Where it listens.",
        ),
        Row(
            name="A_KEY",
            default="",
            allowed="a key of 16 to 256 printable ASCII characters without spaces",
            meaning="The key.",
        ),
        Row(name="A_MOST", default="5", allowed="an integer from 1 to 9", meaning="How many."),
    )


def test_the_help_has_each_setting() -> None:
    assert usage("python -m sample", (Sample,)).splitlines() == [
        "usage: python -m sample",
        "",
        "Settings are environment variables; docs/configuration.md has this table:",
        "",
        "  A_LISTEN (default: 127.0.0.1:1)",
        "      Where it listens.",
        "  A_KEY (default: none)",
        "      The key.",
        "  A_MOST (default: 5)",
        "      How many.",
    ]


Parse = Callable[[str], Any]

ACCEPTED: list[tuple[Parse, str, object]] = [
    (address, "127.0.0.1:8080", Address("127.0.0.1", 8080)),
    (address, "localhost:0", Address("localhost", 0)),
    (address, "[::1]:65535", Address("::1", 65535)),
    (address, "[::]:1", Address("::", 1)),
    (optional_address, "none", None),
    (optional_address, "h:1", Address("h", 1)),
    (api_key, "", ""),
    (api_key, "x" * 16, "x" * 16),
    (api_key, "~" * 256, "~" * 256),
    *(
        (header_key, text, text)
        for text in ("", "x", "EMPTY", "ollama", "sk-1234", "a b", "!~", "é", "\u0661", "x" * 16384)
    ),
    *((header_key, text, "x") for text in (" x", "x ", "  x ")),
    (header_key, "\udcff", "\udcff"),
    (base_url, "", ""),
    (base_url, "http://h", "http://h"),
    (base_url, "https://h.example:8443/v1/", "https://h.example:8443/v1"),
    (base_url, "http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    (seconds(0, 10), "0", 0.0),
    (seconds(0, 10), "10", 10.0),
    (seconds(0, 10), "2.5", 2.5),
    (integer(-1, 10), "-1", -1),
    (integer(-1, 10), "10", 10),
    (one_of("a", "b"), "b", "b"),
    (readable_file, "", ""),
]

REFUSED: list[tuple[Parse, str]] = [
    *(
        (parse, text)
        for parse in (address, optional_address)
        for text in (
            *("", "h", ":1", "h:", "h:x", "h:65536", "h:-1", "h:+1", "h: 1", "h:1 ", "a b:1"),
            *("::1:80", "[::1]", "[]:1", "[h]:1", "h:1:2", "h:\u0661", "h:" + "9" * 5000, "\n:1"),
        )
    ),
    (address, "none"),
    *((api_key, text) for text in ("x" * 15, "x" * 257, "x" * 15 + " ", "é" * 16, "x" * 16 + "\n")),
    *(
        (header_key, text)
        for text in (
            *("x\n", "x\r\n", "\nx", "a\tb", "\tx", "x\0", "\x7f", "\x1b[0m", "\x85"),
            *("x\u2028", "x\u2029y", "x" * 16385),
        )
    ),
    *(
        (base_url, text)
        for text in (
            *("h", "h:80", "ftp://h", "HTTP://h", "http:/h", "http://", "http:///v1", "//h"),
            *(
                "http://h?q",
                "http://h/#f",
                "http://u@h",
                "http://u:p@h",
                "http://h/a b",
                "http://h\n",
            ),
            *(
                "http://h\\x",
                "http://h/\x00",
                "http://[",
                "http://[::1",
                "http://h:x",
                "http://:80",
            ),
            "http://h:65536",
        )
    ),
    *(
        (seconds(0, 10), text)
        for text in ("", "x", "-0.1", "10.1", "nan", "inf", "-inf", "1e400", "1 s", "0x1")
    ),
    *((integer(-1, 10), text) for text in ("", "x", "-2", "11", "1.0", "1e1", "9" * 5000)),
    *((one_of("a", "b"), text) for text in ("", "c", "A", "a ", "a,b")),
]


@pytest.mark.parametrize(("parse", "text", "value"), ACCEPTED)
def test_what_is_allowed_is_parsed(parse: Parse, text: str, value: object) -> None:
    assert parse(text) == value


def shown(value: object) -> str:
    """Return an id that is the same in every process: the repr of a function has its address."""
    name = getattr(value, "__qualname__", None)
    return repr(value)[:40] if name is None else str(name).partition(".")[0]


@pytest.mark.parametrize(("parse", "text"), REFUSED, ids=shown)
def test_what_is_not_allowed_is_refused(parse: Parse, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the parser's contract; the text is not shown)
        parse(text)


def test_a_file_must_be_one_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")

    assert readable_file(str(path)) == str(path)
    for wrong in (tmp_path / "absent", tmp_path, path / "below"):
        with pytest.raises(ValueError):  # noqa: PT011  (as above)
            readable_file(str(wrong))


@pytest.mark.parametrize(
    ("value", "text"), [(Address("h", 1), "h:1"), (Address("::1", 80), "[::1]:80")]
)
def test_an_address_is_shown_as_it_is_written(value: Address, text: str) -> None:
    assert str(value) == text
    assert address(text) == value


def test_an_address_to_listen_on_can_be_a_socket_file() -> None:
    assert listen_address("[::1]:80") == Address("::1", 80)
    assert listen_address("unix:/run/a.sock") == UnixAddress("/run/a.sock")
    assert str(listen_address("unix:a")) == "unix:a"
    assert listen_address(f"unix:{'a' * 107}") == UnixAddress("a" * 107)
    assert optional_address("unix:a") == UnixAddress("a")


@pytest.mark.parametrize(
    "text", ["unix:", "unix:/run/", "unix:/run/a b", "unix:\0a", f"unix:{'a' * 108}", "/run/a"]
)
def test_no_other_path_is_an_address(text: str) -> None:
    with pytest.raises(SettingsError, match="A_LISTEN must be host:port"):
        read(Listening, {"A_LISTEN": text})
