"""An OpenAI-compatible upstream that needs no account and calls no model.

    server = await SimulatorServer.start(SimulatorConfig(seed=7))
    server.base_url           "http://127.0.0.1:34567": POST /v1/chat/completions, GET /v1/models
    server.records            the requests, and how they ended
    await server.stop()

It is the service's default upstream, and tests use its faults. `scenarios` reads the options in a
model's name, and `faults` has the table of failures. Every response states that it comes from a
simulator. It imports no other package of this project.
"""

from service.simulator.config import SimulatorConfig
from service.simulator.records import RequestOutcome, RequestRecord
from service.simulator.server import SimulatorServer

__all__ = ["RequestOutcome", "RequestRecord", "SimulatorConfig", "SimulatorServer"]
