"""The engine: loops that do what nobody waits for.

Each loop claims rows and is stateless, so that any number of engines may run, without a leader; each survives
whatever one round of it meets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from funcplat import errors
from funcplat.bootstrap import Invocation, Services, threads
from funcplat.core.executions import Record
from funcplat.core.turns import Lane

LOG = logging.getLogger(__name__)
PURGE_AGE = 3600.0
"""Seconds that rows of deleted workers are kept, for whoever asks why a worker ended."""
SWEEP_INTERVAL = 60.0
"""Seconds between looks for packages that nothing refers to."""
RETENTION_INTERVAL = 300.0
"""Seconds between looks for executions and logs that are old enough to be deleted."""
FORGOTTEN_AFTER = 1.5
"""Seconds after which no call is on its way to a draining worker: routers forget it within one."""
MAX_TICKS = 100
"""Jobs of which a tick is made in one transaction."""
SETTLE_INTERVAL = 1.0
"""Seconds between looks for what dead servers ran, and for what has waited for too long."""
CANCEL_INTERVAL = 0.5
"""Seconds between looks for executions that shall end."""
DRAIN_INTERVAL = 0.1
"""Seconds between looks at draining workers, while there are any."""


class Engine:
    """Runs the loops.  Belongs to one event loop."""

    def __init__(self, services: Services, invocation: Invocation, takes_queue: bool = True) -> None:
        """Not ``takes_queue``: only what every server must do for the workers and calls of its own."""
        self._services = services
        self._invocation = invocation
        self._run = invocation.run
        self._options = services.conf.engine
        self._queued = asyncio.Event()
        self._changed = asyncio.Event()
        self._scheduled = asyncio.Event()
        self._takes_queue = takes_queue
        self._stopping = False
        self._claiming = asyncio.Lock()
        self._executions: dict[asyncio.Task[Record], Lane] = {}
        # Of its own: whatever keeps the others busy must not make this server look dead.
        self._lease_thread = threads(1, "lease")
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        poll, reap = self._options.poll_interval, self._options.reap_interval
        rounds: list[tuple[str, float, Callable[[], Awaitable[None]], asyncio.Event | None]] = [
            ("changes", poll, self._settle, self._changed),
            ("leases", self._options.lease / 3, self._renew, None),
            ("reaper", reap, self._reap, None),
            ("lost executions", SETTLE_INTERVAL, self._settle_lost, None),
            ("cancellations", CANCEL_INTERVAL, self._cancel, None),
        ]
        if self._takes_queue:
            rounds.append(("queue", poll, self._claim, self._queued))
            rounds.append(("schedule", self._options.schedule_interval, self._schedule, self._scheduled))
            rounds.append(("delayed executions", poll, self._promote, None))
            rounds.append(("sweeper", SWEEP_INTERVAL, self._sweep, None))
            rounds.append(("retention", RETENTION_INTERVAL, self._retain, None))
        self._loops = [asyncio.create_task(self._loop(*each), name=each[0]) for each in rounds]

    def wake_queue(self) -> None:
        """An execution was queued by this process."""
        self._queued.set()

    def wake_changes(self) -> None:
        """A runtime or a worker was changed by this process."""
        self._changed.set()

    def wake_schedule(self) -> None:
        """A job was made or changed by this process."""
        self._scheduled.set()

    async def drain(self, grace: float) -> None:
        """Claim no more, and let what runs end within ``grace`` seconds."""
        self._stopping = True
        async with self._claiming:  # a claim under way must have started what it got
            pass
        if self._executions:
            await asyncio.wait(self._executions, timeout=grace)

    async def stop(self, grace: float) -> None:
        """Drain, queue again what did not end, and end the loops."""
        await self.drain(grace)
        for task in self._executions:
            task.cancel()
        await asyncio.gather(*self._executions, return_exceptions=True)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if released := await self._run(self._services.queue.release):
            LOG.info("%d unfinished executions are queued again", released)

    # -- the loops -----------------------------------------------------------------------------------------

    async def _loop(
        self, name: str, interval: float, work: Callable[[], Awaitable[None]], wake: asyncio.Event | None
    ) -> None:
        while True:
            try:
                await work()
            except errors.FuncplatError as error:
                LOG.warning("%s: %s", name, error)
            except Exception:  # a loop must survive a defect in one of its rounds
                LOG.exception("%s: a round failed", name)
            await self._pause(interval, wake)

    async def _pause(self, interval: float, wake: asyncio.Event | None) -> None:
        if wake is None:
            await asyncio.sleep(interval)
            return
        try:
            async with asyncio.timeout(interval):
                await wake.wait()
        except TimeoutError:
            return
        wake.clear()

    async def _promote(self) -> None:
        if await self._run(self._services.queue.promote):
            self.wake_queue()

    async def _claim(self) -> None:
        while await self._claim_some():
            pass

    async def _claim_some(self) -> bool:
        """Whether there may be more."""
        async with self._claiming:
            room = self._options.concurrency - len(self._executions)
            if self._stopping or room <= 0:
                return False
            lanes = list(self._executions.values())
            claimed: list[Record] = await self._run(self._services.queue.claim, room, lanes)
            for record in claimed:
                task = asyncio.create_task(self._invocation.calls.run_claimed(record))
                self._executions[task] = record.project_id, record.function_id
                task.add_done_callback(self._finished)
            return bool(claimed)

    def _finished(self, task: asyncio.Task[Record]) -> None:
        del self._executions[task]
        self._queued.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a claimed execution could not be settled", exc_info=error)

    async def _schedule(self) -> None:
        wait: float | None = 0.0
        while wait is not None and wait <= 0 and not self._stopping:
            wait = await self._make_ticks()
        if wait is not None and wait < self._options.schedule_interval:
            asyncio.get_running_loop().call_later(wait, self._scheduled.set)

    async def _make_ticks(self) -> float | None:
        try:
            made = await self._run(self._services.ticks.make, MAX_TICKS)
        except errors.FuncplatError:
            raise
        except Exception:  # a defect that one job brings out must not keep the others from running
            LOG.exception("ticks could not be made together; they are made one by one")
            return await self._make_ticks_apart()
        if made.made:
            self.wake_queue()
        wait: float | None = made.wait
        return wait

    async def _make_ticks_apart(self) -> float | None:
        ticks = self._services.ticks
        for job_id in await self._run(ticks.due, MAX_TICKS):
            try:
                await self._run(ticks.make, 1, job_id)
            except errors.FuncplatError:
                raise
            except Exception:  # the same, and now it is known which
                LOG.exception("job %s is paused", job_id)
                await self._run(
                    ticks.suspend, job_id, "its tick could not be made; the server's log says why"
                )
        self.wake_queue()
        return None

    async def _settle(self) -> None:
        await self._run(self._services.runtimes.settle)
        await self._run(self._services.workers.stop_drained, FORGOTTEN_AFTER)
        while not self._changed.is_set() and await self._run(self._services.workers.draining):
            await asyncio.sleep(DRAIN_INTERVAL)
            await self._run(self._services.workers.stop_drained, FORGOTTEN_AFTER)

    async def _renew(self) -> None:
        if not await self._lease_thread(self._services.servers.renew):
            LOG.error("this server's lease was over: others have taken its executions; it starts afresh")
            await self._lease_thread(self._services.servers.register)

    async def _settle_lost(self) -> None:
        if await self._run(self._services.queue.settle_lost):
            self.wake_queue()
        await self._run(self._services.queue.expire)

    async def _cancel(self) -> None:
        for execution_id in await self._run(self._services.queue.cancellations):
            await self._invocation.calls.cancel(execution_id)

    async def _reap(self) -> None:
        services, router = self._services, self._invocation.router
        if used := router.used():
            await self._run(services.workers.touch, used)
        router.sweep()
        self._invocation.aliases.sweep()
        if drained := await self._run(services.workers.drain_idle, services.conf.scaling.idle_timeout):
            router.drained(drained)
            self.wake_changes()
        await self._run(services.servers.remove_expired)
        await self._run(services.workers.reap)

    async def _sweep(self) -> None:
        await self._run(self._services.workers.purge, PURGE_AGE)
        await self._run(self._services.deliveries.forget)
        await self._run(self._services.store.sweep)
        await self._run(self._services.idempotency.sweep)

    async def _retain(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while await self._run(self._services.retention.sweep):
            await asyncio.sleep(clock() - began)  # half of the time is for others
            began = clock()
