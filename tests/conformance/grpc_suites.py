"""Outside suites and clients of gRPC and HTTP/2, as programs.

connectconformance    our options and interceptor under its gRPC tests of servers
h2spec                HTTP/2, on both listeners
grpc-health-probe     grpc.health.v1, on both listeners
grpcurl, ghz          calls by reflection alone, without the contract's files
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from xml.etree import ElementTree

from tests.conformance.outcomes import Known, Outcome, judge
from tests.conformance.programs import ROOT, TOOLS, Finished, run
from tests.conformance.target import MODEL, Target

HERE: Final = Path(__file__).parent

_NOT_XML: Final = re.compile(r"&#x?[0-9A-Fa-f]+;|[^\t\n -~]")
_FAILED: Final = re.compile(r"^(?:FAILED|INFO): (.+?)(?: \(.*\))?:\n\t(.+)$", re.MULTILINE)
_TOTALS: Final = re.compile(r"^(\d+) passed, (\d+) failed", re.MULTILINE)
_CREATE: Final = "chatcompletion.v1.ChatCompletionService/CreateChatCompletion"
_STREAM: Final = "chatcompletion.v1.ChatCompletionService/StreamChatCompletion"


async def connectconformance(known: Sequence[Known]) -> Outcome:
    """Run connectconformance against our options and our interceptor."""
    module = await run(
        *("go", "list", "-C", HERE / "tools", "-m", "-f", "{{.Dir}}", "connectrpc.com/conformance"),
        longest=60,
    )
    protos = Path(module.output.strip(), "proto")
    ended = await run(
        *(TOOLS / "connectconformance", "--mode", "server", "--conf", HERE / "connect.yaml"),
        *("--max-servers", "1", "--"),
        *(sys.executable, "-m", "tests.conformance.connect_server", protos),
        longest=240,
        environment={"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
    )
    totals = _TOTALS.search(ended.output)
    if totals is None:
        return judge("connectconformance", (), {"the suite": ended.output[-2000:]}, known)
    failed = dict(_FAILED.findall(ended.output))
    passed = [f"case {number}" for number in range(int(totals[1]))]
    assert len(failed) == int(totals[2]), ended.output
    return judge("connectconformance", passed, failed, known)


async def h2spec(address: str, listener: str, known: Sequence[Known]) -> Outcome:
    """Run h2spec against a listener.

    Args:
        address: As host:port.
        listener: The name of the listener, for the table.
        known: The known failures of every suite.
    """
    host, _, port = address.rpartition(":")
    with TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        await run(
            *(TOOLS / "h2spec", "-h", host, "-p", port, "-P", "/grpc.health.v1.Health/Check"),
            *("-o", "1", "-j", report),
            longest=120,
        )
        # It holds bytes of frames, which XML does not allow.
        written = report.read_text(errors="replace")  # noqa: ASYNC240  (small)
        text = _NOT_XML.sub("?", written)
        root = ElementTree.fromstring(text)  # noqa: S314  (of a local program)
        passed, failed = _sorted(root.iter("testcase"))
    outcome = judge("h2spec", passed, failed, known)
    return Outcome(
        suite=f"h2spec ({listener})",
        passed=outcome.passed,
        failed=outcome.failed,
        known=outcome.known,
    )


def _sorted(cases: Iterable[ElementTree.Element]) -> tuple[list[str], dict[str, str]]:
    passed, failed = [], {}
    for case in cases:
        name = f"{case.get('package')} {case.get('classname')}"
        fault = case.find("error")
        if fault is not None:
            failed[name] = " ".join("".join(fault.itertext()).split())
        elif case.find("skipped") is None:
            passed.append(name)
    return passed, failed


async def clients(target: Target, known: Sequence[Known]) -> Sequence[Outcome]:
    """Run the clients that know the service only by its health and reflection."""
    return [
        await _cases("grpc-health-probe", _probes(target), known),
        await _cases("grpcurl", _grpcurl(target), known),
        await _cases("ghz", _ghz(target), known),
    ]


_Case = tuple[Sequence[str], str]
"""The arguments of a program, and a text that its output must contain."""


async def _cases(program: str, cases: Mapping[str, _Case], known: Sequence[Known]) -> Outcome:
    passed, failed = [], {}
    for name, (arguments, expected) in cases.items():
        ended: Finished = await run(TOOLS / program, *arguments, longest=60)
        if expected in ended.output:
            passed.append(name)
        else:
            failed[name] = f"no {expected!r} in {ended.output[-500:]!r}"
    return judge(program, passed, failed, known)


def _probes(target: Target) -> Mapping[str, _Case]:
    names = ("", "liveness", "chatcompletion.v1.ChatCompletionService")
    callers: dict[str, _Case] = {
        f"callers {name!r}": ((f"-addr={target.grpc}", f"-service={name}"), "status: SERVING")
        for name in names
    }
    return {
        **callers,
        "callers 'no'": ((f"-addr={target.grpc}", "-service=no"), "NotFound"),
        "operators ''": ((f"-addr={target.admin}",), "status: SERVING"),
    }


def _grpcurl(target: Target) -> Mapping[str, _Case]:
    key = ("-H", f"authorization: Bearer {target.key}")
    token = ("-H", f"authorization: Bearer {target.token}")
    plain = ("-plaintext",)
    return {
        "list": ((*plain, target.grpc, "list"), "chatcompletion.v1.ModelService"),
        **{
            f"describe {symbol}": ((*plain, target.grpc, "describe", symbol), expected)
            for symbol, expected in (
                (_CREATE.replace("/", "."), "is a method"),
                ("chatcompletion.v1.ErrorDetail", "is a message"),
                ("google.rpc.BadRequest", "is a message"),
                ("google.rpc.Status", "is a message"),
                ("grpc.reflection.v1.ServerReflection", "is a service"),
            )
        },
        "create": ((*plain, *key, "-d", _document(), target.grpc, _CREATE), '"finish_reason"'),
        "stream": ((*plain, *key, "-d", _document(), target.grpc, _STREAM), '"finish_reason"'),
        "health": ((*plain, target.grpc, "grpc.health.v1.Health/List"), '"liveness"'),
        "a failure with its details": (
            (*plain, *key, "-d", "{}", target.grpc, _CREATE),
            '"@type": "type.googleapis.com/google.rpc.BadRequest"',
        ),
        "operators": (
            (*plain, *token, target.admin, "chatcompletion.v1.AccountService/ListAccounts"),
            '"accounts"',
        ),
    }


def _ghz(target: Target) -> Mapping[str, _Case]:
    key = json.dumps({"authorization": f"Bearer {target.key}"})
    usual = ("--insecure", "-n", "100", "-c", "10", "-d", _document(), "-m", key)
    return {
        method: ((*usual, "--call", method.replace("/", "."), target.grpc), "[OK]   100 responses")
        for method in (_CREATE, _STREAM)
    }


def _document() -> str:
    return json.dumps(
        {
            "params": {
                "model": MODEL,
                "max_tokens": 2,
                "messages": [{"role": "user", "content_text": "Hello"}],
            }
        }
    )
