"""Outside suites against both deployables, as a table: `make conformance`.

python -m tests.conformance            every suite
python -m tests.conformance NAME ...   suites whose names contain one of the names

The exit status is 1 if a case failed that `known.toml` does not list, or passed that it lists.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from tests.conformance import fuzzing, grpc_suites, http_suites
from tests.conformance.outcomes import Known, Outcome, known_failures
from tests.conformance.target import Target, running

_Run = Callable[[Target, Sequence[Known]], Awaitable[Outcome | Sequence[Outcome]]]

SUITES: Final[dict[str, _Run]] = {
    "connectconformance": lambda _, known: grpc_suites.connectconformance(known),
    "h2spec (callers)": lambda at, known: grpc_suites.h2spec(at.grpc, "callers", known),
    "h2spec (operators)": lambda at, known: grpc_suites.h2spec(at.admin, "operators", known),
    "grpc-health-probe, grpcurl, ghz": grpc_suites.clients,
    "gunicorn's requests": http_suites.requests,
    "httplint": http_suites.responses,
    "schemathesis": http_suites.openapi,
    "hypothesis": fuzzing.rpcs,
    "atheris": fuzzing.parsers,
}
"""The suites, by name. Each returns one outcome or several."""


async def _run(names: Sequence[str]) -> AsyncIterator[Outcome]:
    known = known_failures()
    async with running() as target:
        for name, suite in SUITES.items():
            if names and not any(wanted in name for wanted in names):
                continue
            began = time.monotonic()
            found = await suite(target, known)
            outcomes = [found] if isinstance(found, Outcome) else found
            seconds = (time.monotonic() - began) / len(outcomes)
            for outcome in outcomes:
                yield replace(outcome, seconds=seconds)


async def _print(names: Sequence[str]) -> int:
    failures: list[str] = []
    print(f"{'suite':24}{'pass':>8}{'fail':>8}{'known':>8}{'seconds':>10}")
    async for outcome in _run(names):
        row = f"{outcome.suite:24}{outcome.passed:8}{len(outcome.failed):8}{outcome.known:8}"
        print(f"{row}{outcome.seconds:10.1f}", flush=True)
        failures += [f"{outcome.suite}: {failure}" for failure in outcome.failed]
    for failure in failures:
        print(failure, file=sys.stderr)
    return min(len(failures), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("name", nargs="*", help="a part of the name of a suite")
    sys.exit(asyncio.run(_print(parser.parse_args().name)))
