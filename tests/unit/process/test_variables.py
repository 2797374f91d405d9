import pytest

import restbridge.config
import service.config
from process.settings import rows
from process.variables import CALLERS, NAMES, unknown_variables


def test_the_list_has_the_variables_of_both_parts() -> None:
    tables = (service.config.Settings, restbridge.config.Settings)
    assert sorted(NAMES) == sorted({row.name for table in tables for row in rows(table)})


@pytest.mark.parametrize(
    "known",
    [
        dict.fromkeys(NAMES, "x"),
        dict.fromkeys(CALLERS, "x"),
        {"CHATTER": "x", "PATH": "/bin", "chat_model": "x"},
        {"CHAT_MISSPELT": ""},
        # Kubernetes sets these for services named `chat`, `chat-service` and `chat-bridge`.
        {"CHAT_SERVICE_HOST": "10.0.0.1", "CHAT_SERVICE_PORT": "50051"},
        {"CHAT_PORT": "tcp://10.0.0.1:50051", "CHAT_PORT_50051_TCP_ADDR": "10.0.0.1"},
        {"CHAT_SERVICE_SERVICE_PORT_GRPC": "50051", "CHAT_BRIDGE_PORT_8080_TCP": "tcp://10.0.0.1"},
    ],
)
def test_a_known_variable_has_no_line(known: dict[str, str]) -> None:
    assert unknown_variables(known) == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CHAT_UPSTREAM_URL", "CHAT_UPSTREAM_BASE_URL"),
        ("CHAT_UPSTREAM_BASEURL", "CHAT_UPSTREAM_BASE_URL"),
        ("CHAT_UPSTREAM_KEY", "CHAT_UPSTREAM_API_KEY"),
        ("CHAT_BRIDGE_LISTENS", "CHAT_BRIDGE_LISTEN"),
        ("CHAT_DRAIN_DELAYS", "CHAT_DRAIN_DELAY"),
        ("CHAT_MODEL_FILE", "CHAT_MODELS_FILE"),
        ("CHAT_KEYS", "CHAT_KEY"),
        ("CHAT_BASEURL", "CHAT_BASE_URL"),
    ],
)
def test_an_unknown_variable_has_the_nearest_name(name: str, nearest: str) -> None:
    line = f"{name} is unknown. Did you mean {nearest}? Rename it, or write: unset {name}"

    assert unknown_variables({name: "canary", "CHAT_LISTEN": "x"}) == [line]


def test_a_port_that_a_person_sets_is_unknown() -> None:
    [line] = unknown_variables({"CHAT_BRIDGE_PORT": "8081"})

    assert line.startswith("CHAT_BRIDGE_PORT is unknown. Did you mean ")


def test_a_variable_that_resembles_none_is_unknown_too() -> None:
    [line] = unknown_variables({"CHAT_XYZZY_QQQQQQQQQQQQQQQQ": "x"})

    assert line.endswith("--help lists the variables. Write: unset CHAT_XYZZY_QQQQQQQQQQQQQQQQ")


def test_others_can_be_known() -> None:
    assert unknown_variables({"CHAT_OUR_KEY": "x"}, {"CHAT_OUR_KEY"}) == []
