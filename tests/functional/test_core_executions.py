"""Executions: the queue, what servers leave behind, lists; and the leases that decide who is gone."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa
from testtools import matchers

from funcplat import errors
from funcplat.core import servers
from funcplat.core.executions import new_id
from funcplat.core.listing import Listing
from funcplat.db import models, session
from tests.functional import core
from tests.functional.core import ADMIN, ALICE, BOB

T = models.executions


class QueueTests(core.CoreTest):
    max_attempts = 2

    def status(self, execution_id: str) -> tuple[Any, ...]:
        row = self.execution(execution_id)
        return row.status, row.attempt, row.server_id

    def finish(self, record: Any, result: str = '{"output": 1}') -> None:
        record.status, record.result, record.updated_at = "success", result, session.micros()
        self.recording().write([record], durable=True)

    # -- claims ------------------------------------------------------------------------------------------

    def test_the_oldest_are_claimed_first(self) -> None:
        # Whatever the clocks of the servers said that took them.
        function_id = str(uuid.uuid4())
        ids = [self.queue(created_at=number, function_id=function_id).id for number in (3, 1, 2)]
        claimed = [each.id for each in self.core.queue.claim(2)]
        self.assertEqual(ids[:2], claimed)

    def test_a_claim_names_the_server_and_counts_the_attempt(self) -> None:
        queued = self.queue(input="grüße")
        (claimed,) = self.core.queue.claim(10)
        self.assertEqual(("running", 1, self.core.server_id), self.status(queued.id))
        self.assertEqual((1, "grüße", True), (claimed.attempt, claimed.input, claimed.inserted))

    def test_nothing_is_claimed_of_an_empty_queue(self) -> None:
        self.assertEqual([], self.core.queue.claim(10))

    def test_looking_for_work_reads_no_finished_execution(self) -> None:
        if not self.db.is_sqlite:
            return  # how the others plan depends on what they have counted
        plans: list[str] = []

        def explain(_1: Any, cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
            if "executions" in statement:
                plans.extend(
                    row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                )

        self.queue()
        sa.event.listen(sa.Engine, "before_cursor_execute", explain)
        self.addCleanup(sa.event.remove, sa.Engine, "before_cursor_execute", explain)
        self.core.queue.claim(10)
        self.core.queue.settle_lost()
        self.core.queue.release()
        index = "SEARCH executions USING COVERING INDEX ix_executions_queue"
        for step in ("(status=? AND project_id>?)", "(status=? AND project_id=? AND function_id>?)"):
            self.assertThat(plans, matchers.Contains(f"{index} {step}"))
        self.assertEqual([], [plan for plan in plans if plan.startswith("SCAN executions")])

    def test_what_is_claimed_is_not_claimed_again(self) -> None:
        self.queue()
        self.core.queue.claim(10)
        self.assertEqual([], self.server().queue.claim(10))

    def test_two_engines_at_once_never_claim_one_execution_both(self) -> None:
        wanted = {self.queue().id for _ in range(30)}
        engines = [self.server() for _ in range(3)]

        def claim_all(engine: core.Core) -> list[str]:
            claimed: list[str] = []
            while batch := engine.queue.claim(4):
                claimed += [each.id for each in batch]
            return claimed

        claimed = core.at_once(*(lambda engine=engine: claim_all(engine) for engine in engines))
        everything = [each for batch in claimed for each in batch]
        self.assertEqual(sorted(wanted), sorted(everything))

    def test_a_claim_that_fails_in_the_middle_takes_nothing(self) -> None:
        for _ in range(3):
            self.queue()
        with core.failing_statement(self.core.queue._db, "UPDATE executions", after=0):
            self.assertRaises(errors.DriverUnavailable, self.core.queue.claim, 3)
        self.assertEqual({"queued"}, {row.status for row in self.rows(T)})

    # -- ends ----------------------------------------------------------------------------------------------

    def test_the_end_of_a_claimed_execution_is_recorded(self) -> None:
        queued = self.queue()
        (claimed,) = self.core.queue.claim(1)
        self.finish(claimed)
        row = self.execution(queued.id)
        self.assertEqual(("success", '{"output": 1}'), (row.status, row.result))

    def test_a_stale_attempt_cannot_finish(self) -> None:
        queued = self.queue()
        (stale,) = self.core.queue.claim(1)
        self.core.servers.leave()
        other = self.server()
        other.queue.settle_lost()
        other.queue.promote()
        (fresh,) = other.queue.claim(1)
        self.finish(stale, '{"output": "stale"}')
        self.assertEqual(("running", 2, other.server_id), self.status(queued.id))
        self.finish(fresh, '{"output": "fresh"}')
        self.assertEqual('{"output": "fresh"}', self.execution(queued.id).result)

    def test_a_finished_execution_is_not_finished_again(self) -> None:
        queued = self.queue()
        (claimed,) = self.core.queue.claim(1)
        self.finish(claimed, "1")
        self.finish(claimed, "2")
        self.assertEqual("1", self.execution(queued.id).result)

    def test_the_end_of_a_deleted_execution_is_ignored(self) -> None:
        queued = self.queue()
        (claimed,) = self.core.queue.claim(1)
        self.core.interventions.delete(ALICE, queued.id)
        self.finish(claimed)
        self.assertIsNone(self.execution(queued.id))

    # -- lost servers ----------------------------------------------------------------------------------------

    def lose(self, **fields: Any) -> str:
        """The id of an execution that runs on a server that is gone."""
        gone = self.server()
        values = {"status": "running", "attempt": 1, "server_id": gone.server_id, **fields}
        record = self.queue(**values)
        gone.servers.leave()
        return record.id

    def test_an_asynchronous_one_of_a_lost_server_is_queued_again(self) -> None:
        lost = self.lose()
        self.assertEqual(1, self.core.queue.settle_lost())
        self.assertEqual(("delayed", 1, None), self.status(lost))
        self.core.queue.promote()
        self.assertEqual(("queued", 1, None), self.status(lost))

    def test_after_its_last_attempt_it_is_an_error_that_says_so(self) -> None:
        lost = self.lose(attempt=2, losses=1)
        self.assertEqual(1, self.core.queue.settle_lost())
        row = self.execution(lost)
        self.assertEqual(("error", "server_lost"), (row.status, row.reason_code))
        self.assertIn("2 attempts", row.reason_message)
        self.assertIsNotNone(row.updated_at)

    def test_a_synchronous_one_of_a_lost_server_is_an_error(self) -> None:
        lost = self.lose(sync=True)
        self.core.queue.settle_lost()
        row = self.execution(lost)
        self.assertEqual(("error", "server_lost"), (row.status, row.reason_code))
        self.assertNotIn("attempts", row.reason_message)

    def test_one_of_a_living_server_is_left_alone(self) -> None:
        self.queue()
        (claimed,) = self.server().queue.claim(1)
        self.assertEqual(0, self.core.queue.settle_lost())
        self.assertEqual("running", self.status(claimed.id)[0])

    def test_one_of_a_server_whose_lease_is_over_is_settled(self) -> None:
        late = self.server()
        self.queue()
        (claimed,) = late.queue.claim(1)
        self.change(models.servers, late.server_id, lease_expires_at=1)
        self.assertEqual(1, self.core.queue.settle_lost())
        self.assertEqual("delayed", self.status(claimed.id)[0])

    def test_two_engines_at_once_settle_each_lost_execution_once(self) -> None:
        lost = [self.lose() for _ in range(5)]
        engines = [self.server(), self.server()]
        counts = core.at_once(*(each.queue.settle_lost for each in engines))
        self.assertEqual(len(lost), sum(counts))

    def test_at_the_end_of_a_server_what_it_did_not_finish_is_queued_again(self) -> None:
        function_id = self.queue().function_id
        other = self.queue(function_id=function_id)
        (mine,) = self.core.queue.claim(1)
        self.server().queue.claim(1)
        synchronous = self.queue(status="running", sync=True, attempt=1, server_id=self.core.server_id)
        self.assertEqual(1, self.core.queue.release())
        self.assertEqual(("queued", 1, None), self.status(mine.id))
        self.assertEqual("running", self.status(other.id)[0])
        self.assertEqual("running", self.status(synchronous.id)[0])


class ListsTests(core.CoreTest):
    def setUp(self) -> None:
        super().setUp()
        self.ids = {
            "queued": self.queue(description="first try", created_at=1).id,
            "running": self.queue(status="running", server_id="x", created_at=2, description="SECOND").id,
            "success": self.queue(status="success", created_at=3, description="100%").id,
            "failed": self.queue(status="failed", created_at=4).id,
        }

    def found(self, **filters: str) -> list[str]:
        rows = self.core.executions.list(ALICE, Listing(filters=filters))
        names = {value: key for key, value in self.ids.items()}
        return [names[row.id] for row in rows]

    def test_without_filters_all_are_listed_oldest_first(self) -> None:
        self.assertEqual(["queued", "running", "success", "failed"], self.found())

    def test_an_equal_value_is_found(self) -> None:
        self.assertEqual(["failed"], self.found(status="failed"))

    def test_what_is_queued_counts_as_running_to_every_operator(self) -> None:
        both = ["queued", "running"]
        for text in ("running", "eq:running", "in:running,error", "nin:success,failed", "has:unn"):
            self.assertEqual(both, self.found(status=text), text)
        self.assertEqual(["success", "failed"], self.found(status="neq:running"))
        self.assertEqual(["success", "failed"], self.found(status="nin:running"))

    def test_operators_compare_text(self) -> None:
        function_id = self.execution(self.ids["failed"]).function_id
        self.assertEqual(["failed"], self.found(function_id=f"in:{function_id},x"))
        self.assertEqual(4, len(self.found(function_id=f"gte:{'0' * 8}")))
        self.assertEqual([], self.found(function_id="gt:zzz"))
        self.assertEqual(4, len(self.found(function_id="lte:zzz")))
        self.assertEqual([], self.found(function_id="lt:0"))

    def test_has_finds_text_inside_whatever_its_case(self) -> None:
        self.assertEqual(["queued"], self.found(description="has:st t"))
        self.assertEqual(["running"], self.found(description="has:second"))

    def test_has_knows_no_wildcards(self) -> None:
        self.assertEqual(["success"], self.found(description="has:%"))
        self.assertEqual([], self.found(description="has:_"))

    def test_equality_minds_the_case(self) -> None:
        self.assertEqual([], self.found(description="second"))
        self.assertEqual(["running"], self.found(description="SECOND"))

    def test_a_word_that_is_no_operator_is_part_of_the_value(self) -> None:
        self.assertEqual([], self.found(description="like:first"))

    def test_pages_follow_each_other_by_every_field(self) -> None:
        for key in ("created_at", "status", "description", "sync", "updated_at", "reason_code", "id"):
            for direction in ("asc", "desc"):
                pages, marker = [], None
                while page := self.core.executions.list(
                    ALICE, Listing(sort_key=key, sort_dir=direction, limit=1, marker=marker)
                ):
                    marker = page[-1].id
                    pages.append(marker)
                self.assertEqual(sorted(self.ids.values()), sorted(pages), (key, direction))

    def test_a_marker_of_another_project_is_refused(self) -> None:
        foreign = self.queue(project_id=BOB.project_id).id
        listing = Listing(marker=foreign)
        self.assertRaises(errors.InvalidRequest, self.core.executions.list, ALICE, listing)

    def test_projects_do_not_see_each_other(self) -> None:
        self.assertEqual([], self.core.executions.list(BOB, core.ALL))
        execution_id = self.ids["queued"]
        for ask in (self.core.executions.get, self.core.executions.log, self.core.interventions.delete):
            self.assertRaises(errors.NotFound, ask, BOB, execution_id)

    def test_an_admin_lists_another_project_by_its_id(self) -> None:
        listing = Listing(project_id=ALICE.project_id)
        self.assertEqual(4, len(self.core.executions.list(ADMIN, listing)))


class ServersTests(core.CoreTest):
    lease = 5.0

    def expires(self, server_id: str) -> int:
        row = self.row(models.servers, server_id)
        return int(row.lease_expires_at)

    def test_a_lease_is_by_the_databases_clock(self) -> None:
        self.patch(servers, "micros", lambda: 0)
        self.patch(session, "micros", lambda: 0)
        server = self.server()
        with self.db.read() as connection:
            now = connection.execute(sa.select(models.now())).scalar_one()
        left = (self.expires(server.server_id) - now) / 1e6
        self.assertTrue(4.0 < left <= 5.0, left)

    def test_a_renewed_lease_ends_later(self) -> None:
        self.change(models.servers, self.core.server_id, lease_expires_at=1)
        self.assertTrue(self.core.servers.renew())
        self.assertGreater(self.expires(self.core.server_id), session.micros())

    def test_renewing_twice_in_one_moment_is_not_a_lost_lease(self) -> None:
        self.assertEqual([True] * 20, [self.core.servers.renew() for _ in range(20)])

    def test_a_server_that_was_removed_cannot_renew(self) -> None:
        self.server().servers.forget_others()
        self.assertFalse(self.core.servers.renew())

    def test_servers_whose_lease_is_over_are_removed_and_others_stay(self) -> None:
        late, living = self.server(), self.server()
        self.change(models.servers, late.server_id, lease_expires_at=1)
        self.core.servers.remove_expired()
        known = {row.id for row in self.rows(models.servers)}
        self.assertEqual({self.core.server_id, living.server_id}, known)

    def test_a_server_does_not_remove_itself(self) -> None:
        self.change(models.servers, self.core.server_id, lease_expires_at=1)
        self.core.servers.remove_expired()
        self.assertIsNotNone(self.row(models.servers, self.core.server_id))

    def test_leaving_twice_is_a_no_op(self) -> None:
        self.core.servers.leave()
        self.core.servers.leave()
        self.assertIsNone(self.row(models.servers, self.core.server_id))

    def test_servers_that_start_at_once_agree_on_the_installation(self) -> None:
        databases = [self.open_database() for _ in range(6)]
        ids = core.at_once(*(lambda db=db: servers.installation_id(db) for db in databases))
        self.assertEqual({servers.installation_id(self.db)}, set(ids))


class IdTests(core.DatabaseTest):
    def test_ids_of_executions_are_uuids_that_sort_by_time(self) -> None:
        ids = [new_id() for _ in range(50)]
        self.assertEqual(50, len(set(ids)))
        self.assertEqual([each[:12] for each in ids], sorted(each[:12] for each in ids))
