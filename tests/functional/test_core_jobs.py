"""Jobs and their ticks on a real database, by a clock that the tests set."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import functools
import threading
import time
import types
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fixtures
import sqlalchemy as sa

from funcplat import bootstrap, errors
from funcplat.core import aliases, queueing, ticks
from funcplat.core.crons import SECOND
from funcplat.core.jobs import Changes, Job, NewJob
from funcplat.core.targets import Reference
from funcplat.core.ticks import Round
from funcplat.db import models
from funcplat.engine import Engine
from tests.functional import core

MINUTE = 60 * SECOND
START = int(datetime.datetime(2026, 3, 2, 12, 0, 30, tzinfo=datetime.UTC).timestamp()) * SECOND
CLOCK = sa.Table("test_clock", sa.MetaData(), sa.Column("micros", sa.BigInteger))


def at(text: str) -> int:
    """Microseconds of a time in UTC."""
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()) * SECOND


class SimulatedTime(core.CoreTest):
    """All servers of a test ask the database for the time, which is what the test says."""

    clock = sa.select(CLOCK.c.micros).scalar_subquery()

    def setUp(self) -> None:
        super().setUp()
        with self.db.write() as connection:
            CLOCK.create(connection, checkfirst=True)
            connection.execute(sa.delete(CLOCK))
            connection.execute(sa.insert(CLOCK).values(micros=START))

    def set_time(self, micros: int) -> None:
        with self.db.write(durable=False) as connection:
            connection.execute(sa.update(CLOCK).values(micros=micros))

    def job(self, function: Any = None, identity: Any = core.ALICE, **fields: Any) -> Job:
        reference = Reference(None, None, fields.pop("alias", None))
        if function is not None:
            reference = Reference(function.id, fields.pop("version", None), reference.function_alias)
        return self.core.jobs.create(identity, NewJob(reference, **fields))

    def shown(self, job: Job) -> Job:
        return self.core.jobs.get(core.ADMIN, job.id)

    def update(self, job: Job, **changes: Any) -> Job:
        return self.core.jobs.update(core.ALICE, job.id, Changes(**changes))

    def runs(self, job: Job) -> list[Any]:
        found = self.rows(models.executions, models.executions.c.description == f"Created by Job {job.id}")
        return sorted(found, key=lambda row: str(row.id))

    def make(self) -> int:
        """Make all ticks that are due; returns how many executions were queued."""
        made, each = 0, self.core.ticks.make(100)
        while each.wait is not None and each.wait <= 0:
            made, each = made + each.made, self.core.ticks.make(100)
        return made + each.made


class JobsTests(SimulatedTime):
    def setUp(self) -> None:
        super().setUp()
        self.target = self.function()

    def refused(self, kind: type[Exception], *words: str, **fields: Any) -> None:
        error = self.assertRaises(kind, self.job, self.target, **fields)
        for word in words:
            self.assertIn(word, str(error))

    def test_a_pattern_runs_at_its_next_tick(self) -> None:
        job = self.job(self.target, pattern="*/5 * * * *", name="n", function_input='{"a": 1}')
        self.assertEqual(at("2026-03-02T12:05:00"), job.first_execution_time)
        self.assertEqual(job.first_execution_time, job.next_execution_time)
        self.assertEqual(("running", None, 0), (job.status, job.count, job.function_version))
        self.assertEqual(("n", '{"a": 1}', "alices"), (job.name, job.function_input, job.project_id))

    def test_a_pattern_with_a_first_time_starts_a_minute_before_it_at_the_earliest(self) -> None:
        job = self.job(self.target, pattern="0 * * * *", first_execution_time="2026-03-02 15:00:00")
        self.assertEqual(at("2026-03-02T15:00:00"), job.next_execution_time)
        job = self.job(self.target, pattern="0 * * * *", first_execution_time="2026-03-02 15:01:30")
        self.assertEqual(at("2026-03-02T15:01:30"), job.first_execution_time)
        self.assertEqual(at("2026-03-02T16:00:00"), job.next_execution_time)

    def test_a_job_without_a_pattern_runs_once(self) -> None:
        for count in (None, 1):
            job = self.job(self.target, first_execution_time="2026-03-02T12:01:30", count=count)
            self.assertEqual((1, at("2026-03-02T12:01:30")), (job.count, job.next_execution_time))

    def test_an_offset_counts_where_a_time_zone_is_given(self) -> None:
        given = "2026-03-02T15:00:00+02:00"
        for zone, expected in (
            (None, "2026-03-02T15:00:00"),
            ("UTC", "2026-03-02T13:00:00"),
            ("Asia/Tokyo", "2026-03-02T13:00:00"),
        ):
            job = self.job(self.target, first_execution_time=given, time_zone=zone)
            self.assertEqual(at(expected), job.next_execution_time, zone)
        job = self.job(self.target, first_execution_time="2026-03-03T09:00", time_zone="Asia/Tokyo")
        self.assertEqual(at("2026-03-03T00:00:00"), job.next_execution_time)

    def test_a_pattern_is_of_the_jobs_time_zone(self) -> None:
        job = self.job(self.target, pattern="0 9 * * *", time_zone="Asia/Tokyo")
        self.assertEqual(at("2026-03-03T00:00:00"), job.next_execution_time)

    def test_what_cannot_be_run_is_refused(self) -> None:
        bad = errors.InvalidRequest
        self.refused(bad, "pattern", "first_execution_time")
        self.refused(bad, "cron", pattern="61 * * * *")
        self.refused(bad, "50 years", pattern="0 0 30 2 *")
        self.refused(bad, "time_zone", pattern="* * * * *", time_zone="Mars/Olympus")
        self.refused(bad, "cannot be read", first_execution_time="soon")
        self.refused(bad, "60 seconds", first_execution_time="2026-03-02T12:01:29")
        self.refused(bad, "60 seconds", first_execution_time="2026-03-02T12:01:00", pattern="* * * * *")
        self.refused(bad, "count", first_execution_time="2026-03-02T12:02:00", count=2)
        self.refused(bad, "missed_ticks", pattern="* * * * *", missed_ticks="all")
        self.refused(errors.TooLarge, "input", pattern="* * * * *", function_input="x" * (2**20 + 1))
        self.refused(errors.NotFound, "version", pattern="* * * * *", version=1)
        self.assertEqual([], self.core.jobs.list(core.ALICE, core.ALL))

    def test_a_target_is_needed_and_must_be_the_callers(self) -> None:
        fields = {"pattern": "* * * * *"}
        self.assertRaises(errors.InvalidRequest, self.job, **fields)
        self.assertRaises(errors.NotFound, self.job, alias="no-such", **fields)
        self.assertRaises(errors.NotFound, self.job, self.target, core.BOB, **fields)
        self.assertEqual("admins", self.job(self.target, core.ADMIN, **fields).project_id)
        unknown = types.SimpleNamespace(id=str(uuid.uuid4()))
        self.assertRaises(errors.NotFound, self.job, unknown, **fields)

    def test_jobs_of_others_are_not_found(self) -> None:
        job = self.job(self.target, pattern="* * * * *")
        calls = self.core.jobs
        self.assertRaises(errors.NotFound, calls.get, core.BOB, job.id)
        self.assertRaises(errors.NotFound, calls.update, core.BOB, job.id, Changes(name="x"))
        self.assertRaises(errors.NotFound, calls.delete, core.BOB, job.id)
        self.assertEqual([], calls.list(core.BOB, core.ALL))
        self.assertEqual("x", calls.update(core.ADMIN, job.id, Changes(name="x")).name)
        self.assertEqual([job.id], [each.id for each in calls.list(core.ALICE, core.ALL)])
        calls.delete(core.ADMIN, job.id)
        self.assertRaises(errors.NotFound, calls.get, core.ALICE, job.id)

    # -- changes -----------------------------------------------------------------------------------------

    def test_what_is_not_given_stays(self) -> None:
        job = self.job(self.target, pattern="*/5 * * * *", name="n")
        self.assertEqual(job, self.update(job))
        changed = self.update(job, name="m", function_input="x", pattern="0 0 1 1 *")
        self.assertEqual(("m", "x", "0 0 1 1 *"), (changed.name, changed.function_input, changed.pattern))
        self.assertEqual(job.next_execution_time, changed.next_execution_time)
        self.assertIsNotNone(changed.updated_at)

    def test_a_recurring_job_that_is_resumed_goes_on_from_now(self) -> None:
        job = self.job(self.target, pattern="*/5 * * * *")
        self.assertEqual("paused", self.update(job, status="paused").status)
        self.set_time(at("2026-03-02T13:01:00"))
        self.assertEqual(0, self.make())
        resumed = self.update(job, status="running")
        self.assertEqual(
            ("running", at("2026-03-02T13:05:00")), (resumed.status, resumed.next_execution_time)
        )

    def test_a_job_that_runs_once_is_resumed_in_time_or_with_a_new_one(self) -> None:
        job = self.job(self.target, first_execution_time="2026-03-02T13:00:00")
        self.update(job, status="paused")
        self.assertEqual(job.next_execution_time, self.update(job, status="running").next_execution_time)
        self.update(job, status="paused")
        self.set_time(at("2026-03-02T12:59:01"))
        self.assertRaises(errors.InvalidRequest, self.update, job, status="running")
        resumed = self.update(job, status="running", next_execution_time="2026-03-02T14:00:00")
        self.assertEqual(at("2026-03-02T14:00:00"), resumed.next_execution_time)

    def test_changes_that_cannot_be_are_refused(self) -> None:
        often = self.job(self.target, pattern="*/5 * * * *")
        once = self.job(self.target, first_execution_time="2026-03-02T13:00:00")
        for job, changes in (
            (often, {"pattern": ""}),
            (often, {"pattern": "nonsense"}),
            (often, {"time_zone": "Mars/Olympus"}),
            (often, {"status": "done"}),
            (often, {"status": "nonsense"}),
            (often, {"missed_ticks": "all"}),
            (often, {"next_execution_time": "2026-03-02T12:01:29"}),
            (once, {"pattern": "* * * * *"}),
        ):
            self.assertRaises(errors.InvalidRequest, self.update, job, **changes)
            self.assertEqual(job, self.shown(job))

    def test_a_job_that_is_over_is_not_changed(self) -> None:
        job = self.job(self.target, pattern="*/5 * * * *")
        self.assertEqual("cancelled", self.update(job, status="cancelled").status)
        for changes in ({"name": "x"}, {"status": "running"}, {}):
            self.assertRaises(errors.InvalidRequest, self.update, job, **changes)
        self.set_time(START + 3600 * SECOND)
        self.assertEqual(0, self.make())

    # -- what refers to what -----------------------------------------------------------------------------

    def test_a_function_with_a_job_that_is_not_over_is_not_deleted_and_its_code_not_changed(self) -> None:
        delete, update = self.core.functions.delete, self.core.functions.update
        job = self.job(self.target, pattern="* * * * *")
        for status in ("running", "paused"):
            if status == "paused":
                self.update(job, status=status)
            error = self.assertRaises(errors.InUse, delete, core.ALICE, self.target.id)
            self.assertIn(job.id, str(error))
            change = core.functions.Changes(cpu=200)
            self.assertRaises(errors.InUse, update, core.ALICE, self.target.id, change, None)
            with self.package("def main(): return 5\n") as package:
                change = core.functions.Changes()
                self.assertRaises(errors.InUse, update, core.ALICE, self.target.id, change, package)
        change = core.functions.Changes(name="n", description="d", timeout=9)
        self.assertEqual(9, update(core.ALICE, self.target.id, change, None).timeout)
        self.update(job, status="cancelled")
        update(core.ALICE, self.target.id, core.functions.Changes(cpu=200), None)
        delete(core.ALICE, self.target.id)

    def test_a_job_that_is_over_outlives_its_function(self) -> None:
        job = self.job(self.target, pattern="* * * * *", count=1)
        self.set_time(START + MINUTE)
        self.assertEqual(1, self.make())
        self.core.functions.delete(core.ALICE, self.target.id)
        self.assertEqual(("done", self.target.id), (self.shown(job).status, self.shown(job).function_id))
        self.assertEqual([job.id], [each.id for each in self.core.jobs.list(core.ALICE, core.ALL)])
        self.assertRaises(errors.InvalidRequest, self.update, job, name="x")
        self.core.jobs.delete(core.ALICE, job.id)

    def test_an_alias_is_protected_while_a_job_that_is_not_over_names_it(self) -> None:
        self.core.aliases.create(core.ALICE, aliases.NewAlias("live", self.target.id))
        job = self.job(alias="live", pattern="* * * * *")
        self.assertRaises(errors.InUse, self.core.aliases.delete, core.ALICE, "live")
        self.update(job, status="cancelled")
        self.core.aliases.delete(core.ALICE, "live")

    def test_a_foreign_function_beside_an_alias_is_not_bound_by_the_job(self) -> None:
        foreign = self.function(core.BOB)
        self.core.aliases.create(core.ALICE, aliases.NewAlias("live", self.target.id))
        self.job(foreign, alias="live", pattern="* * * * *")
        self.set_time(START + MINUTE)
        self.assertEqual(1, self.make())
        self.core.functions.delete(core.BOB, foreign.id)

    def test_a_job_and_the_end_of_its_function_do_not_meet(self) -> None:
        other = self.server()
        for _ in range(8):
            target = self.function()
            new = NewJob(Reference(target.id, None, None), pattern="* * * * *")
            made, deleted = core.at_once(
                functools.partial(self.core.jobs.create, core.ALICE, new),
                functools.partial(other.functions.delete, core.ALICE, target.id),
            )
            if isinstance(made, Job):
                self.assertIsInstance(deleted, errors.InUse)
            else:
                self.assertIsInstance(made, errors.NotFound)
                self.assertIsNone(deleted)


class TicksTests(SimulatedTime):
    def setUp(self) -> None:
        super().setUp()
        self.target = self.function()

    def test_a_tick_queues_an_execution_and_moves_the_job_on(self) -> None:
        job = self.job(self.target, pattern="* * * * *", function_input='{"n":1}', count=3)
        self.assertEqual(Round(0, 30.0), self.core.ticks.make(10))
        self.set_time(job.next_execution_time)
        self.assertEqual(1, self.make())
        (run,) = self.runs(job)
        self.assertEqual(
            ("queued", False, "alices", None), (run.status, run.sync, run.project_id, run.result)
        )
        self.assertEqual((self.target.id, 0, '{"n": 1}'), (run.function_id, run.function_version, run.input))
        moved = self.shown(job)
        self.assertEqual((2, job.next_execution_time + MINUTE), (moved.count, moved.next_execution_time))
        self.assertIsNone(moved.reason_code)
        self.assertEqual(1, self.row(models.functions, self.target.id).count)
        self.assertEqual(0, self.make())

    def test_the_last_run_ends_the_job(self) -> None:
        for fields in ({"pattern": "* * * * *", "count": 1}, {"first_execution_time": "2026-03-02T12:02:00"}):
            job = self.job(self.target, **fields)
            self.set_time(job.next_execution_time)
            self.assertEqual(1, self.make())
            ended = self.shown(job)
            self.assertEqual(("done", 0), (ended.status, ended.count))
            self.assertEqual(job.next_execution_time, ended.next_execution_time)

    def test_a_pattern_whose_years_are_over_ends_the_job(self) -> None:
        job = self.job(self.target, pattern="0 13 2 3 * 0 2026")
        self.set_time(job.next_execution_time)
        self.assertEqual(1, self.make())
        self.assertEqual("done", self.shown(job).status)

    def test_missed_ticks_are_one_run(self) -> None:
        job = self.job(self.target, pattern="* * * * *", count=5)
        self.set_time(START + 3600 * SECOND)
        self.assertEqual(1, self.make())
        late = self.shown(job)
        self.assertEqual((4, START + 3630 * SECOND), (late.count, late.next_execution_time))
        self.assertEqual("ticks_missed", late.reason_code)
        self.assertIn("3570 seconds", late.reason_message or "")
        self.set_time(late.next_execution_time)
        self.assertEqual(1, self.make())
        self.assertIsNone(self.shown(job).reason_code)

    def test_missed_ticks_may_be_skipped(self) -> None:
        job = self.job(self.target, pattern="* * * * *", count=5, missed_ticks="skip")
        once = self.job(self.target, first_execution_time="2026-03-02T12:05:00", missed_ticks="skip")
        self.set_time(START + 3600 * SECOND)
        self.assertEqual(0, self.make())
        late = self.shown(job)
        self.assertEqual(
            (5, START + 3630 * SECOND, "ticks_missed"),
            (late.count, late.next_execution_time, late.reason_code),
        )
        ended = self.shown(once)
        self.assertEqual(("done", 1, "ticks_missed"), (ended.status, ended.count, ended.reason_code))
        self.assertEqual([], self.rows(models.executions))

    def test_a_tick_within_the_tolerance_is_not_missed(self) -> None:
        job = self.job(self.target, pattern="0 * * * *", missed_ticks="skip")
        self.set_time(job.next_execution_time + MINUTE)
        self.assertEqual(1, self.make())
        self.assertIsNone(self.shown(job).reason_code)

    def test_an_alias_is_looked_up_at_each_tick_in_the_jobs_project(self) -> None:
        other, foreign = self.function(), self.function(core.BOB)
        self.core.aliases.create(core.ALICE, aliases.NewAlias("live", self.target.id))
        self.core.aliases.create(core.BOB, aliases.NewAlias("live", foreign.id))
        job = self.job(alias="live", pattern="* * * * *")
        self.set_time(START + MINUTE)
        self.make()
        self.core.aliases.update(core.ALICE, "live", aliases.Changes(function_id=other.id))
        self.set_time(START + 2 * MINUTE)
        self.make()
        self.assertEqual([self.target.id, other.id], [run.function_id for run in self.runs(job)])
        self.assertEqual({"live"}, {run.function_alias for run in self.runs(job)})

    # -- broken jobs -------------------------------------------------------------------------------------

    def test_a_broken_job_is_paused_with_the_reason_and_the_others_run(self) -> None:
        broken = {
            name: self.job(self.target, pattern="* * * * *")
            for name in ("pattern", "zone", "function", "alias", "input")
        }
        well = self.job(self.target, pattern="* * * * *")
        self.change(models.jobs, broken["pattern"].id, pattern="once in a while")
        self.change(models.jobs, broken["zone"].id, time_zone="Mars/Olympus")
        self.change(models.jobs, broken["function"].id, function_id=str(uuid.uuid4()))
        self.change(models.jobs, broken["alias"].id, function_alias="gone")
        self.change(models.jobs, broken["input"].id, function_input="x" * (2**20 + 1))
        self.set_time(START + MINUTE)
        self.assertEqual(1, self.make())
        self.assertEqual(1, len(self.runs(well)))
        for name, job in broken.items():
            found = self.shown(job)
            code = "target_not_found" if name in ("function", "alias") else "job_invalid"
            self.assertEqual(("paused", code), (found.status, found.reason_code), name)
            self.assertTrue(found.reason_message)

    def test_a_paused_job_that_is_mended_runs_again(self) -> None:
        job = self.job(self.target, pattern="* * * * *")
        self.change(models.jobs, job.id, pattern="once in a while")
        self.set_time(START + MINUTE)
        self.make()
        self.assertRaises(errors.InvalidRequest, self.update, job, status="running")
        mended = self.update(job, pattern="*/2 * * * *", status="running")
        self.assertEqual(("running", None, None), (mended.status, mended.reason_code, mended.reason_message))
        self.set_time(mended.next_execution_time)
        self.assertEqual(1, self.make())

    def test_a_defect_that_one_job_brings_out_does_not_stop_the_others(self) -> None:
        bad, well = (self.job(self.target, pattern="* * * * *") for _ in range(2))
        resolve = ticks.targets.resolve

        def broken(connection: Any, project_id: str, reference: Reference) -> Any:
            if reference.function_version == 7:
                raise ZeroDivisionError("a defect")
            return resolve(connection, project_id, reference)

        self.change(models.jobs, bad.id, function_version=7)
        self.set_time(START + MINUTE)
        self.useFixture(fixtures.FakeLogger())
        with mock.patch.object(ticks.targets, "resolve", broken), self.engines(1):
            self.until(lambda: self.shown(bad).status == "paused" and self.runs(well))
        self.assertEqual("platform_error", self.shown(bad).reason_code)
        self.assertEqual((1, 0), (len(self.runs(well)), len(self.runs(bad))))

    # -- crashes and races -------------------------------------------------------------------------------

    def test_a_crash_between_leaves_neither_the_move_nor_the_execution(self) -> None:
        job = self.job(self.target, pattern="* * * * *")
        self.set_time(START + MINUTE)
        enqueue = self.core.ticks._acceptance.enqueue  # bound before it is replaced

        def crash(moment: str, connection: Any, records: Any) -> None:
            if moment == "after":
                enqueue(connection, records)
            raise KeyboardInterrupt

        for moment in ("before", "after"):
            with mock.patch.object(queueing.Acceptance, "enqueue", functools.partial(crash, moment)):
                self.assertRaises(KeyboardInterrupt, self.core.ticks.make, 10)
            self.assertEqual(([], job), (self.runs(job), self.shown(job)))
        self.assertEqual(1, self.make())

    def test_engines_that_look_at_the_same_moment_make_each_tick_once(self) -> None:
        servers = [self.core, self.server(), self.server()]
        made = [self.job(self.target, pattern="* * * * *") for _ in range(30)]
        for minute in range(1, 4):
            self.set_time(START + minute * MINUTE)
            rounds = core.at_once(*[lambda each=each: self.drained(each) for each in servers])
            self.assertEqual(30, sum(rounds), rounds)
        self.assertEqual({3}, {len(self.runs(job)) for job in made})
        self.assertEqual(90, self.row(models.functions, self.target.id).count)

    def drained(self, server: core.Core) -> int:
        made = 0
        while any(server.ticks.due(1)):
            made += server.ticks.make(4).made
        return made

    def test_a_pause_and_a_tick_at_the_same_moment_come_one_after_the_other(self) -> None:
        other = self.server()
        for _ in range(8):
            job = self.job(self.target, pattern="* * * * *")
            self.set_time(job.next_execution_time)
            paused, _ = core.at_once(
                functools.partial(self.update, job, status="paused"), functools.partial(other.ticks.make, 10)
            )
            self.assertEqual("paused", paused.status)
            self.assertEqual(paused.next_execution_time > job.next_execution_time, bool(self.runs(job)))

    def test_three_engines_make_each_tick_of_200_jobs_in_ten_minutes_exactly_once(self) -> None:
        patterns = {"* * * * *": 1, "*/2 * * * *": 2, "*/5 * * * *": 5, "* * * * * 45": 1}
        made = {
            self.job(self.target, pattern=pattern, time_zone="Europe/Berlin"): every
            for pattern, every in patterns.items()
            for _ in range(50)
        }
        with self.engines(3):
            for second in range(15, 601, 15):
                self.set_time(START + second * SECOND)
                self.until(lambda: not self.core.ticks.due(1))
        texts = models.executions.c.description
        with self.db.read() as connection:
            counted = collections.Counter(connection.execute(sa.select(texts)).scalars())
        expected = {f"Created by Job {job.id}": 10 // every for job, every in made.items()}
        self.assertEqual(expected, dict(counted))

    # -- the engine --------------------------------------------------------------------------------------

    def test_an_engine_wakes_up_when_a_job_is_due_and_when_one_is_made(self) -> None:
        with self.engines(1, schedule_interval=3600.0) as (engine,):
            job = self.job(self.target, pattern="* * * * *")
            self.set_time(job.next_execution_time - SECOND // 2)
            engine.wake_schedule()
            time.sleep(0.2)
            self.set_time(job.next_execution_time)
            began = time.monotonic()
            self.until(lambda: self.runs(job))
            self.assertLess(time.monotonic() - began, 10.0)

    def until(self, condition: Any) -> None:
        end = time.monotonic() + 6 * core.PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, "not in time")
            time.sleep(0.005)

    @contextlib.contextmanager
    def engines(self, count: int, schedule_interval: float = 0.01) -> Iterator[list[Any]]:
        """So many engines, each with a server, a thread and an event loop of its own."""
        running = [RunningEngine(self.server(), schedule_interval) for _ in range(count)]
        try:
            yield running
        finally:
            for each in running:
                each.stop()


class RunningEngine:
    """An engine in a thread, which makes ticks and does nothing with the executions."""

    def __init__(self, server: core.Core, schedule_interval: float) -> None:
        far = 3600.0
        options = types.SimpleNamespace(
            poll_interval=far,
            reap_interval=far,
            lease=3 * far,
            concurrency=0,
            schedule_interval=schedule_interval,
        )
        conf = types.SimpleNamespace(engine=options, scaling=types.SimpleNamespace(idle_timeout=far))
        self._services = types.SimpleNamespace(**vars(server), conf=conf)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self._ready.wait(core.PATIENCE)

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        router = types.SimpleNamespace(used=list, sweep=lambda: None)
        run = bootstrap.threads(2, "engine")
        aliases = types.SimpleNamespace(sweep=lambda: None)
        invocation = types.SimpleNamespace(run=run, router=router, calls=None, aliases=aliases)
        self._engine = Engine(self._services, invocation)
        self._engine.start()
        self._ready.set()
        await self._end.wait()
        await self._engine.stop(0.0)

    def wake_schedule(self) -> None:
        self._loop.call_soon_threadsafe(self._engine.wake_schedule)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()


class DatabaseClockTests(core.CoreTest):
    def test_without_further_ado_it_is_the_databases_clock_that_counts(self) -> None:
        target = self.function()
        new = NewJob(Reference(target.id, None, None), pattern="* * * * * *")
        job = self.core.jobs.create(core.ALICE, new)
        self.assertLess(job.next_execution_time, time.time_ns() // 1000 + 2 * SECOND)
        with mock.patch.object(time, "time", lambda: 0.0), mock.patch.object(time, "time_ns", lambda: 0):
            end = time.monotonic() + core.PATIENCE
            while not self.core.ticks.make(10).made:
                self.assertLess(time.monotonic(), end)
