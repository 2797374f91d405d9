"""Removes secrets and internal names from the texts of an upstream.

    the key, the URL and the host of the upstream     [redacted]
    the upstream's name of the model                  the caller's name of it
    keys, ids of accounts, private hosts, addresses   [redacted]
    a link to a public host                           stays, without its query
    any other URL                                     [redacted]

Names and keys are removed as whole words: a model named "x" leaves `x-portkey-config` as it is.
A long key is removed anywhere. Each pattern takes linear time, because the upstream chooses the
text.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from service.models import Model

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}://\S+", re.IGNORECASE)
_PUBLIC: Final = re.compile(
    r"(https?://(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24})(/[^\s?#]*)?([?#]\S*)?", re.IGNORECASE
)
"""A link: its origin without user, port and address, its path, and its query."""
_PRIVATE_NAMES: Final = (
    *("internal", "local", "svc", "lan", "corp", "cluster", "localdomain", "home", "intranet"),
    *("private", "test", "invalid", "localhost", "arpa", "consul"),
)
"""The last labels of hosts of private networks."""
_SECRETS: Final = (
    re.compile(r"(?<![\w-])(?:org|proj|acct)[-_][A-Za-z0-9_-]{6,}"),
    # An ordinary word has neither digits nor capitals after the prefix: `user-provided`.
    re.compile(
        r"(?<![\w*.-])(?:user|key)[-_](?=[a-z_.*-]{0,128}[0-9A-Z*]|[\w.-]{16})"
        r"[A-Za-z0-9_*.-]{4,}"
    ),
    re.compile(r"(?<![\w-])(?:sk|pk|rk)-[A-Za-z0-9_*.-]{4,}"),
    re.compile(r"\bbearer\s+\S+", re.IGNORECASE),
    re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"),
    re.compile(r"\[?\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7}\]?(?::\d+)?", re.I),
    # Host names of private networks.
    re.compile(r"(?<![\w.-])[\w.-]+\.(?:internal|local|svc|lan|corp|cluster)\b[\w.:-]*", re.I),
)
_REDACTED: Final = "[redacted]"
_LONG_KEY: Final = 16
"""Minimum characters of a key that is removed anywhere. A shorter key, such as `EMPTY`, can be an
ordinary word; it is removed only as a whole word in the same case."""

LARGEST_MEMBERS: Final = 768
"""Maximum bytes of all members beside a message, so that the status fits into the trailers."""
_LONGEST_TEXT: Final = 256
_MOST_ENTRIES: Final = 32
_DEEPEST: Final = 6


def scrub(text: str, model: Model) -> str:
    """Remove secrets and internal names from an upstream's text."""
    upstream = model.upstream
    for key in (*upstream.keys, *model.dialect.secrets):
        if len(key) >= _LONG_KEY:
            text = re.sub(re.escape(key), _REDACTED, text, flags=re.IGNORECASE)
        elif key:
            text = re.sub(rf"(?<![\w-]){re.escape(key)}(?![\w-])", _REDACTED, text)
    if upstream.base_url:
        text = re.sub(re.escape(upstream.base_url), _REDACTED, text, flags=re.IGNORECASE)
    host = urlsplit(upstream.base_url).hostname or ""
    text = _URL.sub(lambda found: _link(found[0], host), text)
    if host:
        text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", _REDACTED, text, flags=re.I)
    name = re.escape(model.upstream_model)
    text = re.sub(rf"(?<![\w/-]){name}(?![\w/-])", lambda _: model.name, text)
    for pattern in _SECRETS:
        text = pattern.sub(_REDACTED, text)
    return text


def _link(url: str, host: str) -> str:
    """Return a link to a public host without its query; otherwise, redact it."""
    found = _PUBLIC.fullmatch(url.rstrip(".,;:!?)]}>\"'`"))
    if found is None:
        return _REDACTED
    name = urlsplit(found[1]).hostname or ""
    is_upstreams = host != "" and f".{name}".endswith(f".{host}")
    if is_upstreams or name.rpartition(".")[2] in _PRIVATE_NAMES:
        return _REDACTED
    end = url[len(found[0]) :]
    return f"{found[1]}{found[2] or ''}{'?' + _REDACTED if found[3] else ''}{end}"


def scrub_members(members: Mapping[str, Any], model: Model) -> dict[str, str]:
    """Return the members of an error object as JSON texts, scrubbed and up to `LARGEST_MEMBERS`.

    A member that does not fit is left out.
    """
    kept: dict[str, str] = {}
    left = LARGEST_MEMBERS
    for name, value in members.items():
        text = json.dumps(_scrubbed(value, model, _DEEPEST), ensure_ascii=False)
        size = len(name.encode(errors="replace")) + len(text.encode(errors="replace"))
        if size <= left and scrub(name, model) == name and name.isprintable():
            kept[name] = text
            left -= size
    return kept


def _scrubbed(value: Any, model: Model, depth: int) -> Any:
    match value:
        case str():
            whole = value.encode(errors="replace").decode()
            return scrub(whole, model)[:_LONGEST_TEXT]
        case list() if depth:
            return [_scrubbed(item, model, depth - 1) for item in value[:_MOST_ENTRIES]]
        case dict() if depth:
            return {
                _scrubbed(name, model, 1): _scrubbed(inner, model, depth - 1)
                for name, inner in list(value.items())[:_MOST_ENTRIES]
            }
        case list() | dict():
            return None
    return value
