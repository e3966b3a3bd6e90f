"""How workers died, as far as drivers know whose workers leave something behind."""

from __future__ import annotations

from collections.abc import Mapping

import tenacity

from funcplat import errors, plugins
from funcplat.drivers.base import Capability, WorkerState

PATIENCE = 1.0
"""Seconds after which what a driver talks to must have heard of an end that was noticed elsewhere."""
LOOKS = 0.05
"""Seconds between looks meanwhile."""


class Deaths:
    """Asks drivers how workers ended.  Thread-safe."""

    def __init__(self, orchestrators: Mapping[str, plugins.GuardedOrchestrator], deadline: float) -> None:
        """``deadline``: seconds that a driver may take to answer."""
        self._orchestrators = orchestrators
        self._deadline = deadline

    def cause(self, worker_id: str, orchestrator: str) -> str | None:
        """What the driver knows now: a sentence, or None.  Raises DriverError."""
        state = self._look(worker_id, orchestrator)
        return state.detail or None if state is not None and not state.running else None

    def awaited_cause(self, worker_id: str, orchestrator: str) -> str | None:
        """The same of a worker that just broke off; waits until its driver has heard of it, or a moment."""
        looking = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda state: state is not None and state.running),
            stop=tenacity.stop_after_delay(PATIENCE),
            wait=tenacity.wait_fixed(LOOKS),
            retry_error_callback=lambda _: None,
        )
        try:
            state = looking(self._look, worker_id, orchestrator)
        except errors.DriverError:
            return None  # why a call failed is known all the same, just not in detail
        return state.detail or None if state is not None else None

    def _look(self, worker_id: str, orchestrator: str) -> WorkerState | None:
        driver = self._orchestrators.get(orchestrator)
        if driver is None or Capability.SURVIVES not in driver.capabilities:
            return None
        states = driver.list_workers(self._deadline)
        return next((state for state in states if state.worker_id == worker_id), None)
