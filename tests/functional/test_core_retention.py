"""Retention: what is deleted when its time is over, and what never is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from funcplat.core import retention
from funcplat.core.executions import first_id, new_id
from funcplat.core.interventions import Selection
from funcplat.core.listing import Listing
from funcplat.core.retention import RetentionOptions
from funcplat.db import models, session
from tests.functional import core
from tests.functional.core import ALICE

DAY = 86400
T = models.executions
LOG = b"a line of the log, " * 50


class RetentionCase(core.CoreTest):
    def tearDown(self) -> None:
        census = self.core.tallies.read()
        self.assertTrue(census.holds, census)
        super().tearDown()

    def ended(self, days: float, status: str = "success", log: bytes | None = None, **fields: Any) -> str:
        """The id of an execution that was made, and ended, so many days ago."""
        moment = session.micros() - int(days * DAY * 1e6)
        record_id = first_id(moment) + new_id()[13:]
        fields = {"sync": True, "created_at": moment, "updated_at": moment, "log": log} | fields
        self._queueing.write([self.record(id=record_id, status=status, **fields)], durable=True)
        return record_id

    def sweep(self, server: core.Core | None = None) -> int:
        """All batches; returns how many rows were changed."""
        done = 0
        while found := (server or self.core).retention.sweep():
            done += found
        return done

    def kept(self) -> set[str]:
        with self.db.read() as connection:
            return set(connection.execute(sa.select(T.c.id)).scalars())

    def dead_letter(self) -> str:
        """An asynchronous execution of long ago that the platform has given up."""
        letter = self.ended(90, "queued", sync=False, updated_at=None)
        self.change(T, letter, expires_at=1)
        self.assertEqual(1, self.core.queue.expire())
        self.change(T, letter, updated_at=session.micros() - int(80 * DAY * 1e6), log=LOG)
        return letter


class RetentionTests(RetentionCase):
    retention = RetentionOptions(30.0 * DAY, 7.0 * DAY)

    def test_what_ended_long_ago_is_deleted_and_the_rest_is_not(self) -> None:
        for status in ("success", "failed", "error"):
            self.ended(31, status)
        kept = {self.ended(29), self.ended(0), self.dead_letter()}
        self.assertEqual(3, self.sweep())
        self.assertEqual(kept, self.kept())
        self.assertEqual(0, self.sweep())

    def test_what_has_not_ended_is_kept_however_old_it_is(self) -> None:
        running = self.ended(90, "running", updated_at=None)
        queued = self.ended(90, "queued", sync=False, updated_at=None)
        self.assertEqual(0, self.sweep())
        self.assertEqual({running, queued}, self.kept())

    def test_it_is_the_end_that_counts(self) -> None:
        late = self.ended(90, log=LOG, updated_at=session.micros())
        self.assertEqual(0, self.sweep())
        self.assertEqual({late}, self.kept())

    def test_a_dead_letter_that_was_purged_is_gone_and_one_that_was_redriven_is_queued(self) -> None:
        purged, redriven = self.dead_letter(), self.dead_letter()
        self.core.interventions.purge(ALICE, Selection((purged,)))
        self.core.interventions.redrive(ALICE, Selection((redriven,)))
        self.assertEqual(0, self.sweep())
        self.assertEqual({redriven}, self.kept())

    def test_a_long_log_gives_way_to_a_sentence_before_its_execution_goes(self) -> None:
        old, short, young = self.ended(8, log=LOG), self.ended(8, log=b"short\n"), self.ended(6, log=LOG)
        letter = self.dead_letter()
        self.assertEqual(1, self.sweep())
        logs = [self.execution(each).log for each in (old, short, young, letter)]
        self.assertEqual([retention.DELETED_LOG, b"short\n", LOG, LOG], logs)
        self.assertEqual("success", self.execution(old).status)
        self.assertEqual(0, self.sweep())

    def test_a_log_whose_time_is_over_between_two_rounds_is_found(self) -> None:
        self.assertEqual(0, self.sweep())
        for days in (7.5, 8.5):
            self.ended(days, log=LOG)
        self.assertEqual(2, self.sweep())

    def test_more_than_a_batch_is_deleted(self) -> None:
        for _ in range(2 * retention.BATCH + 1):
            self.ended(40)
        self.assertEqual(2 * retention.BATCH + 1, self.sweep())
        self.assertEqual(set(), self.kept())

    def test_servers_that_sweep_at_the_same_time_do_not_disturb_each_other(self) -> None:
        servers = [self.server() for _ in range(3)]
        for number in range(3 * retention.BATCH):
            self.ended(40 if number % 2 else 10, log=LOG)
        results = core.at_once(*(lambda each=each: self.sweep(each) for each in servers))
        self.assertEqual([], [each for each in results if isinstance(each, Exception)])
        self.assertEqual(0, self.sweep())
        self.assertEqual(3 * retention.BATCH // 2, len(self.kept()))

    def test_listing_goes_on_while_rows_vanish(self) -> None:
        self.ended(40)
        kept = self.ended(1)
        self.sweep()
        self.assertEqual([kept], [row.id for row in self.core.executions.list(ALICE, Listing())])


class ForEverTests(RetentionCase):
    retention = RetentionOptions(0.0, 0.0)

    def test_with_nothing_configured_nothing_is_deleted(self) -> None:
        old = self.ended(3650, log=LOG)
        self.assertEqual(0, self.sweep())
        self.assertEqual(LOG, self.execution(old).log)


class PlanTests(RetentionCase):
    """How SQLite finds what is old."""

    retention = RetentionOptions(30.0 * DAY, 7.0 * DAY)

    def test_executions_that_are_not_old_are_not_read(self) -> None:
        plans: list[str] = []
        engine = self.core.tallies._db.engine

        def explain(_: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
            if "FROM executions" in statement and not plans:
                found = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
                plans.extend(row[3] for row in found)

        sa.event.listen(engine, "before_cursor_execute", explain)
        self.addCleanup(sa.event.remove, engine, "before_cursor_execute", explain)
        self.core.retention.sweep()
        self.assertIn("SEARCH executions USING", plans[0])
        self.assertIn("(id>? AND id<?)", plans[0])
