"""The durable queue: attempts, cancellations, dead letters, turns; and that nothing is ever lost of it."""

from __future__ import annotations

import collections
import json
import uuid
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.core import retries
from funcplat.core.executions import Record
from funcplat.core.interventions import Selection
from funcplat.core.listing import Listing
from funcplat.db import models, session
from funcplat.errors import ReasonCode
from tests.functional import core
from tests.functional.core import ADMIN, ALICE, BOB

T = models.executions
HOUR = 3600


class QueueCase(core.CoreTest):
    max_attempts = 2

    def tearDown(self) -> None:
        self.assert_conserved()
        super().tearDown()

    def assert_conserved(self) -> None:
        census = self.core.tallies.read()
        self.assertTrue(census.holds, census)

    def state(self, execution_id: str) -> tuple[Any, ...]:
        row = self.execution(execution_id)
        return row.status, row.reason_code

    def claim_one(self, server: core.Core | None = None) -> Record:
        (claimed,) = (server or self.core).queue.claim(1)
        return claimed

    def end(self, record: Record, status: str = "success", reason: str | None = None) -> None:
        """An attempt ends so."""
        record.status, record.reason_code, record.updated_at = status, reason, session.micros()
        record.result = json.dumps({"output": status})
        self.core.queue.judge(record)
        self._queueing.write([record], durable=True)

    def end_next(self, status: str, reason: str | None = None) -> Record:
        self.core.queue.promote()
        claimed = self.claim_one()
        self.end(claimed, status, reason)
        return claimed

    def letters(self, identity: Any = ALICE) -> list[str]:
        return [row.id for row in self.core.interventions.dead_letters(identity, Listing())]

    def dead_letter(self, **fields: Any) -> str:
        """The id of an execution that the platform has given up."""
        queued = self.queue(**fields)
        self.end_next("error", ReasonCode.PLATFORM_ERROR)
        self.assertEqual(("error", "platform_error"), self.state(queued.id))
        return queued.id


class RetryTests(QueueCase):
    def test_a_platform_failure_is_tried_again_and_then_a_dead_letter(self) -> None:
        queued = self.queue()
        self.end_next("failed", ReasonCode.WORKER_DIED)
        self.assertEqual(("delayed", "worker_died"), self.state(queued.id))
        self.assertIsNone(self.execution(queued.id).result)
        self.assertEqual([], self.letters())
        self.end_next("error", ReasonCode.START_FAILED)
        self.assertEqual(("error", "start_failed"), self.state(queued.id))
        self.assertEqual([queued.id], self.letters())

    def test_a_second_attempt_may_succeed(self) -> None:
        queued = self.queue()
        self.end_next("failed", ReasonCode.WORKER_DIED)
        self.end_next("success")
        self.assertEqual(("success", None), self.state(queued.id))
        self.assertEqual([], self.letters())

    def test_having_no_room_is_no_failure(self) -> None:
        queued = self.queue()
        for _ in range(5):
            self.end_next("error", ReasonCode.QUEUE_TIMEOUT)
        self.assertEqual(("delayed", "queue_timeout"), self.state(queued.id))

    def test_a_failure_of_the_functions_own_is_not_tried_again(self) -> None:
        queued = self.queue()
        self.end_next("failed", ReasonCode.FUNCTION_RAISED)
        self.assertEqual(("failed", "function_raised"), self.state(queued.id))
        self.assertEqual([], self.letters())

    def test_unless_the_caller_asked_for_that(self) -> None:
        queued = self.queue(retry=retries.Retry(3, 0.0).text())
        for _ in range(2):
            self.end_next("failed", ReasonCode.TIMEOUT)
            self.assertEqual(("delayed", "timeout"), self.state(queued.id))
        self.end_next("failed", ReasonCode.TIMEOUT)
        self.assertEqual(("failed", "timeout"), self.state(queued.id))
        self.assertEqual([queued.id], self.letters())

    def test_attempts_that_wait_are_due_later_by_the_databases_clock(self) -> None:
        self.queue(retry=retries.Retry(2, 100.0).text())
        claimed = self.claim_one()
        self.patch(session, "micros", lambda: 0)
        self.end(claimed, "failed", ReasonCode.TIMEOUT)
        with self.db.read() as connection:
            now = connection.execute(sa.select(models.now())).scalar_one()
        left = (self.execution(claimed.id).due_at - now) / 1e6
        self.assertTrue(40 < left <= 100, left)
        self.assertEqual(0, self.core.queue.promote())
        self.assertEqual([], self.core.queue.claim(1))

    def test_a_stale_attempt_writes_neither_its_end_nor_a_letter(self) -> None:
        queued = self.queue()
        stale = self.claim_one()
        self.core.servers.leave()
        other = self.server()
        other.queue.settle_lost()
        other.queue.promote()
        fresh = self.claim_one(other)
        self.end(stale, "error", ReasonCode.PLATFORM_ERROR)
        self.assertEqual("running", self.state(queued.id)[0])
        self.assertEqual([], self.letters())
        self.end(fresh)
        self.assertEqual("success", self.state(queued.id)[0])

    def test_an_end_that_is_written_twice_counts_once(self) -> None:
        self.queue()
        claimed = self.claim_one()
        self.end(claimed, "error", ReasonCode.PLATFORM_ERROR)
        self._queueing.write([claimed], durable=True)
        self.assertEqual([claimed.id], self.letters())
        self.assertEqual(1, self.core.tallies.read().error)


class AgeTests(QueueCase):
    def old(self, **fields: Any) -> str:
        queued = self.queue()
        self.change(T, queued.id, expires_at=1, **fields)
        return queued.id

    def test_what_waited_for_too_long_ends_with_its_own_reason(self) -> None:
        for status in ("queued", "delayed"):
            old = self.old(status=status)
            self.assertEqual(1, self.core.queue.expire())
            self.assertEqual(("error", "expired"), self.state(old))
            self.assertIn(old, self.letters())

    def test_it_never_begins(self) -> None:
        self.old()
        self.assertEqual([], self.core.queue.claim(1))

    def test_what_runs_is_left_alone(self) -> None:
        running = self.old(status="running", server_id=self.core.server_id)
        self.assertEqual(0, self.core.queue.expire())
        self.assertEqual("running", self.state(running)[0])

    def test_two_engines_at_once_end_each_once(self) -> None:
        for _ in range(10):
            self.old()
        ended = core.at_once(self.core.queue.expire, self.server().queue.expire)
        self.assertEqual(10, len(self.letters()), ended)

    def test_the_age_counts_from_the_acceptance_by_the_databases_clock(self) -> None:
        recording = core.Recording(self.db, max_age=HOUR)
        self.addCleanup(recording.close)
        record = self.record(created_at=0)
        recording.write([record], durable=True)
        row = self.execution(record.id)
        self.assertEqual(HOUR, round((row.expires_at - row.due_at) / 1e6))
        self.assertGreater(row.due_at, session.micros() - 60 * 10**6)


class CancelTests(QueueCase):
    def cancel(self, execution_id: str, identity: Any = ALICE) -> Any:
        return self.core.interventions.cancel(identity, execution_id)

    def test_one_that_waits_ends_at_once_and_never_runs(self) -> None:
        for status in ("queued", "delayed"):
            queued = self.queue()
            self.change(T, queued.id, status=status)
            self.assertEqual("failed", self.cancel(queued.id).status)
            self.assertEqual(("failed", "cancelled"), self.state(queued.id))
        self.core.queue.promote()
        self.assertEqual([], self.core.queue.claim(10))
        self.assertEqual([], self.letters())

    def test_the_server_that_runs_it_is_told_and_no_other(self) -> None:
        self.queue()
        claimed = self.claim_one()
        for _ in range(2):
            self.assertEqual("running", self.cancel(claimed.id).status)
        self.assertEqual([], self.server().queue.cancellations())
        self.assertEqual([claimed.id], self.core.queue.cancellations())

    def test_its_end_takes_the_request_with_it(self) -> None:
        self.queue()
        claimed = self.claim_one()
        self.cancel(claimed.id)
        self.end(claimed, "failed", ReasonCode.CANCELLED)
        self.assertEqual(("failed", "cancelled"), self.state(claimed.id))
        self.assertEqual([], self.core.queue.cancellations())
        self.assertEqual([], self.rows(models.cancellations))
        self.assertEqual([], self.letters())

    def test_one_that_failed_meanwhile_does_not_begin_again(self) -> None:
        self.queue()
        claimed = self.claim_one()
        self.cancel(claimed.id)
        self.end(claimed, "failed", ReasonCode.WORKER_DIED)
        self.assertEqual(0, self.core.queue.promote())
        self.assertEqual([], self.core.queue.cancellations())
        self.assertEqual(("failed", "cancelled"), self.state(claimed.id))

    def test_nor_does_one_that_its_server_released(self) -> None:
        self.queue()
        claimed = self.claim_one()
        self.cancel(claimed.id)
        self.core.queue.release()
        self.assertEqual([], self.core.queue.claim(1))
        self.core.queue.cancellations()
        self.assertEqual(("failed", "cancelled"), self.state(claimed.id))

    def test_what_has_ended_cannot_be_cancelled(self) -> None:
        queued = self.queue()
        self.end_next("success")
        self.assertRaises(errors.Conflict, self.cancel, queued.id)

    def test_what_is_anothers_is_not_there(self) -> None:
        queued = self.queue()
        self.assertRaises(errors.NotFound, self.cancel, queued.id, BOB)
        self.assertEqual("failed", self.cancel(queued.id, ADMIN).status)

    def test_a_claim_and_a_cancellation_at_once_agree(self) -> None:
        other = self.server()
        for _ in range(10):
            queued = self.queue()
            claimed, shown = core.at_once(
                lambda: other.queue.claim(1), lambda queued=queued: self.cancel(queued.id)
            )
            self.assertEqual("running" if claimed else "failed", shown.status)
            for record in claimed:
                self.end(record)


class DeadLetterTests(QueueCase):
    def test_one_is_queued_again_as_if_it_were_new(self) -> None:
        dead = self.dead_letter()
        shown = self.core.interventions.redrive_one(ALICE, dead)
        self.assertEqual(("queued", None, None), (shown.status, shown.result, shown.reason_code))
        self.assertEqual([], self.letters())
        self.end_next("failed", ReasonCode.WORKER_DIED)
        self.end_next("success")
        self.assertEqual(("success", None), self.state(dead))
        self.assertEqual(3, self.execution(dead).attempt)

    def test_what_is_no_dead_letter_is_not_queued_again(self) -> None:
        queued = self.queue()
        self.assertRaises(errors.Conflict, self.core.interventions.redrive_one, ALICE, queued.id)
        self.end_next("success")
        self.assertRaises(errors.Conflict, self.core.interventions.redrive_one, ALICE, queued.id)

    def test_two_who_queue_it_again_do_it_once(self) -> None:
        dead = self.dead_letter()
        other = self.server()
        outcomes = core.at_once(
            lambda: self.core.interventions.redrive_one(ALICE, dead),
            lambda: other.interventions.redrive_one(ALICE, dead),
        )
        self.assertEqual(1, sum(isinstance(each, errors.Conflict) for each in outcomes), outcomes)

    def test_all_of_a_project_or_some_are_queued_again(self) -> None:
        function_id = str(uuid.uuid4())
        dead = [self.dead_letter(), self.dead_letter(function_id=function_id), self.dead_letter()]
        foreign = self.dead_letter(project_id=BOB.project_id)
        redrive = self.core.interventions.redrive
        self.assertEqual(1, redrive(ALICE, Selection(ids=(dead[0], foreign))))
        self.assertEqual(1, redrive(ALICE, Selection(function_id=function_id)))
        self.assertEqual(0, redrive(ALICE, Selection(reason="expired")))
        self.assertEqual(1, redrive(ALICE, Selection()))
        self.assertEqual([foreign], self.letters(BOB))

    def test_purged_ones_are_gone_with_their_executions(self) -> None:
        dead = self.dead_letter()
        foreign = self.dead_letter(project_id=BOB.project_id)
        self.assertEqual(1, self.core.interventions.purge(ALICE, Selection()))
        self.assertIsNone(self.execution(dead))
        self.assertEqual([foreign], self.letters(BOB))

    def test_deleting_the_execution_deletes_the_letter(self) -> None:
        self.core.interventions.delete(ALICE, self.dead_letter())
        self.assertEqual([], self.rows(models.dead_letters))


class CensusTests(QueueCase):
    def test_each_stage_is_counted_where_it_is(self) -> None:
        server = self.core
        self.queue(), self.queue()
        running, done = server.queue.claim(2)
        self.end(done)
        deleted = self.queue()
        server.interventions.delete(ALICE, deleted.id)
        self.queue()
        census = server.tallies.read()
        found = (census.accepted, census.queued, census.running, census.success, census.deleted)
        self.assertEqual((4, 1, 1, 1, 1), found)
        server.interventions.delete(ALICE, running.id)
        self.end(running)  # whose row is gone
        self.assertEqual(2, server.tallies.read().deleted)

    def test_deleting_what_has_ended_changes_no_count(self) -> None:
        queued = self.queue()
        self.end_next("success")
        before = self.core.tallies.read()
        self.core.interventions.delete(ALICE, queued.id)
        self.assertEqual(before, self.core.tallies.read())

    def test_a_lost_row_shows(self) -> None:
        queued = self.queue()
        with self.db.write() as connection:
            connection.execute(sa.delete(T).where(T.c.id == queued.id))
        self.assertFalse(self.core.tallies.read().holds)
        self.queue(id=queued.id)
        with self.db.write() as connection:
            connection.execute(sa.update(models.tallies).values(accepted=0))
            self.core.tallies.add(connection, accepted=1)


class FairnessTests(QueueCase):
    def many(self, number: int, **fields: Any) -> str:
        """The id of a function with so many queued executions."""
        function_id = str(uuid.uuid4())
        self._queueing.write(
            [self.record(function_id=function_id, **fields) for _ in range(number)], durable=True
        )
        return function_id

    def shares(self, claimed: list[Record], field: str = "project_id") -> dict[str, int]:
        return collections.Counter(getattr(each, field) for each in claimed)

    def test_one_projects_thousands_do_not_make_anothers_one_wait(self) -> None:
        self.many(1000)
        one = self.queue(project_id=BOB.project_id)
        self.assertIn(one.id, [each.id for each in self.core.queue.claim(2)])

    def test_projects_get_equal_shares_however_many_functions_they_have(self) -> None:
        for _ in range(10):
            self.many(5)
        self.many(50, project_id=BOB.project_id)
        claimed = self.core.queue.claim(20)
        self.assertEqual({ALICE.project_id: 10, BOB.project_id: 10}, self.shares(claimed))

    def test_functions_of_a_project_get_equal_shares(self) -> None:
        functions = [self.many(20) for _ in range(3)]
        claimed = self.core.queue.claim(12)
        self.assertEqual(dict.fromkeys(functions, 3), self.shares(claimed, "function_id"))

    def test_everybody_has_a_turn_where_there_is_room_for_one(self) -> None:
        for project in ("a", "b", "c"):
            self.many(2, project_id=project)
            self.many(2, project_id=project)
        turns = [self.claim_one() for _ in range(12)]
        for start in range(0, 12, 3):
            self.assertEqual({"a", "b", "c"}, {each.project_id for each in turns[start : start + 3]})
        for start in range(0, 12, 6):
            self.assertEqual(6, len({each.function_id for each in turns[start : start + 6]}))

    def test_a_function_gets_no_more_than_its_bound(self) -> None:
        function_id = self.many(50)
        server = self.server(per_function=4)
        running = [(each.project_id, each.function_id) for each in server.queue.claim(40)]
        self.assertEqual([(ALICE.project_id, function_id)] * 4, running)
        self.assertEqual([], server.queue.claim(36, running))
        other = self.many(1)
        self.assertEqual([other], [each.function_id for each in server.queue.claim(36, running)])

    def test_a_project_leaves_room_for_who_comes_next(self) -> None:
        for _ in range(4):
            self.many(50)
        running: list[tuple[str, str]] = []
        while claimed := self.core.queue.claim(64 - len(running), running):
            running += [(each.project_id, each.function_id) for each in claimed]
        self.assertEqual(48, len(running))
        one = self.queue(project_id=BOB.project_id)
        self.assertEqual([one.id], [each.id for each in self.core.queue.claim(16, running)])

    def test_an_engine_of_one_place_runs_everything(self) -> None:
        for _ in range(3):
            self.queue()
        self.assertEqual(3, sum(len(self.core.queue.claim(1)) for _ in range(5)))
