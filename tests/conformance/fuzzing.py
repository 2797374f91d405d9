"""Generated inputs: hypothesis on the RPCs, atheris on the parsers."""

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from chatcompletion.reasons import RULES
from chatcompletion.v1.chat_completion_service_pb2 import CreateChatCompletionRequest
from tests.conformance.outcomes import Known, Outcome, judge
from tests.conformance.programs import ROOT, run
from tests.conformance.target import MODEL, Target
from tests.support.grpc_client import failed

_EXAMPLES: Final = 300
_RUNS: Final = 50_000
_LONGEST_FUZZING: Final = 45
_DONE: Final = re.compile(r"Done (\d+) (?:runs )?in", re.MULTILINE)

_SEEDS: Final = {
    "events": (
        b"data: a\n\n",
        b"event: error\r\ndata: {}\r\rdata\n\n",
        b"\xef\xbb\xbf: x\ndata:\n\n",
    ),
    "documents": (
        b'{"model":"m","messages":[{"role":"user","content":"a"}]}',
        b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}',
        b'{"error":{"message":"m","type":"t","param":null,"code":null}}',
    ),
}


async def parsers(_: Target, known: Sequence[Known]) -> Sequence[Outcome]:
    """Run atheris on each parser: the outcome counts its inputs."""
    return [await _fuzzed(name, seeds, known) for name, seeds in _SEEDS.items()]


async def _fuzzed(name: str, seeds: Sequence[bytes], known: Sequence[Known]) -> Outcome:
    suite = f"atheris ({name})"
    with TemporaryDirectory() as directory:
        for number, text in enumerate(seeds):
            Path(directory, str(number)).write_bytes(text)  # noqa: ASYNC240  (small)
        ended = await run(
            *(sys.executable, "-m", "tests.conformance.fuzz_target", name),
            *("-seed=1", "-max_len=2048", f"-runs={_RUNS}"),
            *(f"-max_total_time={_LONGEST_FUZZING}", f"-artifact_prefix={directory}/", directory),
            longest=2 * _LONGEST_FUZZING,
            environment={"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        )
    done = _DONE.search(ended.output)
    if ended.status != 0 or done is None:
        return judge(suite, (), {name: ended.output[-3000:]}, known)
    return judge(suite, [str(number) for number in range(int(done[1]))], {}, known)


# --------------------------------------------------------------------------------------- hypothesis

_TEXTS: Final = st.text(max_size=20)
_NUMBERS: Final = st.one_of(
    st.floats(), st.integers(-(2**31), 2**31 - 1), st.sampled_from((0, 1, 2, -1))
)
_JSON: Final = st.sampled_from(("1", "null", "[]", '{"a":1}', '"x"', "[", "", "NaN", '"\\ud800"'))


@st.composite
def _requests(draw: Any) -> CreateChatCompletionRequest:
    """Return a request that can be valid in some members and invalid in others."""
    request = CreateChatCompletionRequest()
    params = request.params
    params.model = draw(st.sampled_from((MODEL, MODEL, MODEL, "no")))
    for _ in range(draw(st.integers(0, 3))):
        message = params.messages.add(role=draw(st.sampled_from(("user", "system", "tool", "x"))))
        if draw(st.booleans()):
            message.content_text = draw(_TEXTS)
        else:
            message.extra_json[draw(_TEXTS)] = draw(_JSON)
        message.null_fields = draw(st.binary(max_size=2))
    if draw(st.booleans()):
        params.max_tokens = draw(st.integers(-1, 5))
    if draw(st.booleans()):
        params.temperature = draw(st.floats())
    for name in draw(st.lists(st.sampled_from(("user", "stop", "x", "tools", "n")), max_size=2)):
        params.extra_json[name] = draw(_JSON)
    params.null_fields = draw(st.binary(max_size=3))
    return request


async def rpcs(target: Target, known: Sequence[Known]) -> Outcome:
    """Call both RPCs with generated messages. Each ends with OK or a reason of the contract."""
    return await asyncio.to_thread(_call_all, target, known)


def _call_all(target: Target, known: Sequence[Known]) -> Outcome:
    passed: list[str] = []
    unexpected: dict[str, str] = {}
    service = "/chatcompletion.v1.ChatCompletionService"
    metadata = (("authorization", f"Bearer {target.key}"),)
    with grpc.insecure_channel(target.grpc) as channel:
        create: Any = channel.unary_unary(f"{service}/CreateChatCompletion")
        stream: Any = channel.unary_stream(f"{service}/StreamChatCompletion")

        def call(data: bytes) -> None:
            for method in (create, lambda *args, **more: list(stream(*args, **more))):
                try:
                    method(data, metadata=metadata, timeout=20)
                except grpc.RpcError as error:
                    reason = failed(error).reason  # type: ignore[arg-type]
                    if reason not in RULES or reason == "INTERNAL":
                        unexpected[data.hex()] = str(error)
                        return
            passed.append(data.hex())

        _each(_requests(), lambda request: call(request.SerializeToString()))
        _each(st.binary(max_size=200), call)
    return judge("hypothesis", passed, unexpected, known)


def _each(values: st.SearchStrategy[Any], call: Callable[[Any], None]) -> None:
    """Call a function with the same generated values in each run."""

    @seed(1)
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def run_all(value: Any) -> None:
        call(value)

    run_all()
