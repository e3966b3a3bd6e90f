"""Workers: starts that fail at each stage, caps, ways down, and what crashes leave."""

from __future__ import annotations

import collections
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.core import workers
from funcplat.core.functions import Changes
from funcplat.core.starts import CapReached
from funcplat.db import models, session
from funcplat.testing.fakes import Stage
from tests.functional import core
from tests.functional.core import ALICE, BOB

T = models.workers


class WorkersTest(core.CoreTest):
    def setUp(self) -> None:
        super().setUp()
        self.made = self.function()

    def alive(self) -> list[str]:
        """Ids of the workers that exist in the engine."""
        return sorted(worker.spec.worker_id for worker in self.owned())

    def only_row(self) -> Any:
        (row,) = self.rows(T)
        return row

    def age(self, worker_id: str, seconds: float, column: str = "used_at") -> None:
        with self.db.write() as connection:
            value = T.c[column] - int(seconds * 1e6)
            connection.execute(sa.update(T).where(T.c.id == worker_id).values({column: value}))


class StartsTests(WorkersTest):
    def test_a_started_worker_is_ready_and_exists(self) -> None:
        worker_id = self.start(self.made)
        row = self.worker(worker_id)
        self.assertEqual(("ready", 0, "here"), (row.state, row.slot, row.node))
        self.assertEqual([worker_id], self.alive())

    def test_routers_read_its_address_and_secret(self) -> None:
        worker_id = self.start(self.made)
        (worker,) = self.core.routes.read(self.made.id, 0).workers
        self.assertEqual((worker_id, self.worker(worker_id).secret), (worker.id, worker.secret))
        self.assertEqual(worker_id, worker.handle.worker_id)

    def test_ten_starts_at_once_take_ten_slots(self) -> None:
        servers = [self.server() for _ in range(2)]
        outcomes = core.at_once(
            *(lambda number=number: self.start(self.made, servers[number % 2]) for number in range(10))
        )
        self.assertEqual([], [each for each in outcomes if isinstance(each, Exception)])
        self.assertEqual(list(range(10)), sorted(row.slot for row in self.rows(T)))
        self.assertEqual(sorted(outcomes), self.alive())

    def test_a_freed_slot_is_taken_again(self) -> None:
        first, second = self.start(self.made), self.start(self.made)
        self.core.workers.detach(self.made.id, 0)
        self.core.workers.stop(first, 0.0)
        third = self.start(self.made)
        self.assertEqual([None, 1, 0], [self.worker(each).slot for each in (first, second, third)])

    def test_a_function_has_no_more_workers_than_its_cap(self) -> None:
        server = self.server(max_per_function=2)
        outcomes = core.at_once(*[lambda: self.start(self.made, server)] * 4)
        kinds = collections.Counter(getattr(each, "kind", "started") for each in outcomes)
        self.assertEqual({"started": 2, "function": 2}, kinds)

    def test_a_project_has_no_more_workers_than_its_cap(self) -> None:
        server = self.server(max_per_project=1)
        self.start(self.made, server)
        error = self.assertRaises(CapReached, self.start, self.function(), server)
        self.assertEqual("project", error.kind)
        self.start(self.function(BOB), server)

    def test_a_node_has_no_more_workers_than_its_cap(self) -> None:
        here, there = self.server(max_per_node=1), self.server(max_per_node=1, node="there")
        self.start(self.made, here)
        error = self.assertRaises(CapReached, self.start, self.function(BOB), here)
        self.assertEqual("node", error.kind)
        self.start(self.made, there)

    def test_a_draining_worker_counts_until_it_is_stopped(self) -> None:
        server = self.server(max_per_function=1)
        worker_id = self.start(self.made, server)
        server.workers.detach(self.made.id, 0)
        self.assertRaises(CapReached, self.start, self.made, server)
        server.workers.stop(worker_id, 0.0)
        self.start(self.made, server)

    def test_check_room_says_how_many_there_are(self) -> None:
        server = self.server(max_per_function=3)
        self.start(self.made, server)
        revision_id = self.revision(self.made).id
        server.starts.check_room(revision_id, 2)
        error = self.assertRaises(errors.Conflict, server.starts.check_room, revision_id, 3)
        self.assertIn("1 of 3", str(error))

    def test_a_superseded_revision_is_not_started(self) -> None:
        revision_id = self.revision(self.made).id
        self.core.functions.update(ALICE, self.made.id, Changes(cpu=200), None)
        self.assertRaises(errors.NotFound, self.core.starts.start, revision_id)
        self.assertEqual([], self.rows(T))

    def test_a_runtime_that_is_upgraded_starts_no_worker(self) -> None:
        self.core.runtimes.update(core.ADMIN, self.made.runtime_id, {"image": "python3.12"})
        self.assertRaises(errors.RuntimeNotAvailable, self.start, self.made)

    def test_a_driver_that_is_not_enabled_is_named(self) -> None:
        self.change(models.runtimes, self.made.runtime_id, orchestrator="docker")
        self.assertIn("docker", str(self.assertRaises(errors.ImageUnknown, self.start, self.made)))

    # -- failures, stage by stage ------------------------------------------------------------------------

    def assert_failed(
        self, error: type[BaseException], message: str, server: core.Core | None = None
    ) -> None:
        """The next start fails so, and nothing is left of it but a row that says why."""
        self.assertRaises(error, self.start, self.made, server)
        row = self.only_row()
        self.assertEqual(("deleted", None, "start_failed"), (row.state, row.slot, row.reason_code))
        self.assertIn(message, row.reason_message)
        self.assertEqual([], self.alive())

    def test_code_that_the_store_lost_fails_the_start(self) -> None:
        self.memory.packages.clear()
        self.assert_failed(errors.NotFound, "not in the store")

    def test_code_that_cannot_be_unpacked_fails_the_start(self) -> None:
        for digest in self.memory.packages:
            self.memory.packages[digest] = b"not a zip"
        self.assert_failed(errors.FuncplatError, "")

    def test_a_machine_without_room_for_the_code_fails_the_start(self) -> None:
        (self.home / "code").write_text("a file where a directory should be")
        self.assert_failed(Exception, "")

    def test_a_store_that_is_not_enabled_any_more_fails_the_start(self) -> None:
        self.change(models.revisions, self.revision(self.made).id, store="swift")
        with self.db.write() as connection:
            connection.execute(sa.update(models.packages).values(store="swift"))
        self.assert_failed(errors.FuncplatError, "swift")

    def test_a_driver_that_fails_to_start_fails_the_start(self) -> None:
        self.engine.fail(Stage.START, errors.NoCapacity("the host is full"))
        self.assert_failed(errors.NoCapacity, "the host is full")

    def test_a_driver_that_raises_what_it_may_not_fails_the_start(self) -> None:
        self.engine.fail(Stage.START, ZeroDivisionError("a defect"))
        self.assert_failed(errors.DriverError, "a defect")

    def test_a_worker_that_does_not_take_its_code_is_stopped(self) -> None:
        server = self.server(driver_class=core.DeadOnArrival)
        self.assert_failed(errors.WorkerError, "", server)

    def test_a_worker_whose_driver_failed_after_making_it_is_reaped(self) -> None:
        self.engine.fail(Stage.STARTED, errors.DriverUnavailable("connection lost"))
        self.assertRaises(errors.DriverUnavailable, self.start, self.made)
        self.assertEqual("deleted", self.only_row().state)
        self.core.workers.reap()
        self.assertEqual([], self.alive())

    def test_a_worker_that_cannot_be_stopped_after_a_failed_start_is_reaped(self) -> None:
        server = self.server(driver_class=core.DeadOnArrival)
        self.engine.fail(Stage.STOP, errors.DriverUnavailable("connection lost"))
        self.assertRaises(errors.FuncplatError, self.start, self.made, server)
        self.assertEqual("deleted", self.only_row().state)
        self.core.workers.reap()
        self.assertEqual([], self.alive())

    def conclude_after(self, event: Any) -> None:
        """Let ``event`` happen when the next worker is started and loaded, but not ready yet."""
        act = self.core.starts._act

        def act_and_more(*arguments: Any) -> Any:
            handle = act(*arguments)
            event()
            return handle

        self.core.starts._act = act_and_more

    def test_one_whose_function_changes_while_it_starts_is_stopped(self) -> None:
        self.conclude_after(lambda: self.core.functions.update(ALICE, self.made.id, Changes(cpu=200), None))
        self.assertRaises(errors.Conflict, self.start, self.made)
        self.assertEqual(("deleted", []), (self.only_row().state, self.alive()))

    def test_one_whose_function_is_deleted_while_it_starts_is_stopped(self) -> None:
        self.conclude_after(lambda: self.core.functions.delete(ALICE, self.made.id))
        self.assertRaises(errors.Conflict, self.start, self.made)
        self.assertEqual(("deleted", []), (self.only_row().state, self.alive()))

    def test_one_that_is_detached_and_settled_while_it_starts_is_stopped(self) -> None:
        def detach() -> None:
            self.core.workers.detach(self.made.id, 0)
            self.core.workers.stop_drained()

        self.conclude_after(detach)
        self.assertRaises(errors.Conflict, self.start, self.made)
        self.assertEqual(("deleted", []), (self.only_row().state, self.alive()))

    def test_a_conflict_whose_worker_cannot_be_stopped_is_settled_and_reaped(self) -> None:
        self.conclude_after(lambda: self.core.workers.detach(self.made.id, 0))
        self.engine.fail(Stage.STOP, errors.DriverUnavailable("connection lost"))
        self.assertRaises(errors.FuncplatError, self.start, self.made)
        self.assertEqual("deleted", self.only_row().state)
        self.core.workers.reap()
        self.assertEqual([], self.alive())

    def test_starts_and_deletes_at_once_leave_no_worker_that_takes_calls(self) -> None:
        others = self.server()
        for _ in range(3):
            function = self.function(runtime_id=self.made.runtime_id)
            core.at_once(
                lambda function=function: self.start(function),
                lambda function=function: self.start(function, others),
                lambda function=function: others.functions.delete(ALICE, function.id),
            )
            states = {row.state for row in self.rows(T, T.c.function_id == function.id)}
            self.assertLessEqual(states, {"draining", "deleted"})

    def test_starts_and_changes_at_once_leave_no_old_worker_that_takes_calls(self) -> None:
        others = self.server()
        for cpu in (200, 210, 220):
            core.at_once(
                lambda: self.start(self.made),
                lambda: self.start(self.made, others),
                lambda cpu=cpu: others.functions.update(ALICE, self.made.id, Changes(cpu=cpu), None),
            )
            current = self.revision(self.made).id
            old = {row.state for row in self.rows(T, T.c.revision_id != current)}
            self.assertLessEqual(old, {"draining", "deleted"})


class DownTests(WorkersTest):
    def test_detaching_drains_all_and_names_the_reason(self) -> None:
        ids = [self.start(self.made) for _ in range(2)]
        self.assertEqual(sorted(ids), sorted(self.core.workers.detach(self.made.id, 0)))
        self.assertEqual({("draining", "detached")}, {self.state(each) for each in ids})

    def test_detaching_leaves_other_functions_alone(self) -> None:
        other = self.start(self.function())
        self.start(self.made)
        self.core.workers.detach(self.made.id, 0)
        self.assertEqual(("ready", None), self.state(other))

    def test_a_draining_worker_refuses_calls_when_detach_returns(self) -> None:
        worker_id = self.start(self.made)
        (worker,) = self.core.routes.read(self.made.id, 0).workers
        self.core.workers.detach(self.made.id, 0)
        self.assertEqual((), self.core.routes.read(self.made.id, 0).workers)
        self.assertEqual(503, core.call(worker, worker_id))

    def test_scaling_down_takes_the_least_recently_used_and_keeps_one(self) -> None:
        ids = [self.start(self.made) for _ in range(3)]
        for age, worker_id in enumerate(ids):
            self.age(worker_id, 10.0 * age)
        self.assertEqual([ids[2]], self.core.workers.scale_down(self.made.id, 0, 1))
        self.assertEqual([ids[1]], self.core.workers.scale_down(self.made.id, 0, 9))
        self.assertEqual([], self.core.workers.scale_down(self.made.id, 0, 1))
        self.assertEqual(("ready", None), self.state(ids[0]))
        self.assertEqual(("draining", "scaled_down"), self.state(ids[1]))

    def test_scaling_down_twice_at_once_keeps_one(self) -> None:
        others = self.server()
        for _ in range(4):
            self.start(self.made)
        outcomes = core.at_once(
            lambda: self.core.workers.scale_down(self.made.id, 0, 3),
            lambda: others.workers.scale_down(self.made.id, 0, 3),
        )
        self.assertEqual([], [each for each in outcomes if isinstance(each, Exception)])
        self.assertEqual(1, len(self.rows(T, T.c.state == "ready")))

    def test_an_idle_worker_is_drained_and_a_used_one_is_not(self) -> None:
        idle, used = self.start(self.made), self.start(self.made)
        self.age(idle, 100)
        self.age(used, 100)
        self.core.workers.touch([used])
        self.assertEqual([idle], self.core.workers.drain_idle(60))
        self.assertEqual(("draining", "idle"), self.state(idle))

    def test_a_drained_worker_without_calls_is_stopped_at_once(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.detach(self.made.id, 0)
        self.core.workers.stop_drained()
        self.assertEqual(("deleted", "detached"), self.state(worker_id))
        self.assertEqual([], self.alive())

    def test_a_busy_worker_is_stopped_when_its_grace_is_over(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.detach(self.made.id, 0)
        self.core.workers._is_idle = lambda row: False
        self.core.workers.stop_drained()
        self.assertEqual(("draining", "detached"), self.state(worker_id))
        self.age(worker_id, 6, "updated_at")
        self.core.workers.stop_drained()
        self.assertEqual(("deleted", "detached"), self.state(worker_id))

    def test_the_grace_is_measured_by_the_databases_clock(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.detach(self.made.id, 0)
        self.core.workers._is_idle = lambda row: False
        ahead = session.micros() + 3600 * 10**6
        self.patch(session, "micros", lambda: ahead)
        self.patch(workers, "micros", lambda: ahead)
        self.core.workers.stop_drained()
        self.assertEqual(("draining", "detached"), self.state(worker_id))

    def test_one_worker_that_cannot_be_stopped_does_not_keep_the_others(self) -> None:
        ids = [self.start(self.made) for _ in range(3)]
        self.core.workers.detach(self.made.id, 0)
        self.engine.fail(Stage.STOP, errors.DriverUnavailable("connection lost"))
        self.core.workers.stop_drained()
        states = collections.Counter(self.state(each)[0] for each in ids)
        self.assertEqual({"deleted": 2, "draining": 1}, states)
        self.core.workers.stop_drained()
        self.assertEqual([], self.alive())

    def test_a_second_stop_is_a_no_op(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.detach(self.made.id, 0)
        self.core.workers.stop(worker_id, 0.0)
        self.core.workers.stop(worker_id, 0.0)
        self.assertEqual(("deleted", "detached"), self.state(worker_id))

    def test_stopping_an_unknown_worker_is_a_no_op(self) -> None:
        self.assertIsNone(self.core.workers.stop("unknown", 0.0))

    def test_a_ready_worker_is_not_stopped(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.stop(worker_id, 0.0)
        self.assertEqual([worker_id], self.alive())

    def test_a_lost_worker_takes_no_more_calls(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.lost(worker_id)
        self.assertEqual(("draining", "worker_died"), self.state(worker_id))

    def test_who_loses_a_worker_is_told_how_it_ended(self) -> None:
        worker_id = self.start(self.made)
        self.engine.kill(worker_id)
        self.assertEqual("killed", self.core.workers.lost(worker_id))

    def test_a_cause_is_waited_for_while_the_driver_holds_the_worker_for_running(self) -> None:
        worker_id = self.start(self.made)
        lost = core.spawn(lambda: self.core.workers.lost(worker_id))
        core.spawn(lambda: self.engine.kill(worker_id))
        self.assertEqual("killed", lost.result(core.PATIENCE))

    def test_of_a_worker_that_only_cannot_be_reached_no_cause_is_made_up(self) -> None:
        worker_id = self.start(self.made)
        self.assertIsNone(self.core.workers.lost(worker_id))

    def test_no_cause_is_known_where_the_driver_does_not_answer(self) -> None:
        worker_id = self.start(self.made)
        self.engine.fail(Stage.LIST, errors.DriverUnavailable("down"))
        self.assertIsNone(self.core.workers.lost(worker_id))

    def test_room_is_made_by_the_least_recently_used_worker_of_another_function(self) -> None:
        mine = self.start(self.made)
        older, newer = self.start(self.function()), self.start(self.function())
        self.age(older, 20)
        self.age(newer, 10)
        self.age(mine, 30)
        forgotten: list[tuple[str, str]] = []

        def forget(worker_id: str) -> None:
            forgotten.append((worker_id, self.state(worker_id)[0]))

        self.assertTrue(self.core.workers.make_room(self.made.id, forget))
        self.assertEqual([(older, "draining")], forgotten)
        self.assertEqual(("deleted", "scaled_down"), self.state(older))
        self.assertEqual(("ready", "ready"), (self.state(newer)[0], self.state(mine)[0]))

    def test_no_room_is_made_by_busy_workers(self) -> None:
        worker_id = self.start(self.function())
        self.core.workers._is_idle = lambda row: False
        self.assertFalse(self.core.workers.make_room(self.made.id, self.fail))
        self.assertEqual(("ready", None), self.state(worker_id))

    def test_no_room_is_made_by_workers_of_other_nodes(self) -> None:
        there = self.server(node="there")
        worker_id = self.start(self.function(), there)
        self.assertFalse(self.core.workers.make_room(self.made.id, self.fail))
        self.assertEqual(("ready", None), self.state(worker_id))

    def test_rows_of_workers_that_were_deleted_long_ago_are_purged(self) -> None:
        old, new = self.start(self.made), self.start(self.made)
        self.core.workers.detach(self.made.id, 0)
        self.core.workers.stop_drained()
        self.age(old, 100, "updated_at")
        self.core.workers.purge(60)
        self.assertEqual([new], [row.id for row in self.rows(T)])


class ReapTests(WorkersTest):
    def test_a_ready_worker_is_left_alone(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.reap()
        self.assertEqual((("ready", None), [worker_id]), (self.state(worker_id), self.alive()))

    def test_a_row_whose_worker_died_is_settled(self) -> None:
        worker_id = self.start(self.made)
        self.engine.kill(worker_id)
        self.core.workers.reap()
        self.assertEqual(("deleted", "worker_died"), self.state(worker_id))
        self.assertEqual([], self.alive())

    def test_a_row_whose_worker_is_unknown_to_the_driver_is_settled(self) -> None:
        worker_id = self.start(self.made)
        self.engine.stop(self.engine.find(worker_id), 0.0)
        self.core.workers.reap()
        self.assertEqual(("deleted", "worker_died"), self.state(worker_id))

    def test_a_worker_without_a_row_is_stopped(self) -> None:
        worker_id = self.start(self.made)
        with self.db.write() as connection:
            connection.execute(sa.delete(T).where(T.c.id == worker_id))
        self.core.workers.reap()
        self.assertEqual([], self.alive())

    def test_a_worker_of_another_server_is_left_alone(self) -> None:
        worker_id = self.start(self.made, self.server())
        self.core.workers.reap()
        self.assertEqual((("ready", None), [worker_id]), (self.state(worker_id), self.alive()))

    def test_one_that_becomes_ready_while_the_reaper_looks_is_left_alone(self) -> None:
        driver = self.core.workers._orchestrators["fake"].driver
        listing, started = driver.list_workers, []

        def start_meanwhile(deadline: float) -> Any:
            listed = listing(deadline)
            started.append(self.start(self.made))
            return listed

        driver.list_workers = start_meanwhile
        self.core.workers.reap()
        self.assertEqual(("ready", None), self.state(started[0]))

    def test_a_driver_that_does_not_answer_settles_nothing(self) -> None:
        worker_id = self.start(self.made)
        self.engine.fail(Stage.LIST, errors.DriverUnavailable("the engine restarts"))
        self.core.workers.reap()
        self.assertEqual(("ready", None), self.state(worker_id))

    def test_a_start_that_nobody_finished_is_settled_after_a_while(self) -> None:
        self.conclude_never()
        worker_id = self.only_row().id
        self.core.workers.reap()
        self.assertEqual("starting", self.state(worker_id)[0])
        self.age(worker_id, 3600, "updated_at")
        self.core.workers.reap()
        self.core.workers.stop_drained()
        self.core.workers.reap()
        self.assertEqual(("deleted", "start_failed"), self.state(worker_id))
        self.assertEqual([], self.alive())

    def conclude_never(self) -> None:
        """A start whose end the database never heard of."""

        def fail(*arguments: Any) -> Any:
            raise errors.DriverUnavailable("the database does not answer")

        self.core.starts._conclude = fail
        self.core.workers.settle, settle = fail, self.core.workers.settle
        self.assertRaises(errors.DriverUnavailable, self.start, self.made)
        self.core.workers.settle = settle

    def test_workers_of_a_server_that_left_are_adopted_where_the_driver_lets_them_survive(self) -> None:
        gone = self.server()
        worker_id = self.start(self.made, gone)
        gone.servers.leave()
        self.core.workers.reap()
        self.assertEqual((("ready", None), [worker_id]), (self.state(worker_id), self.alive()))

    def test_workers_of_a_server_that_left_are_settled_where_they_died_with_it(self) -> None:
        gone = self.server(driver_class=core.Mortal)
        worker_id = self.start(self.made, gone)
        gone.servers.leave()
        self.server(driver_class=core.Mortal).workers.forget_dead()
        self.assertEqual(("deleted", "server_lost"), self.state(worker_id))

    def test_a_start_of_a_server_that_died_is_settled_and_its_worker_stopped(self) -> None:
        gone = self.server()
        worker_id = self.start(self.made, gone)
        self.change(T, worker_id, state="starting", handle=None)
        gone.servers.leave()
        for _ in range(2):
            self.core.workers.reap()
            self.core.workers.stop_drained()
        self.assertEqual(("deleted", "server_lost"), self.state(worker_id))
        self.assertEqual([], self.alive())

    def test_a_server_whose_lease_is_over_is_forgotten(self) -> None:
        gone = self.server(driver_class=core.Mortal)
        worker_id = self.start(self.made, gone)
        mortal = self.server(driver_class=core.Mortal)
        self.change(models.servers, gone.server_id, lease_expires_at=0)
        mortal.servers.remove_expired()
        mortal.workers.forget_dead()
        self.assertEqual(("deleted", "server_lost"), self.state(worker_id))

    def test_workers_that_would_die_with_their_server_are_stopped_at_its_end(self) -> None:
        mortal = self.server(driver_class=core.Mortal)
        worker_id = self.start(self.made, mortal)
        other = self.start(self.made)
        mortal.workers.stop_own()
        self.assertEqual(("deleted", "worker_stopped"), self.state(worker_id))
        self.assertEqual([other], self.alive())

    def test_workers_that_survive_are_left_at_the_end_of_their_server(self) -> None:
        worker_id = self.start(self.made)
        self.core.workers.stop_own()
        self.assertEqual([worker_id], self.alive())

    def test_only_their_own_node_calls_workers_that_die_with_their_server(self) -> None:
        self.start(self.made, self.server(driver_class=core.Mortal))
        same = self.server(driver_class=core.Mortal)
        other = self.server(driver_class=core.Mortal, node="there")
        self.assertEqual(1, len(same.routes.read(self.made.id, 0).workers))
        self.assertEqual((), other.routes.read(self.made.id, 0).workers)

    def test_every_node_calls_workers_that_survive(self) -> None:
        self.start(self.made)
        there = self.server(node="there")
        self.assertEqual(1, len(there.routes.read(self.made.id, 0).workers))
