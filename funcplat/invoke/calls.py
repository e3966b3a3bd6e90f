"""Calls: one execution from its record to its outcome, synchronous or taken from the queue.

A failing function is a result, never an exception: every path through `Calls` ends in a record that says what
happened.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import tenacity

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.errors import Reason, ReasonCode
from funcplat.invoke import cancelling, client
from funcplat.invoke.oneshots import OneShots
from funcplat.invoke.recorder import Recorder
from funcplat.invoke.router import USABLE, Line, NoWorker, Router
from funcplat.invoke.stations import Station

LOG = logging.getLogger(__name__)
T = TypeVar("T")
TICK = 0.25
"""Seconds between looks at what runs."""
RECORD_AFTER = 1.0
"""Seconds after which a synchronous execution that still runs gets a row."""
FULL_PAUSE = 0.02
"""Seconds that a worker is left alone which other routers have filled."""
ANSWER_GRACE = 10.0
"""Seconds beyond all its deadlines after which a worker that does not answer counts as dead."""
MAX_INSIST_PAUSE = 5.0
"""Seconds between attempts to record an end while the database does not answer."""
MAX_REFUSALS = 50
"""How often a call may be refused and sent elsewhere before it ends; each time it waited for a place."""
CAUSE_PATIENCE = 3.0
"""Seconds that a call whose worker died waits to be told how that happened."""
MAX_UNREACHED = 3
"""How many workers in a row may be unreachable for a call before it ends."""


class _Running:
    """An execution that runs here."""

    __slots__ = ("cancelled", "connection", "deadline", "record", "started", "station", "task")

    def __init__(self, record: Record, started: float) -> None:
        self.record = record
        self.started = started  # the loop's time
        self.station: Station | None = None
        self.connection: client.Connection | None = None
        self.deadline = 0.0  # the loop's time after which the connection is closed
        self.task = asyncio.current_task()
        self.cancelled = False  # the task was interrupted, and the execution shall end


class Calls:
    """Runs executions.  Belongs to one event loop."""

    def __init__(
        self,
        router: Router,
        one_shots: OneShots,
        recorder: Recorder,
        server_id: str,
        import_timeout: float,
        lost: Callable[[str], Coroutine[Any, Any, str | None]],
        judge: Callable[[Record], None],
    ) -> None:
        """``lost(worker_id)`` is told of workers that are gone, and may know how they ended.

        ``import_timeout`` in seconds; ``judge(record)`` decides what becomes of an asynchronous execution
        whose attempt has ended.
        """
        self._router = router
        self._one_shots = one_shots
        self._recorder = recorder
        self._server_id = server_id
        self._import_timeout = import_timeout
        self._lost = lost
        self._judge = judge
        self._loop = asyncio.get_running_loop()
        self._background: set[asyncio.Task[Any]] = set()
        self._running: dict[str, _Running] = {}
        self._tick: asyncio.TimerHandle | None = None

    async def run(self, line: Line, record: Record) -> Record:
        """Run a synchronous execution; its record is committed when this returns."""
        await self._execute(line, record)
        await self._write(record, durable=False)
        return record

    async def accept(self, record: Record) -> None:
        """Queue an asynchronous execution; it is durable when this returns."""
        await self._recorder.write(record, durable=True)

    async def run_claimed(self, record: Record) -> Record:
        """Run an execution that this server claimed from the queue."""
        try:
            line = await self._router.line(record.function_id, record.function_version)
        except errors.NotFound as error:
            self._fail(record, Reason(ReasonCode.FUNCTION_DELETED, error.message))
        else:
            await self._execute(line, record)
        self._judge(record)
        await self._write(record, durable=True)
        return record

    async def cancel(self, execution_id: str) -> None:
        """End an execution that runs here; without effect where it does not, or has ended meanwhile.

        Whether it has ended shows in its record.  To be called again until then: a worker is not always
        able to end a call at the first moment.
        """
        running = self._running.get(execution_id)
        if running is None:
            return
        if self._one_shots.under_way(execution_id):
            running.cancelled = True
            await self._one_shots.cancel(execution_id)
            return
        heard = False
        if running.connection is not None and running.station is not None:
            heard = await cancelling.tell(running.station, execution_id)
        # A worker that cannot cancel is left to itself.
        if not heard and self._running.get(execution_id) is running and running.task is not None:
            running.cancelled = True
            running.task.cancel()

    async def live_log(self, execution_id: str, offset: int) -> bytes | None:
        """What an execution that runs here has written from ``offset`` on; None where it does not."""
        running = self._running.get(execution_id)
        if running is None or running.station is None:
            return None
        station = running.station
        try:
            connection = await client.connect(station.worker.handle.address)
        except client.NotReached:
            return None
        try:
            return await client.live_log(connection, station.worker.secret, execution_id, offset)
        except errors.WorkerError:
            return None
        finally:
            connection.close()

    async def close(self) -> None:
        """Wait for what is left to do, for a moment; then another server must settle it."""
        if self._tick is not None:
            self._tick.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=MAX_INSIST_PAUSE)
        for task in self._background:
            task.cancel()

    async def _write(self, record: Record, durable: bool) -> None:
        try:
            await self._recorder.write(record, durable, len(self._running))
        except errors.DriverUnavailable:
            if record.inserted:
                # A row says that it runs, and this server lives: nobody else would ever end it.
                self._spawn(self._insist(record, durable))
            raise
        except errors.DriverError as error:
            # The database refuses what the function left (a worker can send anything): keep the rest.
            record.log = None
            self._fail(record, Reason(ReasonCode.PLATFORM_ERROR, f"its outcome is not storable: {error}"))
            record.dead, record.delay = not record.sync, 0.0
            await self._recorder.write(record, durable)

    async def _insist(self, record: Record, durable: bool) -> None:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(errors.DriverUnavailable),
            wait=tenacity.wait_random_exponential(max=MAX_INSIST_PAUSE),
        ):
            with attempt:
                await self._recorder.write(record, durable)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("what a call left to do in the background failed", exc_info=error)

    # -- one execution -----------------------------------------------------------------------------------

    async def _execute(self, line: Line, record: Record) -> None:
        running = self._running[record.id] = _Running(record, self._loop.time())
        if self._tick is None:
            self._tick = self._loop.call_later(TICK, self._look)
        try:
            if line.route.image is not None and await self._one_shots.takes(line):
                await self._one_shots.run(line.route, record)
                if running.cancelled and record.status != "success":
                    cancelling.end(record)
            else:
                await self._until_taken(line, running)
        except NoWorker as error:
            self._fail(record, error.reason)
            if running.cancelled:
                cancelling.end(record)
        except errors.NotFound as error:
            self._fail(record, Reason(ReasonCode.FUNCTION_DELETED, error.message))
        except asyncio.CancelledError:
            if not running.cancelled or running.task is None or running.task.uncancel() > 0:
                raise  # this server ends
            cancelling.end(record)
        finally:
            del self._running[record.id]
            record.updated_at = time.time_ns() // 1000

    async def _until_taken(self, line: Line, running: _Running) -> None:
        unreached = 0
        for _ in range(MAX_REFUSALS):
            try:
                if await self._attempt(line, running):
                    return
            except client.NotReached as error:
                unreached += 1
                if unreached == MAX_UNREACHED:
                    message = f"{unreached} workers in a row could not be reached: {error.message}"
                    raise NoWorker(ReasonCode.WORKER_DIED, message) from error
        raise NoWorker(ReasonCode.QUEUE_TIMEOUT, "every worker refused the call, again and again")

    async def _attempt(self, line: Line, running: _Running) -> bool:
        """Run the execution on one worker; False: it refused.  Raises NotReached."""
        if line.route.runtime_status not in USABLE:
            message = f"Runtime {line.route.runtime_id} is not available."
            raise NoWorker(ReasonCode.RUNTIME_NOT_AVAILABLE, message)
        station = await self._router.place(line)
        stations = line.stations
        record = running.record
        try:
            return await self._call(station, line, running)
        except client.Refused as error:
            if error.draining:
                stations.remove(station.worker.id)
                self._router.changed(record.function_id)
                await self._router.line(record.function_id, record.function_version)
            else:
                station.in_flight += 1
                stations.refuse(station, FULL_PAUSE)
            return False
        except client.NotReached:
            stations.remove(station.worker.id)
            self._report(station)
            raise
        finally:
            stations.give_back(station)

    async def _call(self, station: Station, line: Line, running: _Running) -> bool:
        record = running.record
        record.worker_id = station.worker.id
        running.station = station
        connection = running.connection = await station.connection()
        running.deadline = self._loop.time() + line.route.timeout + self._import_timeout + ANSWER_GRACE
        body = arguments(record.input)
        try:
            answer = await client.invoke(connection, station.head, record.id, body)
        except client.Refused:
            station.connections.append(connection)
            raise
        except client.NotReached:
            raise
        except errors.WorkerError as error:
            await self._worker_failed(station, record, error)
            return True
        finally:
            running.connection = None
        if not station.gone:
            station.connections.append(connection)
        else:
            connection.close()
        _conclude(record, answer)
        return True

    async def _worker_failed(self, station: Station, record: Record, error: errors.WorkerError) -> None:
        if station.gone:
            # It was drained while the call ran, and its grace was over first.
            reason = Reason(ReasonCode.WORKER_STOPPED, "the worker was stopped before the execution ended")
        else:
            cause = await self._cause(station) or error.message
            reason = Reason(ReasonCode.WORKER_DIED, f"the worker died during the execution: {cause}")
        record.status = "failed"
        record.result = _text("Function execution failed.")
        record.reason_code, record.reason_message = reason.code, reason.message

    def _fail(self, record: Record, reason: Reason) -> None:
        record.status = "error"
        record.result = _text("Function execution failed.")
        record.reason_code, record.reason_message = reason.code, reason.message
        LOG.warning("execution %s: error: %s", record.id, reason.message)

    def _report(self, station: Station) -> asyncio.Task[str | None]:
        return self._spawn(self._lost(station.worker.id))

    async def _cause(self, station: Station) -> str | None:
        """How the worker ended, if that becomes known soon."""
        task = self._report(station)
        await asyncio.wait({task}, timeout=CAUSE_PATIENCE)
        known = task.done() and not task.cancelled() and task.exception() is None
        return task.result() if known else None

    def _look(self) -> None:
        # PERF(tick): one timer for all calls; two for each of them cost 10 us a call.
        now = self._loop.time()
        for running in self._running.values():
            if now - running.started > RECORD_AFTER and not running.record.inserted:
                self._record_running(running.record)
            if running.connection is not None and now > running.deadline:
                running.connection.close()
        self._tick = self._loop.call_later(TICK, self._look) if self._running else None

    def _record_running(self, record: Record) -> None:
        if record.sync:
            record.inserted = record.counted = True
            running = Record(**{name: getattr(record, name) for name in Record.__slots__})
            running.inserted = running.counted = False
            self._recorder.write(running).add_done_callback(functools.partial(_noticed, record))


def arguments(text: str | None) -> bytes:
    """A call's body from an execution's input: a JSON object, or ``null`` for none.

    What is not a JSON object goes to the function as ``__function_input`` (API.md section 8).
    """
    if text is None:
        return b"null"
    if text.startswith("{"):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            # An object nested so deeply was refused at the door; what runs out here is broken further on.
            return json.dumps({"__function_input": text}).encode()
        return text.encode()
    return json.dumps({"__function_input": text}).encode()


def _conclude(record: Record, answer: client.Answer) -> None:
    record.status = "success" if answer.success else "failed"
    result = answer.result.decode("utf-8", "replace")
    if not _is_json(answer.result):
        # A function can say anything in its worker's name; callers parse what is recorded.
        answer = dataclasses.replace(
            answer, reason=ReasonCode.RESULT_NOT_JSON, message="the result is not JSON"
        )
        record.status, result = "failed", json.dumps(result)
    record.result = f'{{"output": {result}, "duration": {answer.duration}}}'
    record.log = answer.log or None
    known = answer.reason is None or answer.reason in _CODES  # else the function made it up
    record.reason_code = answer.reason if known else ReasonCode.FUNCTION_RAISED
    record.reason_message = answer.message
    if answer.log_dropped:
        note = f"{answer.log_dropped} bytes of output were dropped ([resource_limits] max_log)"
        if answer.reason in (None, ReasonCode.LOG_TRUNCATED):
            record.reason_code, record.reason_message = ReasonCode.LOG_TRUNCATED, note
        else:
            record.reason_message = f"{answer.message}; {note}"


_CODES = frozenset(ReasonCode)


def _is_json(result: bytes) -> bool:
    try:
        msgspec.json.decode(result, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _text(output: str) -> str:
    return json.dumps({"output": output})


def _noticed(record: Record, future: asyncio.Future[None]) -> None:
    # The recorder has logged it; the execution's end is written all the same, as a row of its own.
    if not future.cancelled() and future.exception() is not None:
        record.inserted = record.counted = False
