"""The client library async-openai, for Rust."""

from typing import Final

import pytest

from tests.clients.scenarios import HERE, Client, Told, judge

pytestmark = pytest.mark.time_limit(180)

PROGRAM: Final = HERE / "rust" / "target" / "debug" / "clients"
ASYNC_OPENAI: Final = Client(
    name="async-openai",
    command=(str(PROGRAM),),
    needs=(PROGRAM,),
    refused="ApiError",
    broken=("JSONDeserialize",),
)


@pytest.mark.parametrize("told", [ASYNC_OPENAI], indirect=True, ids=["async-openai"])
def test_rust(told: Told, scenario: str) -> None:
    judge(scenario, told)
