"""Runtimes: the ways between their states, and what races with them."""

from __future__ import annotations

import threading

from funcplat import errors
from funcplat.core import runtimes
from funcplat.core.listing import Listing
from funcplat.db import models
from funcplat.testing.fakes import Stage
from tests.functional import core
from tests.functional.core import ADMIN, ALICE, BOB


class RuntimesTests(core.CoreTest):
    def create(self, image: str = "python3", **fields: object) -> str:
        return self.core.runtimes.create(ADMIN, runtimes.NewRuntime(image, **fields)).id

    def status(self, runtime_id: str) -> tuple[str, str | None]:
        row = self.row(models.runtimes, runtime_id)
        return row.status, row.reason_code

    def test_a_new_runtime_is_creating_until_it_is_settled(self) -> None:
        runtime_id = self.create()
        self.assertEqual(("creating", None), self.status(runtime_id))
        self.core.runtimes.settle()
        self.assertEqual(("available", None), self.status(runtime_id))

    def test_an_image_that_the_driver_cannot_run_makes_it_error(self) -> None:
        runtime_id = self.create("cobol")
        self.core.runtimes.settle()
        self.assertEqual(("error", "image_unknown"), self.status(runtime_id))

    def test_while_the_driver_does_not_answer_it_stays_creating_and_says_why(self) -> None:
        runtime_id = self.create()
        self.engine.fail(Stage.CHECK_IMAGE, errors.DriverUnavailable("the engine restarts"))
        self.core.runtimes.settle()
        self.assertEqual(("creating", "driver_unavailable"), self.status(runtime_id))
        self.core.runtimes.settle()
        self.assertEqual(("available", None), self.status(runtime_id))

    def test_one_whose_driver_is_not_enabled_any_more_is_error(self) -> None:
        runtime_id = self.create()
        self.change(models.runtimes, runtime_id, orchestrator="docker")
        self.core.runtimes.settle()
        self.assertEqual(("error", "image_unknown"), self.status(runtime_id))

    def test_an_orchestrator_that_is_not_enabled_is_refused_with_those_that_are(self) -> None:
        error = self.assertRaises(errors.InvalidRequest, self.create, orchestrator="docker")
        self.assertIn("enabled are: fake", str(error))

    def test_an_upgrade_keeps_the_old_image_until_the_new_one_is_accepted(self) -> None:
        runtime_id = self.runtime()
        upgraded = self.core.runtimes.update(ADMIN, runtime_id, {"image": "python3.12"})
        self.assertEqual(("upgrading", "python3.12"), (upgraded.status, upgraded.image))
        self.assertEqual("python3", self.row(models.runtimes, runtime_id).image)
        self.core.runtimes.settle()
        row = self.row(models.runtimes, runtime_id)
        self.assertEqual(("available", "python3.12", None), (row.status, row.image, row.next_image))

    def test_an_upgrade_to_an_unknown_image_leaves_the_old_one_in_use(self) -> None:
        runtime_id = self.runtime()
        self.core.runtimes.update(ADMIN, runtime_id, {"image": "cobol"})
        self.core.runtimes.settle()
        row = self.row(models.runtimes, runtime_id)
        self.assertEqual(("available", "python3", "image_unknown"), (row.status, row.image, row.reason_code))

    def test_an_upgrade_of_one_that_is_not_available_is_a_conflict(self) -> None:
        runtime_id = self.create()
        change = {"image": "python3.12"}
        self.assertRaises(errors.Conflict, self.core.runtimes.update, ADMIN, runtime_id, change)

    def test_an_upgrade_is_refused_while_a_function_of_it_has_workers(self) -> None:
        function = self.function()
        worker_id = self.start(function)
        update = self.core.runtimes.update, ADMIN, function.runtime_id, {"image": "python3.12"}
        self.assertRaises(errors.InUse, *update)
        self.core.workers.detach(function.id, 0)
        self.core.workers.stop(worker_id, 0.0)
        self.assertEqual("upgrading", update[0](*update[1:]).status)

    def test_of_two_upgrades_at_once_one_is_a_conflict(self) -> None:
        runtime_id = self.runtime()
        others = self.server()
        outcomes = core.at_once(
            lambda: self.core.runtimes.update(ADMIN, runtime_id, {"image": "python3.11"}),
            lambda: others.runtimes.update(ADMIN, runtime_id, {"image": "python3.12"}),
        )
        self.assertEqual(1, len([each for each in outcomes if isinstance(each, errors.Conflict)]), outcomes)

    def test_a_new_name_alone_changes_no_state(self) -> None:
        runtime_id = self.create()
        changed = self.core.runtimes.update(ADMIN, runtime_id, {"name": "new"})
        self.assertEqual(("new", "creating"), (changed.name, changed.status))

    def test_a_deleted_runtime_is_gone_once_it_is_settled(self) -> None:
        runtime_id = self.runtime()
        self.core.runtimes.delete(ADMIN, runtime_id)
        self.assertEqual(("deleting", None), self.status(runtime_id))
        self.core.runtimes.settle()
        self.assertRaises(errors.NotFound, self.core.runtimes.get, ADMIN, runtime_id)

    def test_one_that_a_function_uses_is_not_deleted(self) -> None:
        function = self.function()
        self.assertRaises(errors.InUse, self.core.runtimes.delete, ADMIN, function.runtime_id)
        self.assertEqual(("available", None), self.status(function.runtime_id))

    def test_one_that_is_deleted_while_it_is_judged_stays_deleting(self) -> None:
        runtime_id = self.create()
        check = self.core.runtimes._orchestrators["fake"].driver.check_image

        def delete_first(image: str, deadline: float) -> None:
            self.core.runtimes.delete(ADMIN, runtime_id)
            check(image, deadline)

        self.core.runtimes._orchestrators["fake"].driver.check_image = delete_first
        self.core.runtimes.settle()
        self.assertEqual(("deleting", None), self.status(runtime_id))

    def test_a_function_is_never_created_for_a_runtime_that_is_deleted_at_that_moment(self) -> None:
        others = self.server()
        for _ in range(5):
            runtime_id = self.runtime()
            outcomes = core.at_once(
                lambda runtime_id=runtime_id: self.function(runtime_id=runtime_id),
                lambda runtime_id=runtime_id: others.runtimes.delete(ADMIN, runtime_id),
            )
            refused = [each for each in outcomes if isinstance(each, errors.RequestError)]
            self.assertEqual(1, len(refused), outcomes)

    def test_deleting_waits_for_a_function_whose_creation_is_not_committed_yet(self) -> None:
        runtime_id = self.runtime()
        inserted, checked = threading.Event(), threading.Event()
        refer = self.core.store.refer

        def slow_refer(*arguments: object) -> None:
            inserted.set()
            checked.wait(0.3)  # the other has begun, and waits for this transaction
            refer(*arguments)

        self.core.store.refer = slow_refer
        others = self.server()

        def delete() -> None:
            inserted.wait(core.PATIENCE)
            others.runtimes.delete(ADMIN, runtime_id)

        created, deleted = core.at_once(lambda: self.function(runtime_id=runtime_id), delete)
        self.assertEqual(runtime_id, created.runtime_id)
        self.assertIsInstance(deleted, errors.InUse)

    def test_settling_twice_at_once_is_harmless(self) -> None:
        runtime_ids = [self.create() for _ in range(5)]
        others = self.server()
        self.assertEqual([None, None], core.at_once(self.core.runtimes.settle, others.runtimes.settle))
        self.assertEqual({("available", None)}, {self.status(each) for each in runtime_ids})

    def test_a_private_one_is_seen_by_its_project_alone(self) -> None:
        private = self.core.runtimes.create(ALICE, runtimes.NewRuntime("python3", is_public=False)).id
        self.assertEqual(private, self.core.runtimes.get(ALICE, private).id)
        self.assertRaises(errors.NotFound, self.core.runtimes.get, BOB, private)
        self.assertEqual([], self.core.runtimes.list(BOB, core.ALL))

    def test_runtimes_are_sorted_by_every_field_that_callers_see(self) -> None:
        ids = {self.create(name=name, is_public=public) for name, public in (("b", True), ("a", False))}
        for key in ("name", "is_public", "trusted", "status", "updated_at", "created_at", "project_id"):
            listing = Listing(sort_key=key)
            found = [each.id for each in self.core.runtimes.list(ADMIN, listing)]
            self.assertEqual(ids, set(found), key)
            page = Listing(sort_key=key, marker=found[0], limit=5)
            self.assertEqual(found[1:], [each.id for each in self.core.runtimes.list(ADMIN, page)], key)

    def test_the_pool_of_a_driver_without_one_is_what_the_host_may_still_start(self) -> None:
        function = self.function()
        self.start(function)
        pool = self.core.runtimes.pool(ADMIN, function.runtime_id)
        self.assertEqual((200, 199), (pool.total, pool.available))
