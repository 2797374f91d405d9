"""The simulator on the wire: its responses, its limits and its records."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from service.simulator import SimulatorConfig, SimulatorServer
from service.simulator.text import INTRODUCTION
from tests.faults.simulator_client import (
    MEBIBYTE,
    ask,
    completion_body,
    ended,
    read_until,
    request_bytes,
    send,
)


@pytest.fixture
async def server() -> AsyncIterator[SimulatorServer]:
    async with await SimulatorServer.start() as running:
        yield running


# ---- responses ----


async def test_a_unary_completion(server: SimulatorServer) -> None:
    answer = await ask(server, "any/model:name")

    assert answer.status == 200
    assert "server: chat-completion-simulator" in answer.head
    assert answer.document["model"] == "any/model:name"
    assert answer.document["choices"][0]["message"]["content"].startswith(INTRODUCTION)


async def test_a_streamed_completion(server: SimulatorServer) -> None:
    unary = await ask(server, "m", n=2)
    answer = await ask(server, "m", n=2, stream=True, stream_options={"include_usage": True})

    assert "content-type: text/event-stream" in answer.head
    assert answer.done
    assert answer.terminated
    assert answer.events[-1]["usage"] == unary.document["usage"]
    assert answer.finish_reasons == ["stop", "stop"]
    assert len(answer.chunks) == len(answer.payloads) + 1


async def test_the_same_request_gets_the_same_bytes() -> None:
    bodies = []
    for _ in range(2):
        async with await SimulatorServer.start(SimulatorConfig(seed=5)) as server:
            unary = await ask(server, "m", seed=7)
            streamed = await ask(server, "m", seed=7, stream=True)
            bodies.append((unary.raw, streamed.raw))
    assert bodies[0] == bodies[1]


async def test_a_stream_to_an_http_1_0_caller_ends_with_the_connection(
    server: SimulatorServer,
) -> None:
    data = request_bytes(completion_body("m", stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0")
    answer = await send(server, data)

    assert "transfer-encoding" not in answer.head
    assert answer.done


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/simulator", "simulator"),
        ("/v1/models/org%2Fmodel%3Atag", "org/model:tag"),
        ("/v1/models/org/model:tag?x=y", "org/model:tag"),
    ],
)
async def test_a_model_is_shown(server: SimulatorServer, path: str, model: str) -> None:
    answer = await send(server, request_bytes(b"", "connection: close", target=f"GET {path}"))

    assert answer.document["id"] == model
    assert server.records[0].scenario == "models"


async def test_the_models_are_listed(server: SimulatorServer) -> None:
    data = request_bytes(b"", "connection: close", target="GET /v1/models")
    answer = await send(server, data)

    assert [model["id"] for model in answer.document["data"]] == ["simulator"]


REFUSED: dict[str, tuple[bytes, int, str | None, str | None]] = {
    # name: (request, status, param, code)
    "unknown path": (request_bytes(b"{}", target="POST /v1/embeddings"), 404, None, None),
    "path without version": (
        request_bytes(b"{}", target="POST /chat/completions"),
        404,
        None,
        None,
    ),
    "wrong method": (request_bytes(b"", target="GET /v1/chat/completions"), 404, None, None),
    "no JSON": (request_bytes(b"{"), 400, None, None),
    "no model": (request_bytes(b'{"messages":[]}'), 400, None, None),
    "no messages": (
        request_bytes(b'{"model":"m"}'),
        400,
        "messages",
        "missing_required_parameter",
    ),
    "unknown fault": (
        request_bytes(completion_body("sim-fault:nonsense")),
        404,
        "model",
        "model_not_found",
    ),
    "unknown fault as a model": (
        request_bytes(b"", target="GET /v1/models/sim-fault:nonsense"),
        404,
        "model",
        "model_not_found",
    ),
    "unreadable timing": (
        request_bytes(completion_body("sim:ttft=soon")),
        400,
        "model",
        "invalid_model_name",
    ),
    "fault of the other form": (
        request_bytes(completion_body("sim-fault:no-done")),
        400,
        "stream",
        "invalid_value",
    ),
    "value out of range": (
        request_bytes(completion_body("sim-fault:hang-mid-stream=-1", stream=True)),
        400,
        "model",
        "invalid_value",
    ),
    "value that is no number": (
        request_bytes(completion_body("sim-fault:drip-body=soon")),
        400,
        "model",
        "invalid_value",
    ),
    "value that would forge a header": (
        request_bytes(completion_body("sim-fault:redirect=http://x/\r\nset-cookie: a=b")),
        400,
        "model",
        "invalid_value",
    ),
    "tool fault without a tool": (
        request_bytes(completion_body("sim-fault:cut-tool-call", stream=True)),
        400,
        "tool_choice",
        "invalid_value",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_wrong_request_is_refused_with_an_error_object(
    server: SimulatorServer, name: str
) -> None:
    data, status, param, code = REFUSED[name]
    answer = await send(server, data, enough=lambda raw: raw.endswith(b"}}"))
    error = answer.document["error"]

    assert answer.status == status
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert server.records[0].status == status
    assert await ended(server.records[0]) == "completed"


async def test_a_key_is_demanded_where_there_is_one() -> None:
    async with await SimulatorServer.start(SimulatorConfig(api_key="gehe\u00efm")) as server:
        for headers in ([], ["authorization: Bearer wrong"], ["authorization: gehe\u00efm"]):
            data = request_bytes(completion_body("m"), "connection: close", *headers)
            answer = await send(server, data)
            assert answer.status == 401
            assert answer.document["error"]["code"] == "invalid_api_key"
        data = request_bytes(
            completion_body("m"), "connection: close", "authorization: Bearer gehe\u00efm"
        )
        assert (await send(server, data)).status == 200


# ---- HTTP ----


async def test_a_connection_serves_many_requests(server: SimulatorServer) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for number in range(3):
        writer.write(request_bytes(completion_body("m", seed=number, stream=True)))
        answer = await read_until(reader, lambda raw: raw.endswith(b"\r\n0\r\n\r\n"))
        assert answer.done
    assert (server.open_connections, server.open_requests) == (1, 0)
    writer.close()
    await writer.wait_closed()


async def test_pipelined_requests_are_answered_in_their_order(server: SimulatorServer) -> None:
    models = ["sim:itd=0.001,tokens=5", "b", "sim:ttft=0.01", "d"]
    whole = b"".join(
        request_bytes(completion_body(model), *(["connection: close"] if model == "d" else []))
        for model in models
    )
    answer = await send(server, whole)

    assert [server.records[index].model for index in range(4)] == models
    answered = [part.partition(b'"')[0] for part in answer.raw.split(b'"model":"')[1:]]
    assert answered == [model.encode() for model in models]


async def test_a_request_that_comes_byte_by_byte_is_understood(server: SimulatorServer) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for byte in request_bytes(completion_body("m"), "connection: close"):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    assert (await read_until(reader, None)).status == 200
    writer.close()


async def test_a_chunked_request_is_understood(server: SimulatorServer) -> None:
    body = completion_body("m")
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:10], body[10:]))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\nconnection: close\r\n"
    answer = await send(
        server, head + b"transfer-encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
    )

    assert answer.status == 200
    assert server.records[0].body == body


async def test_a_caller_that_expects_100_is_told_to_continue(server: SimulatorServer) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    data = request_bytes(completion_body("m"), "expect: 100-continue", "connection: close")
    head, _, body = data.partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read_until(reader, None)).status == 200
    writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (request_bytes(b"", "x-large: " + "a" * 600_000), 431),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2000\r\n\r\n", 413),
        (
            b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
            b"7d0\r\n" + b"a" * 2000 + b"\r\n0\r\n\r\n",
            413,
        ),
    ],
    ids=["no HTTP", "large head", "large body", "large chunked body"],
)
async def test_what_cannot_be_read_is_refused_and_the_connection_closed(
    data: bytes, status: int
) -> None:
    async with await SimulatorServer.start(SimulatorConfig(max_body_bytes=1000)) as server:
        answer = await send(server, data)

        assert answer.status == status
        assert "error" in answer.document
        assert len(server.records) == 0


async def test_garbage_behind_a_request_ends_the_connection_after_its_answer(
    server: SimulatorServer,
) -> None:
    data = request_bytes(completion_body("sim:ttft=0.01", stream=True))
    answer = await send(server, data + b"\x00nonsense\r\n\r\n" + data)

    assert answer.sound
    assert "connection: close" in answer.head
    assert len(server.records) == 1


async def test_an_upgrade_is_not_taken_up(server: SimulatorServer) -> None:
    data = request_bytes(b"", "connection: upgrade", "upgrade: h2c", target="GET /v1/models")
    answer = await send(server, data + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    assert answer.status == 200
    assert "connection: close" in answer.head


async def test_an_answer_to_head_has_no_body(server: SimulatorServer) -> None:
    answer = await send(server, request_bytes(b"", "connection: close", target="HEAD /v1/models"))

    assert (answer.status, answer.body) == (404, b"")


async def test_a_bug_costs_one_connection_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> float:
        raise LookupError("a secret prompt")

    async with await SimulatorServer.start(SimulatorConfig(clock=broken)) as server:
        answer = await ask(server, "m")

        assert answer.raw == b""
        assert server.records[0].outcome == "aborted"
        assert (await ask(server, "sim-fault:nonsense")).status == 404
    assert "LookupError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_large_body_is_taken_whole(server: SimulatorServer) -> None:
    await ask(server, "m", metadata={"padding": "x" * (10 * MEBIBYTE)})

    assert len(server.records[0].body) > 10 * MEBIBYTE
    assert len(server.records[0].document["metadata"]["padding"]) == 10 * MEBIBYTE


async def test_an_answer_is_not_buffered_for_a_caller_that_does_not_read(
    server: SimulatorServer,
) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (server.host, server.port))
    body = completion_body("sim-fault:endless-line", stream=True)
    await loop.sock_sendall(sock, request_bytes(body))
    record = await server.next_record()
    sent = -1
    while sent != record.bytes_sent:  # Until it has stopped writing.
        sent = record.bytes_sent
        for _ in range(1000):
            await asyncio.sleep(0)

    assert 0 < sent < 16 * MEBIBYTE
    assert record.outcome is None
    sock.close()
    assert await ended(record) == "caller_left"


# ---- records ----


async def test_a_request_is_remembered_as_it_came(server: SimulatorServer) -> None:
    body = b'{"model" : "m", "messages": [{"role":"user","content":"\\ud83d"}], "stream": true}'
    await send(server, request_bytes(body, "connection: close", "X-One: 1", "x-one: 2"))
    record = await server.next_record()

    assert (record.method, record.path) == ("POST", "/v1/chat/completions")
    assert record.headers["x-one"] == "1, 2"
    assert record.body == body
    assert record.document["messages"][0]["content"] == "\ud83d"
    assert (record.model, record.scenario, record.status) == ("m", "completion", 200)
    assert record.chunks_sent == 50
    assert record.outcome == "completed"
    assert record.finished is not None
    assert record.finished >= record.started


LEAVING = {
    "before the headers": ("sim:ttft=3600", None),
    "mid-stream": ("sim:itd=3600", b"data: "),
    "in a fault before the headers": ("sim-fault:hang-before-headers", None),
    "in a fault": ("sim-fault:hang-mid-stream", b"data: "),
    "in an endless fault": ("sim-fault:drip-body=3600", b"data: "),
}


@pytest.mark.parametrize("where", LEAVING)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_caller_that_leaves_is_noticed_at_once(
    server: SimulatorServer, where: str, *, reset: bool
) -> None:
    model, begun = LEAVING[where]
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(request_bytes(completion_body(model, stream=True)))
    record = await server.next_record()
    if begun is not None:
        await reader.readuntil(begun)
    assert (record.outcome, server.open_requests, server.open_connections) == (None, 1, 1)

    writer.transport.abort() if reset else writer.close()

    assert await ended(record) == "caller_left"
    assert (server.open_requests, server.open_connections) == (0, 0)


async def test_two_hundred_callers_leave_at_once_and_nothing_stays_behind(
    server: SimulatorServer,
) -> None:
    tasks = len(asyncio.all_tasks())
    models = [
        "sim:itd=3600",
        "sim:ttft=3600",
        "sim-fault:drip-body=0.001",
        "sim-fault:endless-line",
    ]
    writers = []
    for number in range(200):
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(request_bytes(completion_body(models[number % 4], stream=True)))
        writers.append(writer)
    records = [await server.next_record() for _ in writers]
    assert (server.open_requests, server.open_connections) == (200, 200)

    for writer in writers:
        writer.transport.abort()

    assert [await ended(record) for record in records] == ["caller_left"] * 200
    assert (server.open_requests, server.open_connections) == (0, 0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == tasks


async def test_stopping_breaks_off_what_is_open() -> None:
    server = await SimulatorServer.start()
    asking = asyncio.create_task(ask(server, "sim-fault:hang-before-headers"))
    record = await server.next_record()

    await server.stop()
    await server.stop()

    assert record.outcome == "aborted"
    assert (await asking).raw == b""
    with pytest.raises(ConnectionRefusedError):
        await ask(server, "m")


@pytest.mark.parametrize("turns", range(5))
async def test_what_connects_while_it_stops_is_closed(turns: int) -> None:
    server = await SimulatorServer.start(SimulatorConfig())
    loop = asyncio.get_running_loop()
    address = ("127.0.0.1", int(server.base_url.rpartition(":")[2]))
    callers = [socket.socket() for _ in range(5)]
    for caller in callers:
        caller.setblocking(False)
        caller.connect_ex(address)
    for _ in range(turns):
        await asyncio.sleep(0)
    await server.stop()
    for caller in callers:
        with caller, suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await loop.sock_recv(caller, 1) == b""


async def test_time_to_first_token_and_delay_are_kept(server: SimulatorServer) -> None:
    await ask(server, "sim:ttft=0.05,itd=0.01,tokens=5", stream=True)
    await ask(server, "sim:ttft=0.05,itd=0.01,tokens=5")

    for index in (0, 1):
        record = server.records[index]
        assert record.finished is not None
        assert record.finished - record.started >= 0.09


# ---- fixed responses ----


async def test_a_laid_down_reply_is_given_word_for_word(server: SimulatorServer) -> None:
    body = b'{ "choices": [], "x": 1e400, "y":"\\ud83d" }'
    server.reply_with("golden", status=418, headers=[("x-a", "b")], body=body)
    answer = await ask(server, "golden", messages=None)

    assert (answer.status, answer.body) == (418, body)
    assert "x-a: b" in answer.head
    assert (await ask(server, "golden", stream=True)).body == body
    assert server.records[0].scenario == "script"


async def test_laid_down_events_are_given_word_for_word(server: SimulatorServer) -> None:
    server.stream_with("golden", [b'{"a":1}', b"not json"])
    server.reply_with("golden", body=b"{}")
    server.stream_with("cut", [b"{}"], done=False, status=201)

    golden = await ask(server, "golden", stream=True)
    assert golden.body == b'data: {"a":1}\n\ndata: not json\n\ndata: [DONE]\n\n'
    assert golden.terminated
    assert (await ask(server, "golden")).body == b"{}"
    cut = await ask(server, "cut", stream=True)
    assert (cut.status, cut.body) == (201, b"data: {}\n\n")


async def test_a_reset_forgets_what_was_laid_down(server: SimulatorServer) -> None:
    server.reply_with("m", body=b"{}")
    await ask(server, "m")
    server.reset()

    assert len(server.records) == 0
    assert (await ask(server, "m")).document["object"] == "chat.completion"


async def test_a_fault_may_strike_a_number_of_times(server: SimulatorServer) -> None:
    model = "sim-fault:503-retry-after=2,times=2"

    assert [(await ask(server, model)).status for _ in range(4)] == [503, 503, 200, 200]
    assert (await ask(server, "sim-fault:503-retry-after=2,times=1")).status == 503
    server.reset()
    assert (await ask(server, model)).status == 503


# ---- alone ----


async def start_alone(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.simulator", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_runs_alone_until_it_is_told_to_stop(number: signal.Signals) -> None:
    process = await start_alone("--listen", "127.0.0.1:0", "--api-key", "k")
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert "simulator" in line
    port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = "authorization: Bearer k"
    writer.write(request_bytes(completion_body("sim:itd=3600", stream=True), key))
    await reader.readuntil(b"data: ")

    process.send_signal(number)

    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")
    writer.close()


async def test_an_address_that_is_taken_is_explained(server: SimulatorServer) -> None:
    process = await start_alone("--listen", f"127.0.0.1:{server.port}")
    out, err = await process.communicate()

    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"cannot listen on 127.0.0.1:")
    assert err.count(b"\n") == 1


async def test_wrong_arguments_end_it_with_2() -> None:
    process = await start_alone("--listen", "nowhere")
    _, err = await process.communicate()

    assert process.returncode == 2
    assert b"'nowhere' is not HOST:PORT" in err
