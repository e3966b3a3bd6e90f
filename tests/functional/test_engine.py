"""The engine's loops on a real database: claims, leases, repairs and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import time
import types
from collections.abc import Awaitable, Callable
from typing import Any

import fixtures
import sqlalchemy as sa

from funcplat import bootstrap, errors
from funcplat.core.executions import Record
from funcplat.core.retention import RetentionOptions
from funcplat.db import models, session
from funcplat.engine import Engine
from tests.functional import core

LONG = 3600.0
"""Seconds between rounds that a test does not want to wait for."""
Scenario = Callable[[Engine], Awaitable[Any]]


class FakeCalls:
    """Runs claimed executions: each waits for `gate` and is then recorded as a success."""

    def __init__(self, test: EngineTests, run: Callable[..., Awaitable[Any]]) -> None:
        self._recording = test.recording()
        self._run = run
        self.gate = asyncio.Event()
        self.gate.set()
        self.started: list[str] = []
        self.failure: Exception | None = None

    async def run_claimed(self, record: Record) -> Record:
        self.started.append(record.id)
        if self.failure is not None:
            raise self.failure
        await self.gate.wait()
        record.status, record.updated_at = "success", session.micros()
        await asyncio.to_thread(self._recording.write, [record], True)
        return record


class FakeRouter:
    """Says which workers were used and hears which are drained."""

    def __init__(self) -> None:
        self.busy: list[str] = []
        self.heard: list[str] = []

    def used(self) -> list[str]:
        return self.busy

    def sweep(self) -> None:
        pass

    def drained(self, worker_ids: list[str]) -> None:
        self.heard += worker_ids


class EngineTests(core.CoreTest):
    retention = RetentionOptions(3600.0, 0.0)

    def setUp(self) -> None:
        super().setUp()
        self.logs = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        self.options = types.SimpleNamespace(
            poll_interval=LONG,
            reap_interval=LONG,
            schedule_interval=LONG,
            lease=3 * LONG,
            concurrency=10,
        )
        self.idle_timeout = LONG

    def run_engine(self, scenario: Scenario, server: core.Core | None = None, **options: Any) -> Any:
        """Start an engine, run a scenario with it, and stop it."""
        vars(self.options).update(options)

        async def run() -> Any:
            engine = self.build(server or self.core)
            engine.start()
            try:
                async with asyncio.timeout(core.PATIENCE):
                    return await scenario(engine)
            finally:
                await engine.stop(0.0)

        return asyncio.run(run())

    def build(self, server: core.Core) -> Engine:
        run = bootstrap.threads(4, "engine-tests")
        self.router, self.calls = FakeRouter(), FakeCalls(self, run)
        conf = types.SimpleNamespace(
            engine=self.options, scaling=types.SimpleNamespace(idle_timeout=self.idle_timeout)
        )
        services = types.SimpleNamespace(**vars(server), conf=conf)
        aliases = types.SimpleNamespace(sweep=lambda: None)
        invocation = types.SimpleNamespace(run=run, router=self.router, aliases=aliases, calls=self.calls)
        return Engine(services, invocation)

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await asyncio.sleep(0.01)

    def status(self, execution_id: str) -> str:
        return str(self.execution(execution_id).status)

    # -- retention ---------------------------------------------------------------------------------------

    def test_what_ended_long_ago_is_deleted(self) -> None:
        old = self.queue()
        self.change(models.executions, old.id, status="success", sync=True, created_at=1, updated_at=1)
        moved = "00000000" + old.id[8:]
        with self.db.write() as connection:
            connection.execute(sa.update(models.executions).values(id=moved))
        self.run_engine(lambda engine: self.until(lambda: not self.rows(models.executions)))

    # -- the queue ---------------------------------------------------------------------------------------

    def test_what_was_queued_before_the_start_is_run(self) -> None:
        ids = [self.queue().id for _ in range(3)]
        self.run_engine(lambda engine: self.until(lambda: {self.status(each) for each in ids} == {"success"}))

    def test_a_queue_that_is_woken_is_looked_at_at_once(self) -> None:
        async def scenario(engine: Engine) -> float:
            await asyncio.sleep(0.2)  # the first round is over, the next one an hour away
            queued, began = self.queue(), time.monotonic()
            engine.wake_queue()
            await self.until(lambda: queued.id in self.calls.started)
            return time.monotonic() - began

        self.assertLess(self.run_engine(scenario), 5.0)

    def test_what_others_queue_is_found_by_polling(self) -> None:
        async def scenario(engine: Engine) -> None:
            await asyncio.sleep(0.1)
            queued = self.queue()
            await self.until(lambda: self.status(queued.id) == "success")

        self.run_engine(scenario, poll_interval=0.05)

    def test_no_more_run_at_once_than_the_concurrency(self) -> None:
        for _ in range(5):
            self.queue()

        async def scenario(engine: Engine) -> int:
            self.calls.gate.clear()
            await self.until(lambda: len(self.calls.started) >= 2)
            engine.wake_queue()
            await asyncio.sleep(0.2)
            running = len(self.calls.started)
            self.calls.gate.set()
            await self.until(lambda: len(self.calls.started) == 5)
            return running

        self.assertEqual(2, self.run_engine(scenario, concurrency=2))

    def test_an_engine_that_takes_no_queue_claims_nothing(self) -> None:
        queued = self.queue()

        async def scenario() -> None:
            engine = self.build(self.core)
            engine._takes_queue = False
            engine.start()
            await asyncio.sleep(0.2)
            await engine.stop(0.0)

        asyncio.run(scenario())
        self.assertEqual("queued", self.status(queued.id))

    def test_a_call_that_fails_to_be_settled_is_logged_and_the_next_is_run(self) -> None:
        async def scenario(engine: Engine) -> None:
            self.calls.failure = errors.DriverUnavailable("the database does not answer")
            self.queue()
            engine.wake_queue()
            await self.until(lambda: self.calls.started)
            self.calls.failure = None
            queued = self.queue()
            engine.wake_queue()
            await self.until(lambda: self.status(queued.id) == "success")

        self.run_engine(scenario)
        self.assertIn("a claimed execution could not be settled", self.logs.output)

    # -- rounds that fail ---------------------------------------------------------------------------------

    def broken_once(self, error: Exception) -> None:
        """The first claim fails."""
        claim, failures = self.core.queue.claim, [error]

        def fail_first(*arguments: Any) -> list[Record]:
            if failures:
                raise failures.pop()
            return claim(*arguments)

        self.core.queue.claim = fail_first

    def test_a_round_that_raises_does_not_end_its_loop(self) -> None:
        for error in (errors.DriverUnavailable("not now"), ZeroDivisionError("a defect")):
            queued = self.queue()
            self.broken_once(error)
            self.run_engine(
                lambda engine, queued=queued: self.until(lambda: self.status(queued.id) == "success"),
                poll_interval=0.05,
            )

    def test_a_defect_is_logged_with_its_traceback_and_an_outage_in_a_line(self) -> None:
        async def scenario(engine: Engine) -> None:
            await self.until(lambda: "queue: " in self.logs.output)

        self.broken_once(errors.DriverUnavailable("not now"))
        self.run_engine(scenario)
        self.assertNotIn("Traceback", self.logs.output)
        self.broken_once(ZeroDivisionError("a defect"))
        self.run_engine(lambda engine: self.until(lambda: "ZeroDivisionError" in self.logs.output))
        self.assertIn("queue: a round failed", self.logs.output)

    # -- the end -------------------------------------------------------------------------------------------

    def test_stop_waits_for_what_runs(self) -> None:
        queued = self.queue()

        async def scenario(engine: Engine) -> None:
            self.calls.gate.clear()
            await self.until(lambda: self.calls.started)
            asyncio.get_running_loop().call_later(0.1, self.calls.gate.set)
            await engine.stop(core.PATIENCE)

        self.run_engine(scenario)
        self.assertEqual("success", self.status(queued.id))

    def test_stop_queues_again_what_does_not_end_within_the_grace(self) -> None:
        queued = self.queue()

        async def scenario(engine: Engine) -> None:
            self.calls.gate.clear()
            await self.until(lambda: self.calls.started)
            await engine.stop(0.05)

        self.run_engine(scenario)
        self.assertEqual("queued", self.status(queued.id))

    def test_a_claim_under_way_when_the_engine_is_stopped_is_not_lost(self) -> None:
        queued = self.queue()
        claim = self.core.queue.claim

        def slow_claim(*arguments: Any) -> list[Record]:
            claimed = claim(*arguments)
            time.sleep(0.2)
            return claimed

        self.core.queue.claim = slow_claim

        async def scenario(engine: Engine) -> None:
            self.calls.gate.clear()
            await self.until(lambda: self.status(queued.id) == "running")
            await engine.stop(0.0)

        self.run_engine(scenario)
        self.assertEqual("queued", self.status(queued.id))

    def test_a_second_stop_is_a_no_op(self) -> None:
        async def scenario(engine: Engine) -> None:
            await engine.stop(0.0)
            await engine.stop(0.0)

        self.run_engine(scenario)

    # -- leases ------------------------------------------------------------------------------------------

    def test_the_lease_is_renewed_three_times_in_its_span(self) -> None:
        renewals = []
        renew = self.core.servers.renew
        self.core.servers.renew = lambda: renewals.append(time.monotonic()) or renew()
        self.run_engine(lambda engine: self.until(lambda: len(renewals) > 2), lease=0.3)

    def test_a_server_whose_lease_was_lost_starts_afresh(self) -> None:
        self.server().servers.forget_others()

        async def scenario(engine: Engine) -> None:
            await self.until(lambda: self.row(models.servers, self.core.server_id))

        self.run_engine(scenario)
        self.assertIn("lease was over", self.logs.output)

    def test_what_a_lost_server_ran_is_run_again(self) -> None:
        gone = self.server()
        queued = self.queue()
        gone.queue.claim(1)
        gone.servers.leave()
        self.run_engine(
            lambda engine: self.until(lambda: self.status(queued.id) == "success"), poll_interval=0.05
        )
        self.assertEqual(2, self.execution(queued.id).attempt)

    # -- repairs -----------------------------------------------------------------------------------------

    def test_runtimes_are_settled_when_woken(self) -> None:
        async def scenario(engine: Engine) -> None:
            await asyncio.sleep(0.1)
            created = self.core.runtimes.create(core.ADMIN, core.runtimes.NewRuntime("python3"))
            engine.wake_changes()
            get = self.core.runtimes.get
            await self.until(lambda: get(core.ADMIN, created.id).status == "available")

        self.run_engine(scenario)

    def test_idle_workers_are_drained_told_to_the_router_and_stopped(self) -> None:
        worker_id = self.start(self.function())
        self.idle_timeout = -1.0
        self.run_engine(lambda engine: self.until(lambda: self.state(worker_id) == ("deleted", "idle")))
        self.assertEqual([worker_id], self.router.heard)

    def test_workers_that_the_router_uses_are_not_idle(self) -> None:
        worker_id = self.start(self.function())
        self.change(models.workers, worker_id, used_at=0)

        async def scenario(engine: Engine) -> None:
            self.router.busy = [worker_id]
            await self.until(lambda: self.worker(worker_id).used_at > 0)

        self.run_engine(scenario)
        self.assertEqual(("ready", None), self.state(worker_id))

    def test_dead_workers_are_found(self) -> None:
        worker_id = self.start(self.function())
        self.engine.kill(worker_id)
        self.run_engine(lambda engine: self.until(lambda: self.state(worker_id)[0] == "deleted"))

    def test_servers_whose_lease_is_over_are_removed(self) -> None:
        late = self.server()
        self.change(models.servers, late.server_id, lease_expires_at=1)
        self.run_engine(lambda engine: self.until(lambda: self.row(models.servers, late.server_id) is None))
