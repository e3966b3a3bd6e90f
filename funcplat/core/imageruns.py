"""Functions that are images of programs: one run of a container for each execution.

A run has a row among the workers from before it begins until nothing is left of it, so that the same caps
hold for it as for workers, and operators see it.  Its container is the driver's to remove, whatever happens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from funcplat import errors
from funcplat.core.images import Images
from funcplat.core.starts import Starts, spec_of
from funcplat.core.workers import WorkerOptions, Workers
from funcplat.drivers.base import Address, Handle, ImageKind, ImageRun
from funcplat.plugins import GuardedOrchestrator

ARGUMENTS = "__function_input"
"""Key of an input that is arguments (API.md sections 8 and 13)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run that came to its end."""

    worker_id: str
    outcome: ImageRun


class ImageRuns:
    """Runs images once.  Thread-safe."""

    def __init__(
        self,
        orchestrators: dict[str, GuardedOrchestrator],
        images: Images,
        starts: Starts,
        workers: Workers,
        options: WorkerOptions,
    ) -> None:
        self._orchestrators = orchestrators
        self._images = images
        self._starts = starts
        self._workers = workers
        self._options = options
        self._lock = threading.Lock()
        self._running: dict[str, tuple[str, GuardedOrchestrator]] = {}  # by worker: execution, driver

    def is_one_shot(self, orchestrator: str | None, image: str) -> bool:
        """Whether a pinned image is a program that runs once, and not a worker.  Raises FuncplatError."""
        return self._images.kind(self._images.runner(orchestrator), image) is ImageKind.ONE_SHOT

    def run(self, execution_id: str, revision_id: str, input_text: str | None, timeout: float) -> Run:
        """Run a revision's image to its end, or until it is cancelled: then as if killed.

        Raises NoCapacity at a cap, NotFound for a revision that is gone, DriverError where it cannot be run,
        InvalidRequest for an input that cannot be arguments; nothing is left of it in any case.
        """
        arguments = arguments_of(input_text)
        row = self._starts.intend(revision_id)
        try:
            deadline = self._images.pull_deadline + self._options.start_deadline + timeout
            spec = spec_of(row, self._options, None)
            driver = self._orchestrators[row["orchestrator"]]
            with self._known(execution_id, driver, row["id"]):
                outcome = driver.run_image(spec, arguments, timeout, deadline)
        finally:
            self._workers.settle(row["id"])
        return Run(row["id"], outcome)

    @contextlib.contextmanager
    def _known(self, execution_id: str, driver: GuardedOrchestrator, worker_id: str) -> Iterator[None]:
        with self._lock:
            self._running[worker_id] = execution_id, driver
        try:
            yield
        finally:
            with self._lock:
                del self._running[worker_id]

    def cancel(self, execution_id: str) -> None:
        """Have the run of an execution killed, which `run` then returns from.

        To be called again until it has: one that is about to begin cannot be killed yet.  Raises DriverError.
        """
        with self._lock:
            found = [(key, driver) for key, (of, driver) in self._running.items() if of == execution_id]
        for worker_id, driver in found:
            # No address: it is not known whether it is a worker.
            driver.stop_worker(Handle(worker_id, Address()), 0.0, self._options.start_deadline)


def arguments_of(text: str | None) -> Sequence[str]:
    """The arguments of a program from an execution's input.

    Text is split at white space, as the old wire has it; a list of strings under the key
    ``__function_input`` is taken as it is.  Anything else of an object is no argument.  Raises
    InvalidRequest for arguments that no program can be given.
    """
    if text is None:
        return ()
    value: Any = text
    if text.startswith("{"):
        value = _object(text).get(ARGUMENTS)
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        arguments = value
    else:
        arguments = (value if isinstance(value, str) else json.dumps(value)).split()
    if any("\0" in each for each in arguments):
        raise errors.InvalidRequest("an argument of a program cannot have a NUL character")
    return arguments


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {ARGUMENTS: text}
    return value if isinstance(value, dict) else {ARGUMENTS: text}
