"""The package store: rows and bytes through crashes and races."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from funcplat import errors
from funcplat.core.functions import Changes
from funcplat.db import models
from tests.functional import core
from tests.functional.core import ALICE

DIGEST = hashlib.sha256(core.zipped(core.MAIN)).hexdigest()


class PackagesTests(core.CoreTest):
    def packages(self) -> list[tuple[str, str]]:
        return [(row.digest, row.state) for row in self.rows(models.packages)]

    def age(self, seconds: float) -> None:
        """Let the last touch of all packages be that long ago."""
        with self.db.write() as connection:
            touched_at = models.packages.c.touched_at - int(seconds * 1e6)
            connection.execute(sa.update(models.packages).values(touched_at=touched_at))

    def keep(self, source: str = core.MAIN) -> None:
        with self.package(source) as package:
            self.core.store.keep(package)

    # -- crashes -----------------------------------------------------------------------------------------

    def test_what_was_put_and_never_referred_to_stays_within_the_grace(self) -> None:
        self.keep()
        self.assertEqual(0, self.core.store.sweep())
        self.assertEqual({DIGEST}, set(self.memory.packages))

    def test_what_was_put_and_never_referred_to_is_deleted_after_the_grace(self) -> None:
        self.keep()
        self.age(4000)
        self.assertEqual(1, self.core.store.sweep())
        self.assertEqual(({}, []), (self.memory.packages, self.packages()))

    def test_a_crash_before_the_bytes_are_put_leaves_a_row_that_is_swept(self) -> None:
        self.memory.before = lambda method: self.fail_with(errors.DriverError("died"))
        self.assertRaises(errors.DriverError, self.keep)
        self.memory.before = lambda method: None
        self.assertEqual([(DIGEST, "storing")], self.packages())
        self.age(4000)
        self.assertEqual(1, self.core.store.sweep())
        self.assertEqual([], self.packages())

    def fail_with(self, error: Exception) -> None:
        raise error

    def test_a_deletion_that_failed_is_taken_up_again(self) -> None:
        self.keep()
        self.age(4000)
        self.memory.before = lambda method: self.fail_with(errors.DriverError("died"))
        self.assertEqual(0, self.core.store.sweep())
        self.assertEqual([(DIGEST, "deleting")], self.packages())
        self.memory.before = lambda method: None
        self.assertEqual(1, self.server().store.sweep())
        self.assertEqual(({}, []), (self.memory.packages, self.packages()))

    def test_one_package_that_cannot_be_deleted_does_not_keep_the_others(self) -> None:
        self.keep()
        self.keep("def main(): pass\n")
        self.age(4000)
        first = [errors.DriverUnavailable("not now")]
        self.memory.before = lambda method: self.fail_with(first.pop()) if first else None
        self.assertEqual(1, self.core.store.sweep())
        self.assertEqual(1, len(self.memory.packages))

    def test_putting_is_tried_again_while_the_store_does_not_answer(self) -> None:
        failures = [errors.DriverUnavailable("not now"), errors.DriverUnavailable("not now")]
        self.memory.before = lambda method: self.fail_with(failures.pop()) if failures else None
        self.keep()
        self.assertEqual({DIGEST: core.zipped(core.MAIN)}, self.memory.packages)

    # -- references --------------------------------------------------------------------------------------

    def test_a_package_that_a_function_refers_to_is_never_swept(self) -> None:
        self.function()
        self.age(10_000)
        self.assertEqual(0, self.core.store.sweep())
        self.assertEqual([(DIGEST, "stored")], self.packages())

    def test_a_package_of_two_functions_goes_with_the_second(self) -> None:
        first, second = self.function(), self.function()
        self.core.functions.delete(ALICE, first.id)
        self.age(4000)
        self.assertEqual(0, self.core.store.sweep())
        self.core.functions.delete(ALICE, second.id)
        self.assertEqual(1, self.core.store.sweep())

    def test_a_package_of_a_revision_that_nothing_runs_any_more_goes(self) -> None:
        function = self.function()
        with self.package("def main(): pass\n") as package:
            self.core.functions.update(ALICE, function.id, Changes(), package)
        self.age(4000)
        self.assertEqual(1, self.core.store.sweep())
        self.assertNotIn(DIGEST, self.memory.packages)

    def test_a_package_of_an_old_revision_stays_while_a_worker_of_it_runs(self) -> None:
        function = self.function()
        self.start(function)
        with self.package("def main(): pass\n") as package:
            self.core.functions.update(ALICE, function.id, Changes(), package)
        self.age(4000)
        self.assertEqual(0, self.core.store.sweep())

    def test_a_new_touch_starts_the_grace_again(self) -> None:
        self.keep()
        self.age(4000)
        self.keep()
        self.assertEqual(0, self.core.store.sweep())

    # -- races -------------------------------------------------------------------------------------------

    def test_an_upload_during_the_deletion_of_the_same_bytes_waits_and_keeps_them(self) -> None:
        self.keep()
        self.age(4000)
        uploaded: list[object] = []
        runtime_id = self.runtime()
        others = self.server()

        def upload_now(method: str) -> None:
            if method == "delete":
                self.memory.before = lambda method: None
                uploaded.append(core.spawn(lambda: self.function(core=others, runtime_id=runtime_id)))

        self.memory.before = upload_now
        self.core.store.sweep()
        function = uploaded[0].result(core.PATIENCE)  # type: ignore[attr-defined]
        self.assertEqual({DIGEST}, set(self.memory.packages))
        self.assertEqual([(DIGEST, "stored")], self.packages())
        self.assertEqual(DIGEST, self.revision(function).digest)

    def test_an_upload_that_takes_longer_than_the_grace_is_a_conflict_rather_than_lost(self) -> None:
        runtime_id = self.runtime()
        keep = self.core.store.keep

        def slow_keep(package: object) -> object:
            stored = keep(package)
            self.age(4000)
            self.server().store.sweep()
            return stored

        self.core.store.keep = slow_keep
        self.assertRaises(errors.Conflict, self.function, runtime_id=runtime_id)
        self.assertEqual([], self.rows(models.functions))

    def test_functions_created_while_sweeps_run_never_lose_their_bytes(self) -> None:
        runtime_id = self.runtime()
        uploads = [self.server(grace=0.0) for _ in range(4)]
        sweeps = [self.server(grace=0.0) for _ in range(2)]

        def sweep(server: core.Core) -> None:
            for _ in range(10):
                server.store.sweep()

        def create(server: core.Core) -> None:
            for _ in range(3):
                try:
                    self.function(core=server, runtime_id=runtime_id)
                except errors.Conflict:  # without a grace that may be; the caller is told
                    continue

        outcomes = core.at_once(
            *(lambda server=server: create(server) for server in uploads),
            *(lambda server=server: sweep(server) for server in sweeps),
        )
        self.assertEqual([None] * 6, outcomes)
        referred = {row.digest for row in self.rows(models.revisions)}
        self.assertLessEqual(referred, set(self.memory.packages))
        self.assertLessEqual({(digest, "stored") for digest in referred}, set(self.packages()))

    def test_two_uploads_of_one_package_at_once_both_succeed(self) -> None:
        runtime_id = self.runtime()
        servers = [self.server() for _ in range(4)]
        outcomes = core.at_once(
            *(lambda server=server: self.function(core=server, runtime_id=runtime_id) for server in servers)
        )
        self.assertEqual([], [each for each in outcomes if isinstance(each, Exception)])
        self.assertEqual([(DIGEST, "stored")], self.packages())
