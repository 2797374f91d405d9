import json
import time
from dataclasses import replace

import pytest

from service.upstream.scrubbing import LARGEST_MEMBERS, scrub, scrub_members
from service.upstream_dialect import Dialect
from tests.support.samples import MODEL, UPSTREAM_KEY, model


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (f"Key {UPSTREAM_KEY}.", "Key [redacted]."),
        (f"<{UPSTREAM_KEY}{UPSTREAM_KEY}>", "<[redacted][redacted]>"),
        ("See https://vllm.example:8443/v1/chat.", "See [redacted]/chat."),
        ("See HTTP://elsewhere.example/a?q=1.", "See HTTP://elsewhere.example/a?[redacted]."),
        ("redis://user:password@cache:6379/0 failed", "[redacted] failed"),
        ("x" * 40 + "https://a.example:8000 b", "x" * 14 + "[redacted] b"),
        ("https://me@a.example/ https://10.0.0.1/a", "[redacted] [redacted]"),
        ("https://gpu-7.prod.svc/a http://localhost/", "[redacted] [redacted]"),
        ("https://eu.vllm.example/docs, VLLM.example.", "[redacted] [redacted]."),
        ("vllm.example is down", "[redacted] is down"),
        ("no worker at gpu-7.prod.svc.cluster.local:8000", "no worker at [redacted]"),
        ("node-1.internal, node-2.internal", "[redacted], [redacted]"),
        ("a.B-c_d.LAN!", "[redacted]!"),
        ("10.0.0.7:8000 refused", "[redacted] refused"),
        ("[fd00:1:2::7]:8000 refused", "[redacted] refused"),
        ("at 2001:db8:0:1:2:3:4:5, twice", "at [redacted], twice"),
        ("gpu-7.prod.cluster timed out", "[redacted] timed out"),
        ("a.local, b.svc, c.corp", "[redacted], [redacted], [redacted]"),
        ("from 192.168.0.1 to 10.1.2.3", "from [redacted] to [redacted]"),
        ("in org-AbCdEf123 or proj_xyz12345", "in [redacted] or [redacted]"),
        ("acct_1234567890, user-abcdefgh1", "[redacted], [redacted]"),
        ("key sk-abc_DEF-123 and sk-****1234", "key [redacted] and [redacted]"),
        ("pk-1234 rk-12345 key-abcdef7", "[redacted] [redacted] [redacted]"),
        ("Authorization: Bearer abcdef", "Authorization: [redacted]"),
        ("bearer\n  abc", "[redacted]"),
        ("vendor/gemma has 8192 tokens", "default has 8192 tokens"),
    ],
)
def test_what_is_nobodys_business_is_removed(text: str, scrubbed: str) -> None:
    assert scrub(text, MODEL) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "This model's maximum context length is 8192 tokens; you asked for 9000 (1.5 times).",
        "messages[0].content[1].image_url must be a string",
        "'temperature' must be <= 2.0, version 1.2.3",
        "the organization of internal affairs, local time, a monkey-wrench, a disk-full",
        "Ungültig: 温度 😀",
        "See https://platform.openai.com/docs/guides/error-codes, or https://vllm.ai.",
        "user-provided key-value pairs, org-wide, project_level, x-api-key, user_message",
        "the header x-portkey-config",
        "vendor/gemma-3 and my-vendor/gemma are other models",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert scrub(text, MODEL) == text


def test_an_upstream_without_key_and_address_has_nothing_to_hide() -> None:
    simulated = model(upstream=type(MODEL.upstream)(name="s", base_url="", api_key=""))

    assert scrub("Hello", simulated) == "Hello"


@pytest.mark.parametrize(
    ("key", "text", "scrubbed"),
    [
        (
            "EMPTY",
            "EMPTY is no key; messages are empty",
            "[redacted] is no key; messages are empty",
        ),
        ("ollama", "ollama, ollama2, my-ollama", "[redacted], ollama2, my-ollama"),
        ("x", "x: max_tokens", "[redacted]: max_tokens"),
        ("a b", "the key a b", "the key [redacted]"),
        ("", "Hello", "Hello"),
    ],
)
def test_a_short_key_is_removed_as_a_word(key: str, text: str, scrubbed: str) -> None:
    upstream = replace(MODEL.upstream, api_key=key)

    assert scrub(text, model(upstream=upstream)) == scrubbed


@pytest.mark.alone
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "a-",
            "a.",
            "a-.",
            ".",
            "-",
            "1.",
            "1.1.1.",
            "sk-",
            "org-",
            "org-a ",
            "bearer ",
            " ",
        ),
        *(
            "a:",
            "a:/",
            "://",
            "x.internal",
            ".internal",
            "http://",
            "é",
            "_",
            "Bearer\t\t",
            "user_",
        ),
    ],
)
def test_the_cost_of_scrubbing_grows_with_the_text_only(unit: str) -> None:
    def cost(size: int) -> float:
        text = (unit * size)[:size] + "\n"
        started = time.process_time()
        scrub(text, MODEL)
        return time.process_time() - started

    # For 16 times the text, a quadratic cost would be 256 times as much: seconds of CPU.
    assert cost(64_000) < 60 * max(min(cost(4_000) for _ in range(3)), 0.0005)


def test_a_name_is_replaced_as_a_word() -> None:
    short = model(name="mine", upstream_model="x")

    text = "x: x-portkey-config needs 'x', not max_tokens or /x/."
    assert scrub(text, short) == "mine: x-portkey-config needs 'mine', not max_tokens or /x/."


def test_the_secrets_of_headers_are_removed() -> None:
    secretive = model(dialect=Dialect(secrets=("a-long-header-canary", "short")))

    assert scrub("no a-long-header-canary, no short", secretive) == "no [redacted], no [redacted]"


def test_members_are_scrubbed_at_every_depth() -> None:
    told = {
        "n_ctx": 8192,
        "metadata": {"raw": [f"key {UPSTREAM_KEY}", {"host": "vllm.example"}], "ok": True},
        "\ud83d": 1,
        "half": "\ud83d",
        UPSTREAM_KEY: 1,
    }
    kept = {name: json.loads(text) for name, text in scrub_members(told, MODEL).items()}

    assert kept == {
        "n_ctx": 8192,
        "metadata": {"raw": ["key [redacted]", {"host": "[redacted]"}], "ok": True},
        "half": "?",
    }


def test_members_are_bounded() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    told = {
        "text": UPSTREAM_KEY[0] * 300,
        "deep": deep,
        "many": list(range(100)),
        "large": ["x" * 250] * 30,
        "late": 1,
        **{f"m{number}": "x" * 50 for number in range(50)},
    }
    kept = scrub_members(told, MODEL)

    assert len(json.loads(kept["text"])) == 256
    assert kept["deep"] == "[[[[[[null]]]]]]"
    assert json.loads(kept["many"]) == list(range(32))
    assert "large" not in kept
    assert kept["late"] == "1"
    assert sum(len(name) + len(text) for name, text in kept.items()) <= LARGEST_MEMBERS


def test_every_key_of_the_upstream_is_removed() -> None:
    keyed = model(upstream=replace(MODEL.upstream, other_keys=("a-second-key-canary", "third")))
    text = f"{UPSTREAM_KEY}, a-second-key-canary, third"
    assert scrub(text, keyed) == "[redacted], [redacted], [redacted]"
