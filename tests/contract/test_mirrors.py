"""Every source file has a test file in `tests/unit`, or a line here that names its tests.

protos/chatcompletion/a/b.py    tests/unit/a/test_b.py
process/b.py                    tests/unit/process/test_b.py
service/a/b.py                  tests/unit/service/a/test_b.py
service/simulator/b.py          tests/unit/simulator/test_b.py
restbridge/a/b.py               tests/unit/restbridge/a/test_b.py
chat/b.py                       tests/unit/chat/test_b.py
"""

from pathlib import Path
from typing import Final

from tests.support.tree import ROOT

THROUGH_ITS_USER: Final = {
    "protos/chatcompletion/openai_json/codec_errors.py": "tests/unit/openai_json/test_documents.py",
    "protos/chatcompletion/openai_json/lenient_values.py": "tests/unit/openai_json/test_syntax.py",
    "protos/chatcompletion/openai_json/readers.py": "tests/contract/test_golden.py",
    "protos/chatcompletion/openai_json/strict_values.py": "tests/unit/openai_json/test_syntax.py",
    "protos/chatcompletion/openai_json/wire_form.py": "tests/unit/openai_json/test_wire_chunks.py",
    "protos/chatcompletion/openai_json/writers.py": "tests/contract/test_golden.py",
    "restbridge/answers.py": "tests/unit/restbridge/test_error_middleware.py",
    "restbridge/forward.py": "tests/unit/restbridge/test_chat_completions.py",
    "service/accounts/terminal.py": "tests/unit/service/test_cli.py",
    "service/upstream_metrics.py": "tests/unit/service/upstream/test_upstreams.py",
    "service/event_settings.py": "tests/unit/service/test_config.py",
    "service/upstream/bodies.py": "tests/unit/service/upstream/test_client.py",
    "service/upstream/client_failures.py": "tests/unit/service/upstream/test_client.py",
    "service/upstream/client_limits.py": "tests/unit/service/upstream/test_upstreams.py",
    "service/upstream/dispatch.py": "tests/unit/service/upstream/test_client.py",
    "service/upstream/sent_request.py": "tests/unit/service/upstream/test_client.py",
    "service/upstream/transport/prepared.py": "tests/unit/service/upstream/test_client.py",
    "service/validation/survey.py": "tests/unit/service/validation/test_contract.py",
    "service/upstream/visit.py": "tests/unit/service/upstream/test_client.py",
    "service/upstream_dialect.py": "tests/unit/service/test_dialect_document.py",
    "service/metering/price.py": "tests/unit/service/metering/test_bound.py",
    "service/metering/output_size.py": "tests/unit/service/metering/test_progress.py",
    "service/models_source.py": "tests/unit/service/test_config.py",
    "service/model_entries.py": "tests/unit/service/test_models_document.py",
    "service/request.py": "tests/unit/service/test_servicer.py",
    "service/simulator/config.py": "tests/unit/simulator/test_main.py",
    "service/validation/aliases.py": "tests/unit/service/validation/test_dialects.py",
}
"""A part of one other file, which is tested through it."""

WITH_SOCKETS: Final = {
    "chat/__main__.py": "tests/e2e/test_chat.py",
    "chat/grpc_door.py": "tests/e2e/test_chat.py",
    "chat/prompting.py": "tests/e2e/test_chat.py",
    "chat/rest_door.py": "tests/e2e/test_chat.py",
    "chat/scripts.py": "tests/e2e/test_wheel.py",
    "process/launch.py": "tests/e2e/test_wheel.py",
    "process/interrupts.py": "tests/faults/test_interrupted_start.py",
    "process/lifetime.py": "tests/faults/test_process.py",
    "process/taken_ports.py": "tests/faults/test_shared_ports.py",
    "process/workers/child.py": "tests/e2e/test_workers.py",
    "process/workers/plan.py": "tests/e2e/test_workers.py",
    "process/workers/ports.py": "tests/faults/test_shared_ports.py",
    "process/workers/supervisor.py": "tests/e2e/test_workers.py",
    "process/workers/telemetry.py": "tests/e2e/test_workers.py",
    "process/workers/worker.py": "tests/e2e/test_workers.py",
    "process/scripts.py": "tests/e2e/test_wheel.py",
    "restbridge/app.py": "tests/e2e/test_bridge_requests.py",
    "restbridge/clock.py": "tests/e2e/test_bridge_streams.py",
    "restbridge/credits.py": "tests/e2e/test_accounts_credits.py",
    "restbridge/quote_route.py": "tests/e2e/test_quotes.py",
    "restbridge/http/edge.py": "tests/e2e/test_bridge_requests.py",
    "restbridge/http/handshakes.py": "tests/faults/test_tls.py",
    "restbridge/probes.py": "tests/e2e/test_bridge_replicas.py",
    "restbridge/scripts.py": "tests/e2e/test_wheel.py",
    "restbridge/server.py": "tests/e2e/test_bridge_streams.py",
    "restbridge/standalone.py": "tests/e2e/test_standalone.py",
    "service/open_webhooks.py": "tests/faults/test_webhooks.py",
    "service/webhook_metrics.py": "tests/faults/test_webhooks.py",
    "service/webhooks/delivery.py": "tests/faults/test_webhooks.py",
    "service/webhooks/endpoint.py": "tests/faults/test_webhooks.py",
    "service/accounts/backup.py": "tests/faults/test_store_backup.py",
    "service/accounts/credit_servicer.py": "tests/e2e/test_accounts_credits.py",
    "service/accounts/audit.py": "tests/e2e/test_accounts_admin.py",
    "service/accounts/key_rows.py": "tests/unit/service/accounts/test_lifecycle.py",
    "service/accounts/messages.py": "tests/e2e/test_accounts_admin.py",
    "service/accounts/operations.py": "tests/e2e/test_accounts_admin.py",
    "service/admin.py": "tests/e2e/test_admin_listener.py",
    "service/health.py": "tests/faults/test_request_message.py",
    "service/quotes.py": "tests/e2e/test_quotes.py",
    "service/probes.py": "tests/faults/test_request_message.py",
    "service/reflection.py": "tests/faults/test_process.py",
    "service/reloading.py": "tests/faults/test_reloading.py",
    "service/idempotency/completions.py": "tests/e2e/test_idempotency.py",
    "service/idempotency/recording.py": "tests/e2e/test_idempotency.py",
    "service/idempotency/runs.py": "tests/e2e/test_idempotency.py",
    "service/request_message.py": "tests/faults/test_request_message.py",
    "service/scripts.py": "tests/e2e/test_wheel.py",
    "service/open_accounts.py": "tests/e2e/test_bootstrap.py",
    "service/server.py": "tests/faults/test_draining.py",
    "service/start_error.py": "tests/faults/test_store_sqlite.py",
    "service/check.py": "tests/e2e/test_check.py",
    "service/upstream/model_listing.py": "tests/e2e/test_check.py",
    "service/upstream/prompt_sizes.py": "tests/e2e/test_measuring.py",
    "service/upstream/single_request.py": "tests/e2e/test_check.py",
    "service/listener_tls.py": "tests/faults/test_tls.py",
    "service/simulation.py": "tests/faults/test_process.py",
    "service/simulator/connection.py": "tests/faults/test_simulator.py",
    "service/simulator/error_objects.py": "tests/faults/test_simulator.py",
    "service/simulator/exchange.py": "tests/faults/test_simulator.py",
    "service/simulator/faults/whole_answers.py": "tests/faults/test_simulator_faults.py",
    "service/simulator/faults/connections.py": "tests/faults/test_simulator_faults.py",
    "service/simulator/faults/fault.py": "tests/faults/test_simulator_faults.py",
    "service/simulator/faults/framing.py": "tests/faults/test_simulator_faults.py",
    "service/simulator/faults/streams.py": "tests/faults/test_simulator_faults.py",
    "service/simulator/faults/usages.py": "tests/faults/test_simulator_faults.py",
    "service/simulator/scripts.py": "tests/faults/test_simulator.py",
    "service/simulator/server.py": "tests/faults/test_simulator.py",
    "service/simulator/streaming.py": "tests/faults/test_simulator.py",
    "service/upstream/transport/connection.py": "tests/faults/transport/test_connections.py",
    "service/upstream/transport/dialing.py": "tests/faults/transport/test_dialing.py",
    "service/upstream/transport/http11.py": "tests/faults/transport/test_requests.py",
    "service/upstream/transport/pool.py": "tests/faults/transport/test_connections.py",
}
"""Files at the edge of a process, which tests reach through sockets."""

WITH_DATABASES: Final = {
    "service/accounts/budget_commands.py": "tests/e2e/test_budget_pages.py",
    "service/accounts/budget_requests.py": "tests/e2e/test_budgets.py",
    "service/accounts/budget_rows.py": "tests/e2e/test_budgets.py",
    "service/accounts/bootstrap.py": "tests/e2e/test_bootstrap.py",
    "service/accounts/account_commands.py": "tests/e2e/test_accounts_cli.py",
    "service/accounts/asking.py": "tests/e2e/test_accounts_cli.py",
    "service/accounts/callers.py": "tests/e2e/test_accounts_credits.py",
    "service/accounts/columns.py": "tests/e2e/test_accounts_cli.py",
    "service/accounts/commands.py": "tests/e2e/test_accounts_cli.py",
    "service/accounts/export_command.py": "tests/e2e/test_usage_export.py",
    "service/accounts/key_commands.py": "tests/e2e/test_accounts_cli.py",
    "service/accounts/report_commands.py": "tests/e2e/test_accounts_cli.py",
    "service/accounts/reports.py": "tests/e2e/test_accounts_admin.py",
    "service/accounts/store_commands.py": "tests/e2e/test_accounts_cli.py",
    "service/cli_arguments.py": "tests/unit/service/test_cli.py",
    "service/cli_values.py": "tests/unit/service/test_cli.py",
    "service/accounts/verification.py": "tests/e2e/test_accounts_cli.py",
    "service/accounts/event_commands.py": "tests/e2e/test_events_page.py",
    "service/ledger/outbox.py": "tests/faults/test_outbox.py",
    "service/ledger/pipeline.py": "tests/faults/test_pipeline.py",
    "service/ledger/postgres_session.py": "tests/faults/test_store_pgbouncer.py",
    "service/ledger/postgres_statements.py": "tests/faults/test_store_postgres.py",
    "service/ledger/schema.py": "tests/faults/test_store_migrations.py",
    "service/ledger/sqlite.py": "tests/faults/test_store_sqlite.py",
    "service/ledger/sqlite_statements.py": "tests/faults/test_store_sqlite.py",
    "service/ledger/statements.py": "tests/faults/test_store_sqlite.py",
    "service/ledger/store.py": "tests/contract/test_accounts_machine.py",
}
"""Files with SQL, which only the databases can test."""

OF_NO_FILE: Final = {
    "tests/unit/openai_json/test_syntax.py": "what is JSON: lenient_values.py, strict_values.py",
    "tests/unit/restbridge/http/test_uvicorn.py": "the private names of uvicorn",
    "tests/unit/service/ledger/test_decided_budgets.py": "budgets and groups: decisions.py",
    "tests/unit/service/test_grpcio.py": "the private names of grpcio",
    "tests/unit/simulator/test_faults_table.py": "every fault, as a table",
}
"""The subjects of test files without a source file."""


def mirror(source: Path) -> Path:
    """Return the path of the unit tests of a source file."""
    parts = source.parts
    if parts[0] == "protos":
        parts = parts[2:]
    elif parts[:2] == ("service", "simulator"):
        parts = parts[1:]
    return Path("tests/unit", *parts[:-1], f"test_{parts[-1].lstrip('_').replace('__', '')}")


def sources() -> set[Path]:
    """Return the handwritten source files that contain code."""
    return {
        path.relative_to(ROOT)
        for top in ("protos/chatcompletion", "process", "service", "restbridge", "chat")
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__init__.py" and "_pb2" not in path.name and "migrations" not in path.parts
    }


def test_every_source_file_has_a_mirror_or_a_line_that_says_where_it_is_tested() -> None:
    without = {source for source in sources() if not (ROOT / mirror(source)).exists()}
    tables = (THROUGH_ITS_USER, WITH_SOCKETS, WITH_DATABASES)
    said = {Path(source) for table in tables for source in table}
    assert without == said
    assert len(said) == sum(map(len, tables))
    for table in tables:
        assert [name for name in table.values() if not (ROOT / name).exists()] == []


def test_every_unit_test_file_is_a_mirror_or_says_what_it_tests() -> None:
    mirrors = {mirror(source) for source in sources()}
    files = {path.relative_to(ROOT) for path in (ROOT / "tests/unit").rglob("test_*.py")}
    of_no_file = {path for path in files - mirrors if path.parent.name != "support"}
    assert of_no_file == set(map(Path, OF_NO_FILE))
