"""An OpenAI-compatible upstream that needs no account and calls no model.

    server = await SimulatorServer.start(SimulatorConfig(seed=7))
    server.base_url           "http://127.0.0.1:34567": POST /v1/chat/completions, GET /v1/models
    server.records            what was asked, and how it ended
    await server.stop()

The service answers with it where no other upstream is configured, and the tests fail with it:
`scenarios` reads what a model's name asks for, `faults` has the table of failures. It says in every
answer that it is a simulator. It depends on nothing else of this project.
"""

from service.simulator.config import SimulatorConfig
from service.simulator.records import RequestOutcome, RequestRecord
from service.simulator.server import SimulatorServer

__all__ = ["RequestOutcome", "RequestRecord", "SimulatorConfig", "SimulatorServer"]
