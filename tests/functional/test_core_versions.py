"""Versions: their numbers, packages and workers, and changes at the same moment."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

from funcplat import errors
from funcplat.core.aliases import Changes as AliasChanges
from funcplat.core.aliases import NewAlias, Route
from funcplat.core.functions import Changes
from funcplat.core.listing import Listing
from funcplat.core.versions import Version
from funcplat.db import models
from tests.functional import core, test_core_images
from tests.functional.core import ADMIN, ALICE, BOB, MAIN, MAX_VERSIONS

BY_NUMBER = Listing(sort_key="version_number")


def source(number: int) -> str:
    return f"def main(**kwargs):\n    return {number}\n"


class VersionsTests(core.CoreTest):
    def setUp(self) -> None:
        super().setUp()
        self.made = self.function()

    def publish(self, description: str | None = None) -> Version:
        return self.core.versions.create(ALICE, self.made.id, description)

    def upload(self, text: str) -> None:
        with self.package(text) as package:
            self.core.functions.update(ALICE, self.made.id, Changes(), package)

    def publish_many(self, count: int) -> None:
        for number in range(count):
            self.upload(source(number))
            self.publish()

    def delete(self, number: int) -> None:
        self.core.versions.delete(ALICE, self.made.id, number)

    def numbers(self) -> list[int]:
        return [each.version_number for each in self.core.versions.list(ALICE, self.made.id, BY_NUMBER)]

    def latest(self) -> int:
        return self.core.functions.get(ALICE, self.made.id).latest_version

    def digest(self, version: int) -> str:
        digest: str = self.revision(self.made, version).digest
        return digest

    def download(self, version: int) -> bytes:
        with self.core.functions.download(ALICE, self.made.id, version) as (size, chunks):
            data = b"".join(chunks)
        self.assertEqual(size, len(data))
        return data

    # -- numbers -----------------------------------------------------------------------------------------

    def test_the_first_version_has_number_1_and_what_it_was_given(self) -> None:
        version = self.publish("first")
        self.assertEqual(
            (1, "first", self.made.id, ALICE.project_id, 0, None),
            (
                version.version_number,
                version.description,
                version.function_id,
                version.project_id,
                version.count,
                version.updated_at,
            ),
        )
        self.assertEqual(version, self.core.versions.get(ALICE, self.made.id, 1))
        self.assertEqual(1, self.latest())

    def test_numbers_grow_by_one(self) -> None:
        self.publish_many(3)
        self.assertEqual([1, 2, 3], self.numbers())
        self.assertEqual(3, self.latest())

    def test_the_number_of_a_deleted_version_is_never_given_again(self) -> None:
        self.publish_many(2)
        self.delete(2)
        self.assertEqual(1, self.latest())
        self.assertEqual(3, self.publish().version_number)
        self.delete(3)
        self.delete(1)
        self.assertEqual(0, self.latest())
        self.assertEqual(4, self.publish().version_number)
        self.assertEqual([4], self.numbers())

    def test_there_are_at_most_so_many_and_numbers_grow_past_the_limit(self) -> None:
        self.publish_many(MAX_VERSIONS)
        self.upload(source(100))
        error = self.assertRaises(errors.TooManyVersions, self.publish)
        self.assertEqual(f"Can not exceed maximum number({MAX_VERSIONS}) of versions", error.message)
        self.delete(1)
        self.assertEqual(MAX_VERSIONS + 1, self.publish().version_number)

    def test_the_limit_is_of_each_function(self) -> None:
        self.publish_many(MAX_VERSIONS)
        other = self.function()
        self.assertEqual(1, self.core.versions.create(ALICE, other.id).version_number)

    def test_a_package_that_the_newest_version_has_makes_no_version(self) -> None:
        self.publish()
        error = self.assertRaises(errors.VersionUnchanged, self.publish)
        self.assertEqual("Function package not changed since the latest version 1.", error.message)
        self.assertEqual([1], self.numbers())

    def test_a_package_that_only_an_older_version_has_makes_one(self) -> None:
        self.publish()
        self.upload(source(1))
        self.publish()
        self.upload(MAIN)
        self.publish()
        self.assertEqual([1, 2, 3], self.numbers())
        self.assertEqual(self.digest(1), self.digest(3))

    def test_after_the_newest_was_deleted_the_one_before_is_compared(self) -> None:
        self.publish()
        self.upload(source(1))
        self.publish()
        self.delete(2)
        self.publish()
        self.delete(3)
        self.upload(MAIN)
        self.assertRaises(errors.VersionUnchanged, self.publish)

    def test_five_at_once_make_one_version(self) -> None:
        servers = [self.core, self.server()]
        outcomes = core.at_once(
            *(functools.partial(servers[n % 2].versions.create, ALICE, self.made.id) for n in range(5))
        )
        self.assertEqual([1], [each.version_number for each in outcomes if isinstance(each, Version)])
        self.assertEqual(4, sum(isinstance(each, errors.VersionUnchanged) for each in outcomes), outcomes)
        self.assertEqual([1], self.numbers())

    def test_a_version_and_a_change_at_once_keep_one_package_of_the_two(self) -> None:
        other = self.server()

        def change() -> None:
            with self.package(source(5)) as package:
                other.functions.update(ALICE, self.made.id, Changes(), package)

        first = self.digest(0)
        outcomes = core.at_once(self.publish, change)
        self.assertEqual([], [each for each in outcomes if isinstance(each, Exception)])
        self.assertIn(self.digest(1), (first, self.digest(0)))
        self.assertEqual(hashlib.sha256(core.zipped(source(5))).hexdigest(), self.digest(0))

    # -- whose ---------------------------------------------------------------------------------------------

    def test_of_another_project_they_do_not_exist(self) -> None:
        self.publish()
        versions = self.core.versions
        for call in (
            lambda: versions.list(BOB, self.made.id, BY_NUMBER),
            lambda: versions.get(BOB, self.made.id, 1),
            lambda: versions.create(BOB, self.made.id),
            lambda: versions.delete(BOB, self.made.id, 1),
        ):
            self.assertRaises(errors.NotFound, call)

    def test_admins_see_those_of_others_and_leave_them_alone(self) -> None:
        version = self.publish()
        versions = self.core.versions
        self.assertEqual([version], versions.list(ADMIN, self.made.id, BY_NUMBER))
        self.assertEqual(version, versions.get(ADMIN, self.made.id, 1))
        self.upload(source(1))
        for call in (
            lambda: versions.create(ADMIN, self.made.id),
            lambda: versions.delete(ADMIN, self.made.id, 1),
        ):
            self.assertRaises(errors.NotFound, call)
        self.assertEqual([1], self.numbers())

    def test_unknown_ones(self) -> None:
        self.publish()
        for number in (0, 2, -1):
            self.assertRaises(errors.NotFound, self.core.versions.get, ALICE, self.made.id, number)
            self.assertRaises(errors.NotFound, self.delete, number)

    # -- packages ------------------------------------------------------------------------------------------

    def test_a_version_keeps_its_package_when_the_function_gets_another(self) -> None:
        self.publish()
        self.upload(source(1))
        self.assertEqual(core.zipped(MAIN), self.download(1))
        self.assertEqual(core.zipped(source(1)), self.download(0))

    def test_packages_of_versions_outlive_sweeps_and_those_of_deleted_ones_do_not(self) -> None:
        core_without_grace = self.server(grace=0.0)
        self.publish()
        self.upload(source(1))
        self.publish()
        self.upload(source(2))
        core_without_grace.store.sweep()
        self.assertEqual(core.zipped(MAIN), self.download(1))
        self.assertEqual(core.zipped(source(1)), self.download(2))
        self.delete(1)
        core_without_grace.store.sweep()
        self.assertEqual({self.digest(0), self.digest(2)}, set(self.memory.packages))

    def test_a_package_of_two_versions_stays_until_both_are_deleted(self) -> None:
        core_without_grace = self.server(grace=0.0)
        self.publish()
        self.upload(source(1))
        self.publish()
        self.upload(MAIN)
        self.publish()
        self.upload(source(2))
        self.delete(1)
        core_without_grace.store.sweep()
        self.assertEqual(core.zipped(MAIN), self.download(3))
        self.delete(3)
        core_without_grace.store.sweep()
        self.assertNotIn(hashlib.sha256(core.zipped(MAIN)).hexdigest(), self.memory.packages)

    def test_ten_versions_have_the_packages_that_they_were_made_of(self) -> None:
        # The old server found packages by the beginning of their names, so that 1 was 10 as well.
        versions = self.server().versions
        versions._limit = 12
        for number in range(1, 12):
            self.upload(source(number))
            versions.create(ALICE, self.made.id)
        for number in range(1, 12):
            self.assertEqual(core.zipped(source(number)), self.download(number))
        versions.delete(ALICE, self.made.id, 1)
        for number in (0, 10, 11):
            self.assertNotEqual(b"", self.download(number))

    def test_deleting_the_function_deletes_its_versions(self) -> None:
        self.publish_many(2)
        worker = self.start(self.made, version=1)
        self.core.functions.delete(ALICE, self.made.id)
        self.assertEqual([], self.rows(models.function_versions))
        self.assertEqual([], self.rows(models.revisions))
        self.assertEqual(("draining", "superseded"), self.state(worker))

    # -- what versions have of the function ------------------------------------------------------------------

    def test_a_new_entry_is_that_of_versions_too(self) -> None:
        self.publish()
        before = self.revision(self.made, 1)
        self.core.functions.update(ALICE, self.made.id, Changes(entry="main.other", cpu=200), None)
        after = self.revision(self.made, 1)
        self.assertNotEqual(before.id, after.id)
        self.assertEqual(("main.other", 200, before.digest), (after.entry, after.cpu, after.digest))

    def test_new_code_leaves_versions_and_their_workers_alone(self) -> None:
        self.publish()
        revision, worker = self.revision(self.made, 1).id, self.start(self.made, version=1)
        old = self.start(self.made)
        self.upload(source(1))
        self.assertEqual(revision, self.revision(self.made, 1).id)
        self.assertEqual("ready", self.worker(worker).state)
        self.assertEqual(("draining", "superseded"), self.state(old))

    def test_new_limits_supersede_the_workers_of_versions(self) -> None:
        self.publish()
        worker = self.start(self.made, version=1)
        self.core.functions.update(ALICE, self.made.id, Changes(memory_size=2**26), None)
        self.assertEqual(("draining", "superseded"), self.state(worker))
        self.assertEqual("ready", self.worker(self.start(self.made, version=1)).state)

    def test_a_runtime_that_the_function_has_left_can_be_deleted(self) -> None:
        first = self.made.runtime_id
        self.publish()
        self.core.functions.update(ALICE, self.made.id, Changes(runtime_id=self.runtime()), None)
        self.core.runtimes.delete(ADMIN, first)
        self.core.runtimes.settle()
        self.assertEqual([], self.rows(models.runtimes, models.runtimes.c.id == first))
        self.assertEqual("ready", self.worker(self.start(self.made, version=1)).state)

    # -- workers -------------------------------------------------------------------------------------------

    def test_workers_of_a_version_are_others_than_those_of_the_function(self) -> None:
        self.publish()
        zero, one = self.start(self.made), self.start(self.made, version=1)
        for version, worker in ((0, zero), (1, one)):
            self.assertEqual([worker], [w.id for w in self.core.workers.of(ADMIN, self.made.id, version)])
            self.assertEqual([worker], [w.id for w in self.core.routes.read(self.made.id, version).workers])
        self.core.workers.detach(self.made.id, 1)
        self.assertEqual(("draining", "detached"), self.state(one))
        self.assertEqual("ready", self.worker(zero).state)

    def test_deleting_a_version_drains_its_workers_alone(self) -> None:
        self.publish()
        zero, one = self.start(self.made), self.start(self.made, version=1)
        self.delete(1)
        self.assertEqual(("draining", "superseded"), self.state(one))
        self.assertEqual("ready", self.worker(zero).state)
        self.assertRaises(errors.NotFound, self.core.routes.read, self.made.id, 1)

    def test_a_version_that_is_deleted_while_its_worker_starts_gets_none(self) -> None:
        self.publish()
        revision = self.revision(self.made, 1).id
        self.memory.before = lambda method: self.delete(1) if method == "open" else None
        self.assertRaises(errors.Conflict, self.core.starts.start, revision)
        self.assertEqual([], self.owned())
        self.memory.before = lambda method: None
        self.assertRaises(errors.NotFound, self.core.starts.start, revision)

    def test_the_revision_of_a_deleted_version_goes_with_its_last_worker(self) -> None:
        self.publish()
        revision, worker = self.revision(self.made, 1).id, self.start(self.made, version=1)
        self.delete(1)
        self.core.store.sweep()
        self.assertIsNotNone(self.row(models.revisions, revision))
        self.core.workers.stop(worker, 0.0)
        self.core.store.sweep()
        self.assertIsNone(self.row(models.revisions, revision))

    # -- who refers to them ----------------------------------------------------------------------------------

    def test_a_version_that_an_alias_leads_to_is_not_deleted(self) -> None:
        self.publish_many(2)
        self.core.aliases.create(ALICE, NewAlias("prod", self.made.id, 1))
        error = self.assertRaises(errors.InUse, self.delete, 1)
        self.assertIn("alias prod", error.message)
        self.delete(2)
        self.core.aliases.delete(ALICE, "prod")
        self.delete(1)

    def test_a_version_that_gets_a_share_of_an_alias_is_not_deleted(self) -> None:
        self.publish_many(3)
        routes = (Route(1, 90), Route(2, 10))
        self.core.aliases.create(ALICE, NewAlias("prod", self.made.id, routes=routes))
        for number in (1, 2):
            self.assertRaises(errors.InUse, self.delete, number)
        self.delete(3)
        self.core.aliases.update(ALICE, "prod", AliasChanges(function_version=2))
        self.delete(1)

    def test_a_version_is_deleted_or_named_but_not_both(self) -> None:
        other = self.server()
        for attempt in range(5):
            self.upload(source(attempt))
            number = self.publish().version_number
            new = NewAlias(f"alias-{attempt}", self.made.id, number)
            outcomes: list[Any] = core.at_once(
                functools.partial(self.delete, number), functools.partial(other.aliases.create, ALICE, new)
            )
            kept = number in self.numbers()
            self.assertEqual(kept, isinstance(outcomes[0], errors.InUse), outcomes)
            self.assertEqual(not kept, isinstance(outcomes[1], errors.NotFound), outcomes)
            if kept:
                self.core.aliases.delete(ALICE, new.name)
                self.delete(number)

    # -- counts --------------------------------------------------------------------------------------------

    def test_executions_of_a_version_are_counted_there(self) -> None:
        self.publish()
        records = [self.record(function_id=self.made.id, function_version=n) for n in (0, 1, 1, 1, 0, 7)]
        self.recording().write(records, durable=True)
        self.assertEqual(2, self.core.functions.get(ALICE, self.made.id).count)
        self.assertEqual(3, self.core.versions.get(ALICE, self.made.id, 1).count)

    def test_counting_and_deleting_at_once_both_succeed(self) -> None:
        self.publish()
        recordings = [self.recording(self.open_database()) for _ in range(3)]
        batch = [
            [self.record(function_id=self.made.id, function_version=n % 2) for n in range(20)] for _ in "abc"
        ]
        outcomes = core.at_once(
            functools.partial(self.delete, 1),
            *(functools.partial(r.write, b, durable=True) for r, b in zip(recordings, batch, strict=True)),
        )
        self.assertEqual([None] * 4, outcomes)
        self.assertEqual(60, len(self.rows(models.executions)))
        self.assertEqual(30, self.core.functions.get(ALICE, self.made.id).count)


class ImagesTests(test_core_images.ImageTest):
    def test_an_image_has_names_and_no_versions(self) -> None:
        made = self.create()
        self.assertRaises(errors.NotVersionable, self.core.versions.create, ALICE, made.id)
        self.assertEqual([], self.core.versions.list(ALICE, made.id, BY_NUMBER))
        self.core.aliases.create(ALICE, NewAlias("prod", made.id))
        self.assertRaises(errors.NotFound, self.core.aliases.create, ALICE, NewAlias("one", made.id, 1))
