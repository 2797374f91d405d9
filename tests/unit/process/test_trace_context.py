import pytest

from process.settings import SettingsError, read
from process.trace_context import carried, joined, propagators, trace_of
from restbridge.config import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def test_what_is_well_formed_is_carried() -> None:
    received = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "b=2;c", "other": "d"}

    assert carried(received) == (
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
        ("baggage", "b=2;c"),
    )


@pytest.mark.parametrize(
    "parent",
    [
        "",
        PARENT.upper(),
        f"{PARENT}-00",
        PARENT[:-1],
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}{PARENT[35:]}",
        f"{PARENT[:36]}{'0' * 16}-01",
        f"{PARENT}\n",
        f"{PARENT},{PARENT}",
    ],
)
def test_without_a_parent_there_is_no_state(parent: str) -> None:
    assert carried({"traceparent": parent, "tracestate": "a=1"}) == ()


@pytest.mark.parametrize(("length", "is_carried"), [(512, True), (513, False)])
def test_the_state_is_bounded(length: int, is_carried: bool) -> None:
    headers = carried({"traceparent": PARENT, "tracestate": "x" * length})

    assert ("tracestate" in dict(headers)) is is_carried
    assert "traceparent" in dict(headers)


@pytest.mark.parametrize(("length", "is_carried"), [(4096, True), (4097, False)])
def test_baggage_is_bounded_and_needs_no_parent(length: int, is_carried: bool) -> None:
    assert bool(carried({"baggage": "x" * length})) is is_carried


@pytest.mark.parametrize("text", ["", "a\r\nb", "a\tb", "ä"])
def test_what_cannot_be_a_header_is_dropped(text: str) -> None:
    assert carried({"baggage": text}) == ()
    assert carried({"traceparent": PARENT, "tracestate": text}) == (("traceparent", PARENT),)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tracecontext,baggage", {"traceparent", "tracestate", "baggage"}),
        ("tracecontext", {"traceparent", "tracestate"}),
        (" baggage ", {"baggage"}),
        ("none", set()),
    ],
)
def test_the_propagators_select_the_headers(text: str, names: set[str]) -> None:
    received = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "b=2"}

    assert {name for name, _ in carried(received, propagators(text))} == names


@pytest.mark.parametrize("text", ["b3", "tracecontext,b3", "none,baggage"])
def test_other_propagators_are_wrong(text: str) -> None:
    with pytest.raises(SettingsError, match="OTEL_PROPAGATORS must be a list of tracecontext"):
        read(Settings, {"OTEL_PROPAGATORS": text})


def test_several_headers_of_a_name_are_one_list() -> None:
    headers = [(b"tracestate", b"a=1"), (b"x", b"y"), (b"tracestate", b"b=2"), (b"baggage", b"c")]

    assert joined(headers) == {"tracestate": "a=1,b=2", "baggage": "c"}


def test_two_parents_are_none() -> None:
    assert carried(joined([(b"traceparent", PARENT.encode())] * 2)) == ()


def test_the_trace_is_that_of_the_parent() -> None:
    assert trace_of((("traceparent", PARENT), ("baggage", "a=1"))) == TRACE
    assert trace_of((("baggage", "a=1"),)) == trace_of(()) == ""
