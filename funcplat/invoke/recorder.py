"""Records of executions, written in batches: whatever arrives while one transaction runs is the next one.

One thread writes, so that the event loop never waits for a database, and so that a hundred calls at once
cost one commit, not a hundred.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from funcplat import errors
from funcplat.core.executions import Record

LOG = logging.getLogger(__name__)
MAX_BATCH = 512
"""Records of one transaction at most, so that none waits long for its neighbours."""

GATHER = 0.001
"""Seconds that a batch is left open for more, when the one before had more than one record."""

Item = tuple[Record, bool, "asyncio.Future[None]"]


class Recorder:
    """Writes records.  `write` belongs to one event loop."""

    def __init__(self, record: Callable[[Sequence[Record], bool], None]) -> None:
        """``record(batch, durable)`` writes a batch in one transaction; raises FuncplatError."""
        self._record = record
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, record: Record, durable: bool = False) -> asyncio.Future[None]:
        """Queue a record; the future is done when it is committed, and fails when it cannot be."""
        future = self._loop.create_future()
        self._queue.put((record, durable, future))
        return future

    async def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        crowd = 1
        while (first := self._queue.get()) is not None:
            if crowd > 1:
                # PERF(gather): many calls are under way, so more ends are about to come; a millisecond makes
                # their transactions one (as PostgreSQL's commit_delay does). A call alone never waits.
                time.sleep(GATHER)
            batch, ended = self._take(first)
            crowd = len(batch)
            outcomes = self._write(batch)
            self._loop.call_soon_threadsafe(_resolve, batch, outcomes)
            if ended:
                return

    def _take(self, first: Item) -> tuple[list[Item], bool]:
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _write(self, batch: list[Item]) -> list[BaseException | None]:
        error = self._attempt(batch)
        if error is None or len(batch) == 1:
            return [error] * len(batch)
        # One bad record must not take its neighbours with it.
        return [self._attempt([item]) for item in batch]

    def _attempt(self, batch: list[Item]) -> BaseException | None:
        try:
            self._record([item[0] for item in batch], any(item[1] for item in batch))
        except errors.FuncplatError as error:
            LOG.error("%d executions could not be recorded: %s", len(batch), error)  # noqa: TRY400
            return error
        except Exception as error:  # the thread must live; the callers get the error
            LOG.exception("%d executions could not be recorded", len(batch))
            return error
        return None


def _resolve(batch: list[Item], outcomes: list[BaseException | None]) -> None:
    for (_, _, future), error in zip(batch, outcomes, strict=True):
        if future.cancelled():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
