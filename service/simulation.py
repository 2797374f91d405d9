"""The built-in simulator as an upstream: it starts with the first model that needs it.

Catalogue, some upstreams without a URL -> simulator -> Catalogue, all with a URL
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import MappingProxyType

from service.config import Settings
from service.models import Catalogue, Model


class Simulation:
    """The simulator of one service.

    Args:
        settings: The settings, with the delays of the simulator.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._base_url = ""
        self._stop: Callable[[], Awaitable[None]] | None = None

    async def of(self, catalogue: Catalogue) -> Catalogue:
        """Return a catalogue in which every upstream has a URL. Start the simulator if it is one.

        Raises:
            OSError: The simulator cannot listen.
        """
        if all(upstream.base_url for upstream in catalogue.upstreams):
            return catalogue
        if not self._base_url:
            await self._start()
        models = {model.name: self._placed(model) for model in catalogue}
        return Catalogue(models=MappingProxyType(models))

    def _placed(self, model: Model) -> Model:
        upstream = model.upstream
        return replace(
            model,
            upstream=upstream if upstream.base_url else replace(upstream, base_url=self._base_url),
            others=tuple(map(self._placed, model.others)),
        )

    async def stop(self) -> None:
        """Stop the simulator, if it runs."""
        if self._stop is not None:
            await self._stop()

    async def _start(self) -> None:
        # Imported here, because the simulator is a fifth of the service's code.
        from service.simulator import SimulatorConfig, SimulatorServer  # noqa: PLC0415

        simulator = await SimulatorServer.start(
            SimulatorConfig(
                time_to_first_token=self._settings.simulator_time_to_first_token,
                inter_token_delay=self._settings.simulator_inter_token_delay,
                clock=time.time,
                records_kept=0,
            )
        )
        self._stop = simulator.stop
        self._base_url = f"{simulator.base_url}/v1"
