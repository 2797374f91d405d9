"""`python -m service check`, against servers that answer as upstreams do."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from service.models_source import NO_UPSTREAM
from tests.support.processes import process

LIST: Final = (
    b'{"object":"list","data":[{"id":"llama3.1:8b"},{"id":"qwen3:latest"},{"id":7},{"no":"id"}]}'
)


@asynccontextmanager
async def upstream(
    status: str = "200 OK", body: bytes = LIST
) -> AsyncIterator[tuple[str, list[str]]]:
    """Run a server with one answer; yield its base URL, and the heads of its requests."""
    heads: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1", heads


async def check(environment: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run the command; return its exit status and its lines."""
    async with process("service", environment, "check") as running:
        status = await running.exit_status()
    assert running.lines == []
    return status, running.output.decode().splitlines()


async def test_an_upstream_that_lists_the_model_is_right() -> None:
    async with upstream() as (url, heads):
        for name in ("llama3.1:8b", "qwen3"):
            status, lines = await check(
                {
                    "CHAT_UPSTREAM_BASE_URL": f"{url}/chat/completions",
                    "CHAT_UPSTREAM_MODEL": name,
                    "CHAT_UPSTREAM_API_KEY": "sk-canary",
                }
            )
            assert status == 0
            assert lines == [
                "ok   settings: CHAT_UPSTREAM_BASE_URL, CHAT_UPSTREAM_MODEL, CHAT_UPSTREAM_API_KEY",
                f"ok   model default -> {name} at {url}, key set, "
                "price 0.05 input, 0.1 output per million tokens",
                f"ok   upstream default at {url}: lists 2 models",
            ]
    assert heads[0].startswith("GET /v1/models HTTP/1.1\r\n")
    assert "authorization: bearer sk-canary\r\n" in heads[0].lower()


async def test_a_model_that_is_not_listed_has_the_nearest_name() -> None:
    async with upstream() as (url, _):
        status, lines = await check(
            {"CHAT_UPSTREAM_BASE_URL": url, "CHAT_UPSTREAM_MODEL": "llama3.1"}
        )

    assert status == 1
    assert lines[-1] == (
        "FAIL model default -> llama3.1: the upstream does not list it. Did you mean llama3.1:8b? "
        "It lists llama3.1:8b, qwen3:latest. Set CHAT_UPSTREAM_MODEL, or upstream_model in the "
        "models file, to one of these names"
    )


@pytest.mark.parametrize(
    ("answer", "expected", "told"),
    [
        (("401 Unauthorized", b"{}"), 1, "GET /models returned HTTP 401: it wants a key, and none"),
        (("404 Not Found", b""), 0, "GET /models returned HTTP 404: the names of models cannot be"),
        (("500 No", b"x"), 1, "GET /models returned HTTP 500"),
        (("200 OK", b"<html>"), 1, "GET /models returned no list of models"),
        (("200 OK", b'{"data":7}'), 1, "GET /models returned no list of models"),
    ],
)
async def test_what_an_upstream_answers_is_reported(
    answer: tuple[str, bytes], expected: int, told: str
) -> None:
    async with upstream(*answer) as (url, _):
        status, lines = await check({"CHAT_UPSTREAM_BASE_URL": url})

    assert status == expected
    mark = "note" if expected == 0 else "FAIL"
    assert lines[-1].startswith(f"{mark} upstream default at {url}: {told}")


async def test_an_upstream_that_does_not_run_is_reported() -> None:
    async with upstream() as (url, _):
        pass
    status, lines = await check({"CHAT_UPSTREAM_BASE_URL": url})

    assert status == 1
    assert lines[-1].startswith(f"FAIL upstream default at {url}: cannot connect")
    assert lines[-1].endswith("Check that the server runs and that the URL is right")


async def test_wrong_settings_are_all_reported() -> None:
    status, lines = await check({"CHAT_LISTEN": "nowhere", "CHAT_UPSTREAM_URL": "x"})

    assert status == 2
    assert lines[0].startswith("FAIL CHAT_LISTEN must be host:port")
    assert lines[1] == f"FAIL {NO_UPSTREAM}"
    assert lines[2].startswith("FAIL CHAT_UPSTREAM_URL is unknown. Did you mean CHAT_UPSTREAM_BASE")


async def test_a_models_file_is_verified_with_each_of_its_upstreams(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    entry = "default_output_tokens = 1\nmaximum_output_tokens = 1\n"
    async with upstream() as (url, _), upstream("404 Not Found", b"") as (other, _):
        file.write_text(
            f'[upstreams.a]\nbase_url = "{url}"\n'
            f'[upstreams.b]\nbase_url = "{other}"\n'
            "[upstreams.c]\nsimulator = true\n"
            f'[models.x]\nupstream = "a"\nupstream_model = "llama3.1:8b"\n{entry}'
            f'[models."all/*"]\nupstream = "a"\n{entry}'
            f'[models.y]\nupstream = "b"\nupstream_model = "m"\n{entry}'
            f'[models.z]\nupstream = "c"\nupstream_model = "m"\n{entry}'
        )
        status, lines = await check({"CHAT_MODELS_FILE": str(file)})

    assert lines[:2] == ["ok   settings: CHAT_MODELS_FILE", f"ok   models file {file}"]
    assert [line.partition(" ->")[0] for line in lines[2:6]] == [
        f"ok   model {name}" for name in ("x", "all/*", "y", "z")
    ]
    assert lines[6] == f"ok   upstream a at {url}: lists 2 models"
    assert lines[7].startswith(f"note upstream b at {other}: GET /models returned HTTP 40")
    assert (status, len(lines)) == (0, 8)


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
async def test_an_upstream_is_asked_in_its_dialect(status: str, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    async with upstream(status) as (url, heads):
        file.write_text(
            f'[upstreams.a]\nbase_url = "{url}"\napi_key_variable = "PLAIN_KEY"\n'
            'header_variables = { "api-key" = "AZURE_KEY", "Authorization" = "OTHER_KEY" }\n'
            'headers = { "x-portkey-provider" = "openai" }\n'
            'query = { "api-version" = "2024-10-21", "a" = "b c" }\n'
            '[models.m]\nupstream = "a"\nupstream_model = "qwen3"\n'
            "default_output_tokens = 1\nmaximum_output_tokens = 1\n"
        )
        keys = {"PLAIN_KEY": "sk-plain", "AZURE_KEY": "sk-azure", "OTHER_KEY": "Basic sk-other"}
        exit_status, lines = await check({"CHAT_MODELS_FILE": str(file), **keys})

    [head] = heads
    assert head.startswith("GET /v1/models?api-version=2024-10-21&a=b+c HTTP/1.1\r\n")
    for header in (
        "api-key: sk-azure",
        "authorization: basic sk-other",
        "x-portkey-provider: openai",
    ):
        assert f"\r\n{header}\r\n" in head.lower()
    assert head.lower().count("authorization:") == 1
    assert not any(key in line for key in ("sk-plain", "sk-azure", "sk-other") for line in lines)
    if status == "200 OK":
        assert (exit_status, lines[-1]) == (0, f"ok   upstream a at {url}: lists 2 models")
    else:
        assert (exit_status, "its key was refused" in lines[-1]) == (1, True)


async def test_models_with_a_key_of_their_own_are_asked_with_it(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    entry = "default_output_tokens = 1\nmaximum_output_tokens = 1\n"
    async with upstream() as (url, heads):
        file.write_text(
            f'[upstreams.a]\nbase_url = "{url}"\n'
            f'[models.x]\nupstream = "a"\nupstream_model = "qwen3"\n{entry}'
            f'[models.y]\nupstream = "a"\nupstream_model = "qwen3"\n{entry}idle_timeout = 9\n'
            f'[models.z]\nupstream = "a"\nupstream_model = "qwen3"\n{entry}'
            'header_variables = { "api-key" = "AZURE_KEY" }\n'
        )
        status, lines = await check({"CHAT_MODELS_FILE": str(file), "AZURE_KEY": "sk-azure"})

    assert status == 0
    assert lines[-2:] == [
        f"ok   upstream a at {url}: lists 2 models",
        f"ok   upstream a at {url}, for z: lists 2 models",
    ]
    assert sorted("api-key: sk-azure" in head for head in heads) == [False, True]


async def test_each_upstream_of_a_model_and_each_key_is_tried(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    async with upstream() as (url, heads), upstream("401 No") as (other, _):
        file.write_text(
            f'[upstreams.a]\nbase_url = "{url}"\napi_key_variables = ["KEY_1", "KEY_2"]\n'
            f'[upstreams.b]\nbase_url = "{other}"\n'
            '[models.m]\nupstream_model = "qwen3"\nmaximum_output_tokens = 1\n'
            'upstreams = [{ upstream = "a" }, { upstream = "b", order = 1 }]\n'
        )
        keys = {"KEY_1": "sk-first", "KEY_2": "sk-second"}
        status, lines = await check({"CHAT_MODELS_FILE": str(file), **keys})

    assert status == 1
    assert f"ok   upstream a at {url}, key 1 of 2: lists 2 models" in lines
    assert f"ok   upstream a at {url}, key 2 of 2: lists 2 models" in lines
    assert lines[-1].startswith(f"FAIL upstream b at {other}: GET /models returned HTTP 401")
    sent = sorted(line for head in heads for line in head.lower().split("\r\n") if "sk-" in line)
    assert sent == ["authorization: bearer sk-first", "authorization: bearer sk-second"]
