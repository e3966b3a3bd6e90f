"""Records of executions, written in batches: whatever arrives while one transaction runs is the next one.

A hundred calls at once cost one commit, not a hundred.  One thread writes, so that the event loop never
waits for a database.  An embedded database makes nobody wait for most of its commits, which it copies to
the cache of the operating system: for those a thread would cost more than the commit, and the loop writes.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence

from funcplat import errors
from funcplat.core.executions import Record

LOG = logging.getLogger(__name__)
MAX_BATCH = 512
"""Records of one transaction at most, so that none waits long for its neighbours."""

GATHER = 0.001
"""Seconds that a batch is left open for more, when the one before had more than one record."""

MAX_PAUSE = 0.002
SHARE = 4
"""The loop leaves its batch open until a fourth of the calls under way are in it, if that is to be expected
within ``MAX_PAUSE`` seconds. A transaction of one record costs as much as one of eight."""

MAX_INLINE = 32 * 1024
"""Characters and bytes of a record that the loop writes at most; copying more takes its time."""

INLINE_RUN, THREAD_RUN = 200, 2
"""After so many batches of the loop, so many of the thread: its connection may wait for the disk, and moves
the database's log into its file when that is due, and begins the log anew."""

Item = tuple[Record, bool, "asyncio.Future[None]"]


class Recorder:
    """Writes records.  `write` belongs to one event loop."""

    def __init__(
        self,
        record: Callable[[Sequence[Record], bool], None],
        record_now: Callable[[Sequence[Record]], None] | None = None,
    ) -> None:
        """``record(batch, durable)`` writes a batch in one transaction; raises FuncplatError.

        ``record_now(batch)``, where there is one, writes a batch that need not be durable, at once, or raises
        Busy at once.
        """
        self._record = record
        self._record_now = record_now
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._with_thread = 0  # records that the thread has and that are not resolved
        self._pending: list[Item] = []  # for the loop, at the end of its turn
        self._turns = 0
        self._due = False  # at the end of this turn
        self._timer: asyncio.TimerHandle | None = None  # for the end of a pause
        self._pace = 1.0  # seconds between records, of late
        self._last = 0.0  # the loop's time of the last record
        self._loop = asyncio.get_running_loop()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, record: Record, durable: bool = False, others: int = 0) -> asyncio.Future[None]:
        """Queue a record; the future is done when it is committed, and fails when it cannot be.

        ``others`` is how many calls are under way whose records will come.
        """
        future = self._loop.create_future()
        item = record, durable, future
        # In the order in which they came, two of one execution above all: the thread gets all or none.
        if self._with_thread or self._record_now is None or durable or not _is_small(record):
            pending, self._pending = self._pending, []
            self._hand_over([*pending, item])
        else:
            self._pending.append(item)
            self._schedule(others)
        return future

    async def close(self) -> None:
        """Write what is queued and end the thread."""
        self._write_pending()
        self._queue.put(None)
        self._ending.set()
        await asyncio.to_thread(self._thread.join)

    # -- in the loop -------------------------------------------------------------------------------------

    def _schedule(self, others: int) -> None:
        now = self._loop.time()
        self._pace += (min(now - self._last, 1.0) - self._pace) / 8
        self._last = now
        wanted = (len(self._pending) + others) // SHARE
        if self._due:
            return
        if len(self._pending) >= wanted or self._pace * wanted > MAX_PAUSE:
            self._due = True
            self._loop.call_soon(self._write_pending)
        elif self._timer is None:
            self._timer = self._loop.call_later(MAX_PAUSE, self._write_pending)

    def _write_pending(self) -> None:
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._pending = self._pending, []
        if not batch:
            return
        self._turns = (self._turns + 1) % (INLINE_RUN + THREAD_RUN)
        if self._with_thread or self._turns >= INLINE_RUN:
            self._hand_over(batch)
            return
        assert self._record_now is not None
        written = False
        try:
            self._record_now([item[0] for item in batch])
            written = True
        except errors.FuncplatError as error:
            LOG.debug("a batch goes to the recorder's thread: %s", error)  # which finds out whose fault it is
        finally:
            if written:
                _resolve(batch, [None] * len(batch))
            else:
                self._hand_over(batch)

    def _hand_over(self, batch: list[Item]) -> None:
        self._with_thread += len(batch)
        for item in batch:
            self._queue.put(item)

    def _taken_back(self, batch: list[Item], outcomes: list[BaseException | None]) -> None:
        self._with_thread -= len(batch)
        _resolve(batch, outcomes)

    # -- in the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        crowd = 1
        while (first := self._queue.get()) is not None:
            if crowd > 1:
                # PERF(gather): many calls are under way, so more ends are about to come; a millisecond makes
                # their transactions one (as PostgreSQL's commit_delay does). A call alone never waits.
                self._ending.wait(GATHER)
            batch, ended = self._take(first)
            crowd = len(batch)
            outcomes = self._write(batch)
            self._loop.call_soon_threadsafe(self._taken_back, batch, outcomes)
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


def _is_small(record: Record) -> bool:
    size = len(record.result or "") + len(record.log or b"") + len(record.input or "")
    return size <= MAX_INLINE
