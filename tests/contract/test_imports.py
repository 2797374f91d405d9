"""The allowed imports, checked against the source.

restbridge -> chatcompletion <- service        process, service/simulator -> none of ours
restbridge ->    process     <- service         chat -> chatcompletion, process

service, from above to below:
    __main__  scripts
    reloading
    server
    admin  cli  simulation  open_accounts
    idempotency
    servicer  interceptors  probes
    admission  validation  config
    event_settings
    webhooks
    authentication  settlement  upstream
    accounts  metering  health  request_message  rate_limit_headers  models_source  start_lines
    call  ledger  request  models_document
    model_entries  call_trace  load_reports
    models  dialect_document  errors  telemetry  simulator  listeners
    upstream_metrics
    model_names  orca_messages  upstream_dialect  upstream_report

LAYERS also lists the layers within the larger packages.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {
    "chatcompletion": ROOT / "protos" / "chatcompletion",
    "process": ROOT / "process",
    "service": ROOT / "service",
    "restbridge": ROOT / "restbridge",
    "chat": ROOT / "chat",
}

LAYERS = {
    "process": (
        {"workers", "exporting"},
        {"tracing", "otlp_metrics"},
        {"otlp_export"},
        {"tls"},
        {"in_process", "lifetime", "metrics", "probe", "scripts", "distribution", "taken_ports"},
        {"descriptors", "unix_sockets", "otel_settings", "free_memory"},
        {"trace_context"},
        {"log", "request_id", "settings", "command_line", "launch"},
        {"found_values", "randomness", "variables", "log_text", "interrupts", "whole_operations"},
    ),
    "process.tls": (
        {"watching", "plaintext"},
        {"credentials"},
        {"files", "failures"},
    ),
    "process.workers": (
        {"supervisor", "worker"},
        {"child", "sums"},
        {"arguments", "frames", "plan", "ports", "restarts", "telemetry"},
    ),
    "service": (
        {"__main__", "scripts"},
        {"reloading"},
        {"server"},
        {"admin", "simulation", "cli", "open_accounts", "open_webhooks"},
        {"measuring", "cli_arguments"},
        {"check", "cli_values"},
        {"idempotency"},
        {"servicer", "interceptors", "probes"},
        {"quotes"},
        {"admission", "validation", "config"},
        {"event_settings"},
        {"webhooks"},
        {"authentication", "settlement", "upstream", "listener_tls", "budget_failures"},
        {"receipts"},
        {
            *("accounts", "metering", "health", "request_message", "rate_limit_headers"),
            *("models_source", "start_lines", "start_error", "probe_bounds"),
        },
        {"call", "ledger", "request", "models_document"},
        {"price_members"},
        {"model_entries", "call_trace", "load_reports"},
        {
            "models",
            "dialect_document",
            "errors",
            "telemetry",
            "simulator",
            "listeners",
            "reflection",
        },
        {"upstream_metrics", "webhook_metrics"},
        {
            *("certificate_identity", "credit_worth", "handshake_reports", "model_names"),
            *("orca_messages", "time_zones", "upstream_dialect", "upstream_report"),
        },
    ),
    "service.ledger": (
        {"housekeeping"},
        {"quoting"},
        {"stored_answers", "batches", "migrations", "journal", "history", "outbox"},
        {"store"},
        {"postgres", "sqlite"},
        {"postgres_session"},
        {"postgres_statements", "sqlite_statements", "database"},
        {"decisions", "statements", "usage"},
        {"claims", "entry_events"},
        {"rows"},
        {
            "rate_limits",
            "budgets",
            "ids",
            "schema",
            "pipeline",
            "coalescing",
            "turns",
            "postgres_address",
            "append_only",
        },
    ),
    "service.accounts": (
        {"account_servicer", "credit_servicer", "commands", "bootstrap", "bootstrap_key"},
        {
            *("account_commands", "budget_commands", "key_commands", "report_commands"),
            *("event_commands", "export_command"),
        },
        {"asking"},
        {"operations", "store_access", "store_commands"},
        {"budget_requests"},
        {"backup"},
        {"messages", "columns"},
        {"directory", "verification", "export"},
        {"lifecycle", "callers", "reports"},
        {"budget_rows"},
        {"audit"},
        {"guesses", "key_rows", "keys", "field_rules", "page_tokens", "terminal", "months"},
    ),
    "service.idempotency": (
        {"completions", "upkeep"},
        {"runs"},
        {"recording"},
        {"idempotency_keys", "logs", "answer_form"},
    ),
    "service.webhooks": (
        {"delivery"},
        {"endpoint"},
        {"schedule", "cloud_events", "signatures"},
    ),
    "service.upstream": (
        {"client", "model_listing", "prompt_sizes"},
        {"dispatch"},
        {"chunks", "visit"},
        {"upstreams"},
        {"refusals", "breaker"},
        {"bodies"},
        {"account_faults", "model_faults", "mending", "retries", "rewriting", "silence", "sse"},
        {
            *("client_failures", "error_bodies", "scrubbing", "sent_request", "surrogates"),
            "single_request",
            *("bulkhead", "choosing", "client_limits", "key_ring", "verdicts"),
        },
        {"transport"},
        {"error_reasons"},
    ),
    "service.upstream.transport": (
        {"http11"},
        {"pool", "prepared"},
        {"connection", "dialing", "request_head"},
        {"parser"},
    ),
    "service.metering": (
        {"progress"},
        {"bound", "output_size"},
        {"price", "tokens", "overhead"},
        {"usage_parts"},
    ),
    "service.validation": (
        {"contract", "members"},
        {"aliases", "other_forms", "tool_names"},
        {"entry_counts", "dialects"},
        {"survey", "wording"},
    ),
    "restbridge": (
        {"__main__", "scripts"},
        {"standalone"},
        {"server"},
        {"app"},
        {"quote_route"},
        {"chat_completions", "model_routes", "credits", "pages", "probes", "error_middleware"},
        {"forward"},
        {"answers", "event_stream"},
        {"http"},
        {"telemetry"},
        {"channel", "error_responses"},
        {"clock", "config", "headers", "start_text", "wrong_urls", "exchange_trace"},
    ),
    "restbridge.http": (
        {"edge", "protocol", "handshakes"},
        {"head", "lazy_event"},
        {"limits"},
        {"exchange"},
    ),
    "chat": (
        {"__main__", "scripts"},
        {"prompting"},
        {"answering", "rest_door", "grpc_door"},
        {"events", "usage_line"},
        {"ask_error"},
    ),
}
"""The rooms of a package: each imports from the layers below its own only."""

STANDALONE = "restbridge.standalone"
"""Runs both deployables in one process."""

HTTP_CLIENTS = {"httpx", "aiohttp", "http.client", "urllib.request", "urllib3"}

CLIENT_MODULES = {
    "chat.rest_door",
    "service.upstream.bodies",
    "service.upstream.client",
    "service.upstream.client_failures",
    "service.upstream.dispatch",
    "service.upstream.model_listing",
    "service.upstream.prompt_sizes",
    "service.upstream.sent_request",
    "service.upstream.single_request",
    "service.upstream.visit",
    "service.webhooks.endpoint",
}
"""The modules, besides the transport, that import an HTTP client."""

CLIENT_PURE = {"chat.ask_error", "chat.events", "chat.usage_line"}
"""The modules of the terminal client that do no I/O."""

PURE = {
    "chatcompletion", "collections", "dataclasses", "decimal", "enum", "google.protobuf",
    "itertools", "json", "math", "msgspec", "re", "types", "typing",
}  # fmt: skip
"""The modules that the transcoding of messages can import. None of them does I/O."""


@dataclass(frozen=True, slots=True)
class Import:
    """A module, and a name that it imports: a module or something in one."""

    module: str
    imported: str

    def reaches(self, package: str) -> bool:
        """Whether the imported name is the package or in it."""
        return self.imported == package or self.imported.startswith(package + ".")


def _modules() -> Iterator[tuple[str, Path]]:
    for package, place in PLACES.items():
        for path in sorted(place.rglob("*.py")):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                parts = path.relative_to(place).with_suffix("").parts
                yield ".".join((package, *parts)).removesuffix(".__init__"), path


def _imports(module: str, path: Path) -> Iterator[Import]:
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, source]).rstrip(".")
            yield from (Import(module, f"{source}.{alias.name}") for alias in node.names)


MODULES = dict(_modules())
IMPORTS = [found for module, path in MODULES.items() for found in _imports(module, path)]


def _in(found: Import, package: str) -> bool:
    return found.module == package or found.module.startswith(package + ".")


def test_every_package_is_seen() -> None:
    for package in PLACES:
        assert any(module.startswith(package + ".") for module in MODULES)


def test_the_deployables_meet_on_the_wire_only() -> None:
    assert [
        found
        for found in IMPORTS
        if (_in(found, "service") and found.reaches("restbridge"))
        or (_in(found, "restbridge") and found.reaches("service") and found.module != STANDALONE)
    ] == []


@pytest.mark.parametrize("shared", ["chatcompletion", "process"])
def test_what_both_deployables_import_imports_itself_alone(shared: str) -> None:
    assert [
        found
        for found in IMPORTS
        if _in(found, shared)
        and any(found.reaches(package) for package in PLACES.keys() - {shared})
    ] == []


def test_the_terminal_client_imports_neither_deployable() -> None:
    assert [
        found
        for found in IMPORTS
        if (_in(found, "chat") and any(map(found.reaches, ("service", "restbridge"))))
        or (found.reaches("chat") and not _in(found, "chat"))
    ] == []


def test_the_pure_parts_of_the_terminal_client_do_no_input_or_output() -> None:
    assert [
        found
        for found in IMPORTS
        if found.module in CLIENT_PURE and not any(map(found.reaches, PURE | CLIENT_PURE))
    ] == []


def test_transcoding_messages_does_no_input_or_output() -> None:
    assert [
        found
        for found in IMPORTS
        if _in(found, "chatcompletion.openai_json")
        and not any(found.reaches(package) for package in PURE)
    ] == []
    assert [
        found
        for found in IMPORTS
        if _in(found, "chatcompletion.openai_json")
        and found.reaches("chatcompletion")
        and not found.reaches("chatcompletion.openai_json")
        and not found.reaches("chatcompletion.v1")
    ] == []


def test_the_simulator_imports_none_of_ours() -> None:
    assert [
        found
        for found in IMPORTS
        if _in(found, "service.simulator")
        and any(found.reaches(package) for package in PLACES)
        and not found.reaches("service.simulator")
    ] == []


def test_only_a_store_on_postgresql_imports_its_dialect() -> None:
    name = "sqlalchemy.dialects.postgresql"
    program = f"import sys, service.server; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0  # noqa: S603


def test_the_simulator_is_imported_only_where_it_runs() -> None:
    program = "import sys, service.server; sys.exit('service.simulator' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0  # noqa: S603


def test_opentelemetry_is_imported_only_where_it_exports() -> None:
    others = "restbridge.__main__, restbridge.server, service.__main__, service.server"
    program = f"import sys, {others}; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0  # noqa: S603


def test_one_file_and_its_transport_know_the_http_client() -> None:
    assert [
        found
        for found in IMPORTS
        if any(found.reaches(client) for client in HTTP_CLIENTS)
        and found.module not in CLIENT_MODULES
        and not _in(found, "service.upstream.transport")
    ] == []


def _room(package: str, module: str) -> str:
    """Return the room of a package that a module is, or is in; "" for the package itself."""
    return module.removeprefix(package).removeprefix(".").partition(".")[0]


@pytest.mark.parametrize("package", LAYERS)
def test_each_room_has_its_layer(package: str) -> None:
    rooms = {_room(package, module) for module in MODULES if module.startswith(f"{package}.")}
    drawn = [room for layer in LAYERS[package] for room in layer]
    assert sorted(drawn) == sorted(rooms)


@pytest.mark.parametrize("package", LAYERS)
def test_rooms_import_from_below(package: str) -> None:
    depth = {room: level for level, layer in enumerate(LAYERS[package]) for room in layer}
    upward = [
        found
        for found in IMPORTS
        if found.module.startswith(f"{package}.")
        and found.imported.startswith(f"{package}.")
        and (target := _room(package, found.imported)) != (room := _room(package, found.module))
        and depth[target] <= depth[room]
    ]
    assert upward == []


def test_the_environment_is_read_where_settings_are() -> None:
    readers = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
        or (isinstance(node, ast.alias) and node.name in {"environ", "environb", "getenv"})
    }
    assert {module.rpartition(".")[2] for module in readers} <= {"__main__", "config"}


def test_no_import_goes_round_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        target = found.imported
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        # A package's face imports its rooms; a room that names the package means another room.
        if target and not found.module.startswith(target + ".") and target != found.module:
            arrows[found.module].add(target)
    while arrows:
        leaves = {module for module, targets in arrows.items() if not targets & set(arrows)}
        assert leaves, f"among {sorted(arrows)}"
        arrows = {module: targets for module, targets in arrows.items() if module not in leaves}
