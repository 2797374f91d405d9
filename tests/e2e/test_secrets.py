"""No secret in logs, scraped metrics, exported spans or errors, of processes at the level debug.

REST -> bridge -> service -> simulator          and both -> OTLP receiver, scraper, stderr

The helpers search on their own and `shown_secrets` fails a test: see `canaries`. This test makes
sure that there is something to search, with every kind of secret.
"""

from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support import canaries
from tests.support.grpc_client import KEY, params
from tests.support.otlp import receiver
from tests.support.processes import process, service_process
from tests.support.running_bridge import PATH
from tests.support.running_service import UPSTREAM_KEY, simulator
from tests.support.waiting import PATIENCE, until

PROMPT: Final = "a prompt that nothing may show, over REST"
OF_GRPC: Final = "a prompt that nothing may show, over gRPC"
NAMES: Final = ("any", "sim-fault:500", "sim-fault:reset-mid-stream", "sim-fault:malformed-event")


def models(directory: Path, base_url: str) -> str:
    """Write a models file, and return its path."""
    tables = [
        f'[models."{name}"]\nupstream = "u"\nupstream_model = "{name}"\n'
        "default_output_tokens = 64\nmaximum_output_tokens = 1024\n"
        for name in NAMES
    ]
    path = directory / "models.toml"
    head = f'[upstreams.u]\nbase_url = "{base_url}"\napi_key_variable = "KEY"\n'
    path.write_text(head + "\n".join(tables))
    return str(path)


async def test_no_secret_is_logged_counted_or_exported(tmp_path: Path, database: str) -> None:
    async with AsyncExitStack() as stack:
        otlp = await stack.enter_async_context(receiver())
        upstream = await stack.enter_async_context(simulator())
        exports = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{otlp.address}",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        service, caller = await stack.enter_async_context(
            service_process(
                **exports,
                CHAT_MODELS_FILE=models(tmp_path, upstream.base_url),
                KEY=UPSTREAM_KEY,
                CHAT_DATABASE_URL=database,
                CHAT_METRICS_LISTEN="127.0.0.1:0",
            )
        )
        bridge = await stack.enter_async_context(
            process(
                "restbridge",
                {
                    **exports,
                    "CHAT_SERVICE_TARGET": await service.address(),
                    "CHAT_BRIDGE_LISTEN": "127.0.0.1:0",
                    "CHAT_BRIDGE_METRICS_LISTEN": "127.0.0.1:0",
                },
            )
        )
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://{await bridge.address()}",
                headers={"authorization": f"Bearer {KEY}", "baggage": "tenant=acme"},
                timeout=PATIENCE,
                trust_env=False,
                event_hooks=canaries.HOOKS,
            )
        )
        for name in NAMES:
            said: dict[str, Any] = {
                "model": name,
                "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}],
            }
            for streamed in (False, True):
                with suppress(httpx.RemoteProtocolError):  # a stream that breaks
                    await http.post(PATH, json={**said, "stream": streamed})
            request = params(name, messages=[{"role": "user", "content": OF_GRPC}])
            await caller.collect(request)
        await http.post(PATH, json={**said, "temperature": 9})
        spans = 4 * 2 * len(NAMES)
        await until(lambda: len(otlp.spans()) >= spans and bool(otlp.metrics), "nothing exported")
        assert {PROMPT, OF_GRPC} <= canaries.registered()
        assert all(len(each.events("serving")) == 1 for each in (service, bridge))
        assert service.events("call")
        assert bridge.events("request")
        for each in (service, bridge):
            assert (await each.event("serving"))["metrics_port"]
    assert canaries.found() == []
