from collections.abc import Sequence

from process.settings import Address, Listen, UnixAddress
from restbridge.start_text import start_text


def _text(
    rest: Listen,
    metrics: Sequence[Listen | None] = (),
    *,
    kept_in: str = "",
    pages: bool = True,
    ca: str = "",
) -> str:
    return start_text(
        rest,
        grpc="127.0.0.1:2",
        metrics=metrics,
        upstream="the simulator",
        key="a key",
        kept_in=kept_in,
        pages=pages,
        models=["one", "two"],
        ca=ca,
        model="one",
    )


def test_a_person_gets_addresses_the_key_and_a_command() -> None:
    text = _text(Address("127.0.0.1", 1), [Address("::1", 3), None], kept_in="key")

    assert "REST      http://127.0.0.1:1/v1\ngRPC      127.0.0.1:2\n" in text
    assert "metrics   http://[::1]:3/metrics\nupstream  the simulator\nAPI key   a key\n" in text
    assert "kept in   key\nbrowser   http://127.0.0.1:1/playground#key=a%20key\n" in text
    assert "model one\nmodel two\n\nexport CHAT_KEY='a key'\n\ncurl -N http://127.0.0.1:1/" in text


def test_what_is_absent_is_not_shown() -> None:
    text = _text(Address("127.0.0.1", 1), pages=False)

    assert "metrics   none" in text
    assert "browser" not in text
    assert "kept in" not in text


def test_a_unix_domain_socket_has_a_command_but_no_link() -> None:
    text = _text(UnixAddress("/run/a b"), [UnixAddress("/run/m")])

    assert "REST      unix:/run/a b, base URL http://localhost/v1\n" in text
    assert "metrics   unix:/run/m\n" in text
    assert "curl -N --unix-socket '/run/a b' http://localhost/v1/chat/completions" in text
    assert "browser" not in text
    assert "terminal" not in text


def test_a_listener_with_tls_has_links_and_commands_for_it() -> None:
    text = _text(Address("127.0.0.1", 1), [Address("127.0.0.1", 3)], ca="cert.pem")

    assert "REST      https://127.0.0.1:1/v1\n" in text
    assert "metrics   http://127.0.0.1:3/metrics\n" in text
    assert "curl -N --cacert cert.pem https://127.0.0.1:1/v1/chat/completions" in text
