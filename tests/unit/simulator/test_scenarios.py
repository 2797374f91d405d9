import pytest

from service.simulator.config import SimulatorConfig
from service.simulator.error_objects import HttpError
from service.simulator.scenarios import Scenario, parse, plain

DEFAULT = plain(SimulatorConfig(time_to_first_token=0.5, inter_token_delay=0.1))


def scenario(**fields: object) -> Scenario:
    basis = {"time_to_first_token": 0.5, "inter_token_delay": 0.1, "tokens": 48}
    return Scenario(**{**basis, **fields})  # type: ignore[arg-type]  # a table of fields


READINGS = {
    "gpt-5": scenario(),
    "simulator": scenario(),
    "sim:ttft=0.2,itd=0,tokens=500": scenario(
        time_to_first_token=0.2, inter_token_delay=0.0, tokens=500, tokens_given=True
    ),
    "sim-fault:500": scenario(fault="500"),
    "sim-fault:429-retry-after=3,times=2": scenario(fault="429-retry-after", value="3", times=2),
    "sim-fault:redirect=http://127.0.0.1:1/?a=b": scenario(
        fault="redirect", value="http://127.0.0.1:1/?a=b"
    ),
    "sim-fault:crlf,tokens=3": scenario(fault="crlf", tokens=3, tokens_given=True),
}


@pytest.mark.parametrize("model", READINGS)
def test_a_name_is_read(model: str) -> None:
    assert parse(model, DEFAULT) == READINGS[model]


@pytest.mark.parametrize(
    "model",
    [
        "sim:",
        "sim:ttft",
        "sim:ttft=soon",
        "sim:ttft=nan",
        "sim:ttft=-1",
        "sim:itd=3601",
        "sim:tokens=1.5",
        "sim:tokens=100001",
        "sim:times=2",
        "sim:colour=red",
        "sim-fault:500,times=0",
        "sim-fault:500,colour=red",
    ],
)
def test_a_name_that_goes_wrong_is_refused(model: str) -> None:
    with pytest.raises(HttpError) as refused:
        parse(model, DEFAULT)

    assert (refused.value.status, refused.value.param) == (400, "model")


@pytest.mark.parametrize("field", ["time_to_first_token", "inter_token_delay", "records_kept"])
def test_a_setting_out_of_range_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        SimulatorConfig(**{field: -1})  # type: ignore[arg-type]  # a table of fields
