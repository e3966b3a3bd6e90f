"""Functions: their rows and revisions, and changes at the same moment."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from funcplat import errors
from funcplat.core import functions, runtimes
from funcplat.core.functions import Changes
from funcplat.db import models
from tests.functional import core
from tests.functional.core import ADMIN, ALICE, BOB

OTHER = "def main(**kwargs):\n    return 'other'\n"


class FunctionsTests(core.CoreTest):
    def setUp(self) -> None:
        super().setUp()
        self.made = self.function(name="f", environment={"A": "1"})
        self.first = self.revision(self.made).id

    def update(self, source: str | None = None, **changes: Any) -> functions.Function:
        if source is None:
            return self.core.functions.update(ALICE, self.made.id, Changes(**changes), None)
        with self.package(source) as package:
            return self.core.functions.update(ALICE, self.made.id, Changes(**changes), package)

    def assert_new_revision(self, **fields: Any) -> None:
        revision = self.revision(self.made)
        self.assertNotEqual(self.first, revision.id)
        self.assertIsNone(self.row(models.revisions, self.first).current)
        for name, value in fields.items():
            self.assertEqual(value, getattr(revision, name))

    def assert_same_revision(self) -> None:
        self.assertEqual(self.first, self.revision(self.made).id)

    # -- revisions ---------------------------------------------------------------------------------------

    def test_a_new_entry_makes_a_new_revision(self) -> None:
        self.update(entry="main.other")
        self.assert_new_revision(entry="main.other")

    def test_new_cpu_makes_a_new_revision(self) -> None:
        self.update(cpu=200)
        self.assert_new_revision(cpu=200)

    def test_new_memory_makes_a_new_revision(self) -> None:
        self.update(memory_size=2**26)
        self.assert_new_revision(memory_size=2**26)

    def test_a_new_environment_makes_a_new_revision(self) -> None:
        self.update(environment={"A": "2"})
        self.assert_new_revision(environment='{"A":"2"}')

    def test_a_new_runtime_makes_a_new_revision(self) -> None:
        runtime_id = self.runtime()
        self.update(runtime_id=runtime_id)
        self.assert_new_revision(runtime_id=runtime_id)

    def test_new_code_makes_a_new_revision(self) -> None:
        self.update(OTHER)
        self.assert_new_revision(digest=hashlib.sha256(core.zipped(OTHER)).hexdigest())

    def test_a_new_name_description_or_timeout_makes_none(self) -> None:
        changed = self.update(name="new", description="text", timeout=7)
        self.assertEqual(("new", "text", 7), (changed.name, changed.description, changed.timeout))
        self.assert_same_revision()

    def test_the_same_values_again_make_none(self) -> None:
        self.update(cpu=100, entry="main.main", environment={"A": "1"}, runtime_id=self.made.runtime_id)
        self.assert_same_revision()

    def test_the_same_package_again_makes_none(self) -> None:
        self.update(core.MAIN)
        self.assert_same_revision()

    def test_further_keys_of_code_make_none(self) -> None:
        changed = self.update(code={"source": "package", "note": "x"})
        self.assertEqual("x", json.loads(changed.code)["note"])
        self.assert_same_revision()

    def test_a_new_revision_keeps_the_package(self) -> None:
        digest = self.revision(self.made).digest
        self.update(cpu=200)
        self.assert_new_revision(digest=digest)

    def test_a_new_revision_drains_the_workers_of_the_old_one(self) -> None:
        worker_id = self.start(self.made)
        self.update(cpu=200)
        self.assertEqual(("draining", "superseded"), self.state(worker_id))

    def test_no_new_revision_drains_nothing(self) -> None:
        worker_id = self.start(self.made)
        self.update(timeout=7)
        self.assertEqual(("ready", None), self.state(worker_id))

    # -- changes at the same moment -------------------------------------------------------------------------

    def test_two_changes_at_once_are_both_in_the_revision_that_is_current(self) -> None:
        others = self.server()
        outcomes = core.at_once(
            lambda: self.update(cpu=200),
            lambda: others.functions.update(ALICE, self.made.id, Changes(memory_size=2**26), None),
        )
        self.assertEqual([], [each for each in outcomes if isinstance(each, Exception)])
        self.assert_new_revision(cpu=200, memory_size=2**26)

    def test_many_changes_at_once_leave_one_current_revision(self) -> None:
        servers = [self.server() for _ in range(5)]
        outcomes = core.at_once(
            *(
                lambda server=server, cpu=cpu: server.functions.update(
                    ALICE, self.made.id, Changes(cpu=cpu), None
                )
                for server, cpu in zip(servers, range(200, 300, 20), strict=True)
            )
        )
        self.assertEqual([], [each for each in outcomes if isinstance(each, Exception)])
        self.assertEqual(self.core.functions.get(ALICE, self.made.id).cpu, self.revision(self.made).cpu)

    def test_the_checksum_that_is_shown_is_that_of_the_code_that_runs(self) -> None:
        others = self.server()
        for number in range(4):
            source = f"{OTHER}# {number}\n"
            note = {"source": "package", "note": str(number)}
            outcomes = core.at_once(
                lambda source=source: self.update(source),
                lambda note=note: others.functions.update(ALICE, self.made.id, Changes(code=note), None),
            )
            self.assertEqual([], [each for each in outcomes if isinstance(each, Exception)])
            shown = json.loads(self.core.functions.get(ALICE, self.made.id).code)
            md5 = hashlib.md5(core.zipped(source), usedforsecurity=False).hexdigest()
            self.assertEqual((md5, str(number)), (shown["md5sum"], shown["note"]))

    def test_a_change_and_a_delete_at_once_end_with_the_function_gone(self) -> None:
        others = self.server()
        changed, deleted = core.at_once(
            lambda: self.update(cpu=200), lambda: others.functions.delete(ALICE, self.made.id)
        )
        self.assertIsNone(deleted)
        self.assertIsInstance(changed, functions.Function | errors.NotFound)
        self.assertIsNone(self.row(models.functions, self.made.id))
        self.assertEqual([], self.rows(models.revisions))

    def test_of_two_deletes_at_once_one_finds_nothing(self) -> None:
        others = self.server()
        outcomes = core.at_once(
            lambda: self.core.functions.delete(ALICE, self.made.id),
            lambda: others.functions.delete(ALICE, self.made.id),
        )
        self.assertEqual({type(None), errors.NotFound}, {type(each) for each in outcomes})

    # -- create and delete ----------------------------------------------------------------------------------

    def test_a_runtime_that_is_not_available_is_refused(self) -> None:
        runtime_id = self.core.runtimes.create(ADMIN, runtimes.NewRuntime("python3")).id
        error = self.assertRaises(errors.InvalidRequest, self.function, runtime_id=runtime_id)
        self.assertIn("not available", str(error))

    def test_a_refused_function_leaves_no_row(self) -> None:
        self.assertRaises(errors.LimitOutOfRange, self.function, cpu=1000)
        self.assertEqual([self.made.id], [row.id for row in self.rows(models.functions)])

    def test_the_default_entry_is_used_where_none_is_given(self) -> None:
        self.assertEqual("main.main", self.made.entry)

    def test_a_function_is_seen_by_its_project_and_by_admins(self) -> None:
        for identity in (ALICE, ADMIN):
            self.assertEqual(self.made.id, self.core.functions.get(identity, self.made.id).id)
        self.assertRaises(errors.NotFound, self.core.functions.get, BOB, self.made.id)

    def test_an_admin_does_not_delete_functions_of_other_projects(self) -> None:
        self.assertRaises(errors.Forbidden, self.core.functions.delete, ADMIN, self.made.id)

    def test_deleting_drains_the_workers(self) -> None:
        worker_id = self.start(self.made)
        self.core.functions.delete(ALICE, self.made.id)
        self.assertEqual(("draining", "superseded"), self.state(worker_id))

    def test_the_package_is_downloaded_as_it_was_uploaded(self) -> None:
        with self.core.functions.download(ALICE, self.made.id) as (size, chunks):
            data = b"".join(chunks)
        self.assertEqual((core.zipped(core.MAIN), len(data)), (data, size))

    def test_a_package_that_the_store_lost_is_not_found(self) -> None:
        self.memory.packages.clear()
        download = self.core.functions.download(ALICE, self.made.id)
        self.assertRaises(errors.NotFound, download.__enter__)

    def test_text_is_kept_as_it_was_given(self) -> None:
        for text in ("grüße, 世界 🐘 \\ ' \" % :x", "Name", "name", "trailing  ", ""):
            self.assertEqual(text, self.update(description=text or None, name=text).name)

    def test_names_that_differ_in_case_differ(self) -> None:
        other = self.function(name="F")
        listing = core.Listing(filters={"name": "F"})
        self.assertEqual([other.id], [row.id for row in self.core.functions.list(ALICE, listing)])

    def test_an_environment_may_be_larger_than_64_kib(self) -> None:
        environment = {"LARGE": "x" * 100_000}
        changed = self.update(environment=environment)
        self.assertEqual(environment, json.loads(changed.environment))
