"""Calls of functions that are images of programs: each is one run, in a thread that waits for its end."""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.core.imageruns import Run
from funcplat.core.routes import Route
from funcplat.drivers.base import ImageRun
from funcplat.errors import Reason, ReasonCode
from funcplat.invoke.router import ROOM_PAUSE, Line, NoWorker, RouterOptions

LOG = logging.getLogger(__name__)
SIGNALLED = 128
"""Exit codes above say which signal ended a program, as shells have it."""


class Backend(Protocol):
    """What is needed of core: synchronous, called in threads."""

    def is_one_shot(self, orchestrator: str | None, image: str) -> bool: ...

    def run(self, execution_id: str, revision_id: str, input_text: str | None, timeout: float) -> Run: ...

    def cancel(self, execution_id: str) -> None: ...


class OneShots:
    """Runs images once for each call.  Belongs to one event loop."""

    def __init__(
        self,
        backend: Backend,
        ask: Callable[..., Coroutine[Any, Any, Any]],
        run: Callable[..., Coroutine[Any, Any, Any]],
        make_room: Callable[[str], bool],
        options: RouterOptions,
        places: int,
        max_log: int,
    ) -> None:
        """``ask`` and ``run(function, *args)`` await a synchronous function; ``run`` in ``places`` threads.

        ``make_room(function_id)``, called in a thread, stops an idle worker of another function.
        ``max_log``: bytes of output that are kept of a run.
        """
        self._backend = backend
        self._ask = ask
        self._run = run
        self._make_room = make_room
        self._options = options
        self._places = asyncio.Semaphore(places)
        self._max_log = max_log
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.Counter[str] = collections.Counter()
        self._timeouts: set[asyncio.Timeout] = set()
        self._under_way: set[str] = set()  # executions that have a thread
        self._ended = False

    async def takes(self, line: Line) -> bool:
        """Whether the function is an image that runs once.  Raises NoWorker where that cannot be told."""
        route, known = line.route, line.one_shot
        if route.image is None:
            return False
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            work = self._ask(self._backend.is_one_shot, route.orchestrator, route.image)
            known = line.one_shot = self._loop.create_task(work)
        try:
            return await asyncio.shield(known)
        except errors.FuncplatError as error:
            raise _no_worker(error) from error

    async def run(self, route: Route, record: Record) -> None:
        """Run the execution to its end, which the record then has.  Raises NoWorker, NotFound."""
        if self._waiting[route.function_id] >= self._options.queue_limit:
            raise NoWorker(
                ReasonCode.QUEUE_FULL,
                f"{self._options.queue_limit} calls of this function wait already ([scaling] queue_limit)",
            )
        outcome = await self._when_there_is_room(route, record)
        record.worker_id = outcome.worker_id
        self._conclude(record, outcome.outcome, route.timeout)

    def under_way(self, execution_id: str) -> bool:
        """Whether an execution has come so far that only `cancel` can end it."""
        return execution_id in self._under_way

    async def cancel(self, execution_id: str) -> None:
        """Have the program of an execution killed.

        To be called again until `run` returns: one that is about to begin cannot be killed yet.
        """
        try:
            await self._ask(self._backend.cancel, execution_id)
        except errors.DriverError as error:
            LOG.warning("execution %s: its program is not killed yet: %s", execution_id, error.message)

    def end(self) -> None:
        """This server ends: calls that wait, or come now, are not run."""
        self._ended = True
        for timeout in self._timeouts:
            timeout.reschedule(self._loop.time())

    # -- waiting -----------------------------------------------------------------------------------------

    async def _when_there_is_room(self, route: Route, record: Record) -> Run:
        late = self._loop.time() + self._options.queue_timeout
        while True:
            await self._enter(route, late)
            try:
                return await self._try(route, record)
            except errors.NoCapacity as error:
                if self._loop.time() + ROOM_PAUSE > late or self._ended:
                    raise NoWorker(ReasonCode.NO_CAPACITY, error.message) from error
            finally:
                self._places.release()
            # What other servers and functions run ends without a word to us.
            await self._pause(route)

    async def _enter(self, route: Route, late: float) -> None:
        """Get a place among this server's runs, which the caller releases."""
        self._waiting[route.function_id] += 1
        try:
            async with asyncio.timeout_at(self._loop.time() if self._ended else late) as timeout:
                self._timeouts.add(timeout)
                await self._places.acquire()
        except TimeoutError as error:
            raise self._late() from error
        finally:
            self._timeouts.discard(timeout)
            self._left(route.function_id)

    async def _pause(self, route: Route) -> None:
        self._waiting[route.function_id] += 1
        try:
            await asyncio.sleep(ROOM_PAUSE)
        finally:
            self._left(route.function_id)

    def _left(self, function_id: str) -> None:
        self._waiting[function_id] -= 1
        if not self._waiting[function_id]:
            del self._waiting[function_id]

    def _late(self) -> NoWorker:
        if self._ended:
            return NoWorker(ReasonCode.WORKER_STOPPED, "the server ended before the image could run")
        seconds = self._options.queue_timeout
        return NoWorker(
            ReasonCode.QUEUE_TIMEOUT,
            f"for {seconds:g} s as many images ran as may ([orchestrator] image_runs, "
            "[scaling] queue_timeout)",
        )

    async def _try(self, route: Route, record: Record) -> Run:
        self._under_way.add(record.id)
        try:
            return await self._run(self._attempt, route, record)  # type: ignore[no-any-return]
        except (errors.NoCapacity, errors.NotFound):
            raise
        except errors.FuncplatError as error:
            raise _no_worker(error) from error
        finally:
            self._under_way.discard(record.id)

    def _attempt(self, route: Route, record: Record) -> Run:
        try:
            return self._backend.run(record.id, route.revision_id, record.input, route.timeout)
        except errors.NoCapacity as error:
            if getattr(error, "kind", None) != "node" or not self._make_room(route.function_id):
                raise
        return self._backend.run(record.id, route.revision_id, record.input, route.timeout)

    # -- the end -----------------------------------------------------------------------------------------

    def _conclude(self, record: Record, run: ImageRun, timeout: float) -> None:
        reason = _reason(run, timeout)
        record.status = "failed" if reason is not None else "success"
        record.result = json.dumps({"duration": round(timeout if run.timed_out else run.duration, 6)})
        record.log = run.log[: self._max_log] or None
        dropped = run.log_dropped + max(0, len(run.log) - self._max_log)
        if dropped:
            note = f"{dropped} bytes of output were dropped ([resource_limits] max_log)"
            reason = (
                Reason(reason.code, f"{reason.message}; {note}")
                if reason is not None
                else Reason(ReasonCode.LOG_TRUNCATED, note)
            )
        record.reason_code = reason.code if reason is not None else None
        record.reason_message = reason.message if reason is not None else None


def _reason(run: ImageRun, timeout: float) -> Reason | None:
    """Why a run failed; None where it did not."""
    if run.timed_out:
        return Reason(ReasonCode.TIMEOUT, f"the program was ended at the function's timeout of {timeout:g} s")
    if run.out_of_memory:
        return Reason(
            ReasonCode.MEMORY_EXCEEDED, "the program needed more memory than the function's memory_size"
        )
    if run.exit_code == 0:
        return None
    if run.exit_code > SIGNALLED:
        return Reason(
            ReasonCode.FUNCTION_CRASHED,
            f"the program was ended by {_signal(run.exit_code - SIGNALLED)} (exit code {run.exit_code})",
        )
    return Reason(ReasonCode.FUNCTION_EXITED, f"the program ended with exit code {run.exit_code}")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _no_worker(error: errors.FuncplatError) -> NoWorker:
    """Why an image did not run, as the execution says it."""
    codes = (
        (errors.ImageUnknown, ReasonCode.IMAGE_UNKNOWN),
        (errors.DriverUnavailable, ReasonCode.DRIVER_UNAVAILABLE),
        (errors.RuntimeNotAvailable, ReasonCode.RUNTIME_NOT_AVAILABLE),
        (errors.InvalidRequest, ReasonCode.BAD_ARGUMENTS),
    )
    for kind, code in codes:
        if isinstance(error, kind):
            return NoWorker(code, error.message)
    return NoWorker(ReasonCode.START_FAILED, error.message)
