"""What --standalone prints for the person who starts it.

REST      http://127.0.0.1:8080/v1
…
export CHAT_KEY=…
curl -N …
"""

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from process.settings import Listen, UnixAddress


def start_text(
    rest: Listen,
    *,
    grpc: str,
    metrics: Sequence[Listen | None],
    upstream: str,
    key: str,
    kept_in: str,
    pages: bool,
    models: Iterable[str],
    ca: str,
    model: str,
) -> str:
    """Return the text.

    Args:
        rest: The address of the HTTP listener, for clients on this machine.
        grpc: The address of the gRPC listener.
        metrics: The addresses of the metrics; None for one that is off.
        upstream: The upstreams, in words.
        key: The API key.
        kept_in: The file that keeps the key; "" for none.
        pages: Whether the bridge serves pages.
        models: A line for each model.
        ca: The certificate of the HTTP listener; "" without TLS.
        model: The model of the curl command.
    """
    origin = _origin(rest, "https" if ca else "http")
    lines = {
        "REST": f"{rest}, base URL {origin}/v1" if _is_unix(rest) else f"{origin}/v1",
        "gRPC": grpc,
        "metrics": ", ".join(_metrics(listen) for listen in metrics if listen) or "none",
        "upstream": upstream,
        "API key": key,
    }
    if kept_in:
        lines["kept in"] = kept_in
    if pages and not _is_unix(rest):
        # The fragment of a URL is not sent. The page moves the key to the tab's storage.
        lines["browser"] = f"{origin}/playground#key={quote(key, safe='')}"
    if not _is_unix(rest):
        lines["terminal"] = f'{shlex.quote(sys.executable)} -m chat --base-url {origin}/v1 "Hello"'
    return "\n".join(
        (
            *(f"{name:<9} {value}" for name, value in lines.items()),
            *(f"model {line}" for line in models),
            "",
            f"export CHAT_KEY={shlex.quote(key)}",
            _curl(rest, origin, key, ca=ca, model=model),
        )
    )


def _is_unix(listen: Listen) -> bool:
    return isinstance(listen, UnixAddress)


def _origin(listen: Listen, scheme: str) -> str:
    return f"{scheme}://{'localhost' if isinstance(listen, UnixAddress) else listen}"


def _metrics(listen: Listen) -> str:
    return str(listen) if isinstance(listen, UnixAddress) else f"{_origin(listen, 'http')}/metrics"


def _curl(rest: Listen, origin: str, key: str, *, ca: str, model: str) -> str:
    messages = [{"role": "user", "content": "Hello!"}]
    body = json.dumps({"model": model, "messages": messages, "stream": True})
    words = (
        *("curl", "-N"),
        *(("--cacert", ca) if ca else ()),
        *(("--unix-socket", rest.path) if isinstance(rest, UnixAddress) else ()),
        f"{origin}/v1/chat/completions",
        *("-H", f"authorization: Bearer {key}", "-H", "content-type: application/json"),
        *("-d", body),
    )
    return f"\n{shlex.join(words)}\n"
