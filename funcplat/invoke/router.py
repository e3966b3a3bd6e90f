"""Where calls go: a table of routes in memory, the choice of a worker, and cold starts.

No call asks the database: a route is read when it is first needed and renewed in the background
while it is used, so that what other processes change is known here within about a second.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from funcplat import errors
from funcplat.core.routes import Route
from funcplat.core.workers import Worker
from funcplat.errors import ReasonCode
from funcplat.invoke import client
from funcplat.invoke.stations import Station, Stations

LOG = logging.getLogger(__name__)
RENEW_AFTER = 0.5
"""Seconds after which a route that is used is read again, in the background."""
STALE_AFTER = 1.0
"""Seconds after which a call waits for that: the bound that a PUT, a detach and a delete count on."""
FORGET_AFTER = 300.0
"""Seconds without a call after which a route is dropped from the table."""


WATCH = 0.01
"""Seconds between looks at a line in which calls wait."""
USABLE = ("available", "upgrading")
"""States of a runtime in which a call may wait for a worker."""
ROOM_PAUSE = 0.1
"""Seconds after which calls that a cap keeps waiting try again to get a worker."""


class NoWorker(errors.FuncplatError):
    """No worker could take the call."""

    def __init__(self, code: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.reason = errors.Reason(code, message)


@dataclasses.dataclass(frozen=True, slots=True)
class RouterOptions:
    """How calls wait and workers are added; see [scaling]."""

    concurrency: int  # calls that a new worker takes at once
    patience: float  # seconds
    queue_limit: int
    queue_timeout: float  # seconds
    max_answer: int = client.MAX_ANSWER  # bytes that a worker's answer may have


class Backend(Protocol):
    """What the router needs of core: synchronous, called in threads."""

    def read(self, function_id: str, version: int) -> Route: ...

    def start(self, revision_id: str) -> Worker: ...

    def make_room(self, function_id: str, forget: Callable[[str], None]) -> bool: ...

    def prepare(self, revision_id: str) -> None: ...


class Line:
    """One function's version: its route, its workers, the starts under way."""

    def __init__(self, route: Route, read_at: float) -> None:
        self.route = route
        self.read_at = read_at
        self.used_at = read_at
        self.renewing: asyncio.Task[None] | None = None
        self.stations = Stations()
        self.starting = 0
        self.watch: asyncio.TimerHandle | None = None  # runs while calls wait
        self.grow_after = 0.0  # the loop's time before which a busy line does not ask for a worker again
        self.moved = 0  # places that had come free when it last ran
        self.full: errors.NoCapacity | None = None  # why the last start was refused, if by a cap
        self.one_shot: asyncio.Task[bool] | None = None  # whether the revision is an image that runs once


class Router:
    """Finds a worker for a call.  Belongs to one event loop."""

    def __init__(
        self,
        backend: Backend,
        run: Callable[..., Coroutine[Any, Any, Any]],
        options: RouterOptions,
    ) -> None:
        """``run(function, *args)`` awaits a synchronous function in a thread."""
        self._backend = backend
        self._run = run
        self._options = options
        self._lines: dict[tuple[str, int], Line] = {}
        self._reading: dict[tuple[str, int], asyncio.Task[Line]] = {}
        self._loop = asyncio.get_running_loop()
        self._ended: NoWorker | None = None
        self._starts: set[asyncio.Task[Worker]] = set()
        self._looking: set[asyncio.Task[None]] = set()

    # -- routes --------------------------------------------------------------------------------------------

    async def line(self, function_id: str, version: int) -> Line:
        """The route, at most a second old.  Raises NotFound."""
        line = self._lines.get((function_id, version))
        if line is None:
            return await self._first(function_id, version)
        now = line.used_at = self._loop.time()
        age = now - line.read_at
        if age > RENEW_AFTER:
            if line.renewing is None:
                line.renewing = self._watch(self._loop.create_task(self._renew(line)))
            if age > STALE_AFTER:
                await asyncio.shield(line.renewing)
        return line

    def changed(self, function_id: str) -> None:
        """This process changed the function or its workers: the next call reads the route again."""
        for (known, _), line in self._lines.items():
            if known == function_id:
                line.read_at = -STALE_AFTER * 2

    def drained(self, worker_ids: list[str]) -> None:
        """This process drains these workers: call them no more."""
        for line in self._lines.values():
            for worker_id in worker_ids:
                line.stations.remove(worker_id)

    def sweep(self) -> None:
        """Drop routes that nobody uses."""
        now = self._loop.time()
        for key, line in list(self._lines.items()):
            idle = line.starting == 0 and line.stations.waiting == 0
            if idle and now - line.used_at > FORGET_AFTER:
                line.stations.close()
                del self._lines[key]

    async def prewarm(self, function_id: str, version: int, count: int) -> None:
        """Start ``count`` workers in the background, whether calls wait or not.  Raises NotFound."""
        line = await self.line(function_id, version)
        for _ in range(count):
            self._launch(line)

    def prepare(self, function_id: str) -> None:
        """A function was made or changed here: be ready for its first call."""
        self._watch(self._loop.create_task(self._prepare(function_id)))

    async def _prepare(self, function_id: str) -> None:
        line = await self.line(function_id, 0)
        await self._run(self._backend.prepare, line.route.revision_id)

    def used(self) -> list[str]:
        """Ids of the workers that got a call since this was last asked, or are running one."""
        return [worker_id for line in self._lines.values() for worker_id in line.stations.used()]

    def end(self, worker_ids: list[str]) -> None:
        """This server ends and drains these workers: calls that wait, or come now, get no other."""
        self._ended = NoWorker(ReasonCode.WORKER_STOPPED, "the server ended before a worker was free")
        self.drained(worker_ids)
        for line in self._lines.values():
            line.stations.fail_waiting(self._ended)

    async def close(self) -> None:
        # A start in its thread cannot be cancelled; its worker must be known before the end is declared.
        await asyncio.gather(*self._starts, *self._looking, return_exceptions=True)
        for line in self._lines.values():
            line.stations.close()

    # -- places -------------------------------------------------------------------------------------------

    async def place(self, line: Line) -> Station:
        """A worker with room for one call; give it back to ``line.stations``.  Raises NoWorker."""
        if self._ended is not None:
            raise self._ended
        station = line.stations.take()
        if station is not None:
            return station
        if line.stations.waiting >= self._options.queue_limit:
            raise NoWorker(
                ReasonCode.QUEUE_FULL,
                f"{self._options.queue_limit} calls of this function wait already ([scaling] queue_limit)",
            )
        return await self._wait(line)

    async def _wait(self, line: Line) -> Station:
        waiter = line.stations.wait()
        if len(line.stations) == 0:
            self._grow(line)
        if line.watch is None:
            line.moved = line.stations.given_back
            line.watch = self._loop.call_later(WATCH, self._look_at, line)
        try:
            return await waiter.place
        except asyncio.CancelledError:
            line.stations.leave(waiter)
            raise

    # PERF(watch): one timer looks at a line; two for each call in it cost 20 us a call.
    def _look_at(self, line: Line) -> None:
        line.watch = None
        now = self._loop.time()
        while (oldest := line.stations.oldest()) and now - oldest.since > self._options.queue_timeout:
            line.stations.expire(oldest, self._late(line))
        if oldest is None:
            return
        moved, line.moved = line.stations.given_back - line.moved, line.stations.given_back
        expected = line.stations.waiting * WATCH / moved if moved > 0 else math.inf
        if now - oldest.since >= WATCH and expected > self._options.patience and now >= line.grow_after:
            self._grow(line)
        line.watch = self._loop.call_later(WATCH, self._look_at, line)

    def _late(self, line: Line) -> NoWorker:
        waited = f"no worker became free within {self._options.queue_timeout:g} s ([scaling] queue_timeout)"
        if line.full is None or len(line.stations) > 0:
            return NoWorker(ReasonCode.QUEUE_TIMEOUT, waited)
        return NoWorker(ReasonCode.NO_CAPACITY, f"{waited}: {line.full.message}")

    # -- cold starts ----------------------------------------------------------------------------------------

    def _grow(self, line: Line) -> None:
        # Single flight: one start per `concurrency` calls that wait, the others wait on it.
        if line.starting * self._options.concurrency >= line.stations.waiting:
            return
        self._launch(line)

    def _launch(self, line: Line) -> None:
        line.starting += 1
        task = self._loop.create_task(self._run(self._start_sync, line.route))
        self._starts.add(task)
        task.add_done_callback(lambda ended: self._started(line, ended))

    def _started(self, line: Line, task: asyncio.Task[Worker]) -> None:
        self._starts.discard(task)
        line.starting -= 1
        if task.cancelled():
            return
        error = task.exception()
        line.full = error if isinstance(error, errors.NoCapacity) else None
        if error is not None:
            # What refused a worker now (a cap, an engine) is not asked again at every look.
            line.grow_after = self._loop.time() + ROOM_PAUSE
            self._start_failed(line, error)
        elif task.result().revision_id == line.route.revision_id:
            line.stations.add(self._station(task.result(), line.route, self._loop.time()))

    def _station(self, worker: Worker, route: Route, since: float) -> Station:
        return Station(worker, route.timeout, since, self._options.max_answer)

    def _start_sync(self, route: Route) -> Worker:
        try:
            return self._backend.start(route.revision_id)
        except errors.NoCapacity as error:
            if getattr(error, "kind", None) != "node":
                raise
            if not self.make_room(route.function_id):
                raise
        return self._backend.start(route.revision_id)

    def make_room(self, function_id: str) -> bool:
        """Stop an idle worker of another function; in a thread.  False: there is none."""
        return self._backend.make_room(function_id, self._forget_from_thread)

    def _forget_from_thread(self, worker_id: str) -> None:
        async def forget() -> None:
            self.drained([worker_id])

        asyncio.run_coroutine_threadsafe(forget(), self._loop).result()

    def _start_failed(self, line: Line, error: BaseException) -> None:
        if not isinstance(error, errors.FuncplatError):
            LOG.error("a worker of function %s could not be started", line.route.function_id, exc_info=error)
        if isinstance(error, errors.NotFound | errors.Conflict):
            # The function changed under the start, or another server started one: look again.
            self._watch(self._loop.create_task(self._look_again(line)))
        elif len(line.stations) == 0 and line.starting == 0:
            if line.full is None:
                line.stations.fail_waiting(NoWorker(ReasonCode.START_FAILED, str(error)))
            else:
                self._loop.call_later(ROOM_PAUSE, self._grow_again, line)

    def _grow_again(self, line: Line) -> None:
        if self._ended is None and line.stations.waiting and len(line.stations) == 0:
            self._grow(line)

    async def _look_again(self, line: Line) -> None:
        await asyncio.sleep(WATCH)  # what is in the way may stay there for a while
        await self._renew(line)
        if line.stations.waiting and len(line.stations) == 0:
            self._grow(line)

    def _watch(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Keep a background task alive to its end, and its failure from being reported as forgotten."""
        self._looking.add(task)
        task.add_done_callback(self._watched)
        return task

    def _watched(self, task: asyncio.Task[None]) -> None:
        self._looking.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, errors.NotFound):
            LOG.warning("a route could not be renewed or prepared: %s", error)

    # -- reading -----------------------------------------------------------------------------------------

    async def _first(self, function_id: str, version: int) -> Line:
        key = function_id, version
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = self._loop.create_task(self._read(function_id, version))
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        return await asyncio.shield(task)

    async def _read(self, function_id: str, version: int) -> Line:
        began = self._loop.time()
        route = await self._run(self._backend.read, function_id, version)
        line = self._lines[function_id, version] = Line(route, began)
        self._adopt(line, route, began)
        return line

    async def _renew(self, line: Line) -> None:
        began = self._loop.time()
        try:
            route = await self._run(self._backend.read, line.route.function_id, line.route.version)
        except errors.NotFound:
            self._drop(line)
            raise
        finally:
            line.renewing = None
        line.read_at = began
        if route.revision_id != line.route.revision_id:
            line.one_shot = None
            stations, line.stations = line.stations, Stations()
            stations.move_waiting(line.stations)
            stations.close()
        self._adopt(line, route, began)

    def _adopt(self, line: Line, route: Route, began: float) -> None:
        if route.timeout != line.route.timeout:
            line.stations.close()
        line.route = route
        known = {worker.id for worker in route.workers}
        for worker_id in line.stations.worker_ids:
            station = line.stations.has_worker(worker_id)
            # One that was started after the read began is not in what was read.
            if worker_id not in known and station is not None and station.since < began:
                line.stations.remove(worker_id)
        for worker in route.workers:
            line.stations.add(self._station(worker, route, began))
        if route.runtime_status not in USABLE:
            message = f"Runtime {route.runtime_id} is not available."
            line.stations.fail_waiting(NoWorker(ReasonCode.RUNTIME_NOT_AVAILABLE, message))
        if line.stations.waiting and len(line.stations) == 0:
            self._grow(line)

    def _drop(self, line: Line) -> None:
        self._lines.pop((line.route.function_id, line.route.version), None)
        line.stations.fail_waiting(
            NoWorker(ReasonCode.FUNCTION_DELETED, "the function was deleted while the call waited")
        )
        line.stations.close()
