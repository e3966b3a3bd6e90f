"""Aliases: where they lead, whose they are, and changes at the same moment."""

from __future__ import annotations

import collections
import functools
from typing import Any

from funcplat import errors
from funcplat.core.aliases import Alias, Changes, NewAlias, Route, Target, is_name, resolve
from funcplat.core.functions import Changes as FunctionChanges
from funcplat.core.listing import Listing
from tests.functional import core
from tests.functional.core import ADMIN, ALICE, BOB

NOBODY = "00000000-0000-4000-8000-000000000000"


class AliasTest(core.CoreTest):
    """A function with three versions, and what is done with names for them."""

    def setUp(self) -> None:
        super().setUp()
        self.made = self.function()
        for number in (1, 2, 3):
            self.publish(self.made, number)

    def publish(self, function: Any, number: int) -> None:
        with self.package(f"def main(**kwargs):\n    return {number}\n") as package:
            self.core.functions.update(ALICE, function.id, FunctionChanges(), package)
        self.core.versions.create(ALICE, function.id)

    def create(self, name: str = "prod", version: int | None = 1, **fields: Any) -> Alias:
        return self.core.aliases.create(ALICE, NewAlias(name, self.made.id, version, **fields))

    def update(self, name: str = "prod", **changes: Any) -> Alias:
        return self.core.aliases.update(ALICE, name, Changes(**changes))

    def resolved(self, name: str = "prod", project_id: str = ALICE.project_id) -> Target:
        with self.db.read() as connection:
            return resolve(connection, project_id, name)

    def names(self, identity: Any = ALICE, **listing: Any) -> list[str]:
        return [each.name for each in self.core.aliases.list(identity, Listing(**listing))]


class AliasesTests(AliasTest):
    # -- making --------------------------------------------------------------------------------------------

    def test_an_alias_has_what_it_was_given(self) -> None:
        made = self.create(description="d")
        self.assertEqual(
            ("prod", "d", self.made.id, 1, None, ALICE.project_id, None),
            (
                made.name,
                made.description,
                made.function_id,
                made.function_version,
                made.routes,
                made.project_id,
                made.updated_at,
            ),
        )
        self.assertEqual(made, self.core.aliases.get(ALICE, "prod"))
        self.assertEqual(Target(self.made.id, 1), self.resolved())

    def test_the_function_itself_is_the_default(self) -> None:
        self.assertEqual(0, self.create(version=None).function_version)
        self.assertEqual(Target(self.made.id, 0), self.resolved())

    def test_a_name_is_taken_once_a_project(self) -> None:
        self.create()
        error = self.assertRaises(errors.Duplicate, self.create, version=2)
        self.assertIn("Duplicate entry for function_aliases", error.message)
        other = self.function(BOB)
        self.core.aliases.create(BOB, NewAlias("prod", other.id))
        self.assertEqual(Target(other.id, 0), self.resolved(project_id=BOB.project_id))

    def test_one_name_for_one_version(self) -> None:
        self.create()
        self.assertRaises(errors.Duplicate, self.create, name="other")
        self.create(name="other", version=2)
        self.assertRaises(errors.Duplicate, self.update, "other", function_version=1)

    def test_names_that_share_calls_may_lead_to_the_same_versions(self) -> None:
        self.create()
        for name in ("canary", "another"):
            self.create(name=name, routes=(Route(1, 9), Route(2, 1)))
        self.assertEqual(3, len(self.names()))
        self.assertRaises(errors.Duplicate, self.update, "canary", function_version=1)

    def test_targets_that_do_not_exist(self) -> None:
        for new in (
            NewAlias("a", NOBODY),
            NewAlias("a", self.made.id, 4),
            NewAlias("a", self.made.id, routes=(Route(1, 1), Route(4, 1))),
        ):
            self.assertRaises(errors.NotFound, self.core.aliases.create, ALICE, new)
        self.assertEqual([], self.names())

    def test_functions_of_others_are_no_targets_not_even_for_admins(self) -> None:
        theirs = self.function(BOB)
        for identity in (ALICE, ADMIN):
            new = NewAlias("a", theirs.id)
            self.assertRaises(errors.NotFound, self.core.aliases.create, identity, new)
        self.create()
        changes = Changes(function_id=theirs.id, function_version=0)
        for identity in (ALICE, ADMIN):
            self.assertRaises(errors.NotFound, self.core.aliases.update, identity, "prod", changes)
        self.assertEqual(Target(self.made.id, 1), self.resolved())

    def test_names_that_cannot_stand_in_a_path(self) -> None:
        for name in ("", "a/b", ".", "..", " a", "a ", "a\n", "a\0", "\ud800", "x" * 256):
            self.assertFalse(is_name(name), name)
            self.assertRaises(errors.InvalidRequest, self.create, name=name)
            self.assertRaises(errors.NotFound, self.core.aliases.get, ALICE, name)
        for name in ("a b", "ä", "a.b", "%2F", "x" * 255, "?", "#"):
            self.assertTrue(is_name(name), name)

    def test_names_differ_by_case_and_accents(self) -> None:
        for version, name in enumerate(("prod", "Prod", "pröd")):
            self.create(name=name, version=version)
            self.assertEqual(Target(self.made.id, version), self.resolved(name))

    def test_five_at_once_make_one_alias(self) -> None:
        servers = [self.core, self.server()]
        new = NewAlias("prod", self.made.id, 1)
        outcomes = core.at_once(
            *(functools.partial(servers[n % 2].aliases.create, ALICE, new) for n in range(5))
        )
        self.assertEqual(1, sum(isinstance(each, Alias) for each in outcomes), outcomes)
        self.assertEqual(4, sum(isinstance(each, errors.Duplicate) for each in outcomes), outcomes)

    # -- weights -------------------------------------------------------------------------------------------

    def test_routes_share_calls_by_weight(self) -> None:
        made = self.create(version=None, routes=(Route(2, 3), Route(3, 1)))
        self.assertEqual(2, made.function_version)
        self.assertEqual((Route(2, 3), Route(3, 1)), made.shares())
        with self.db.read() as connection:
            drawn = collections.Counter(
                resolve(connection, ALICE.project_id, "prod").version for _ in range(2000)
            )
        self.assertEqual({2, 3}, set(drawn))
        # Ten standard deviations.
        self.assertTrue(abs(drawn[2] - 1500) < 200, drawn)

    def test_the_main_version_is_one_of_the_routes(self) -> None:
        routes = (Route(1, 1), Route(2, 9))
        self.assertEqual(2, self.create(version=2, routes=routes).function_version)
        for version, wrong in ((3, routes), (None, (Route(1, 1), Route(1, 2)))):
            self.assertRaises(errors.InvalidRequest, self.create, name="other", version=version, routes=wrong)

    def test_routes_may_have_the_functions_own_code(self) -> None:
        made = self.create(version=0, routes=(Route(0, 1), Route(1, 1)))
        self.assertEqual(0, made.function_version)

    # -- changing ------------------------------------------------------------------------------------------

    def test_a_new_version(self) -> None:
        self.create(description="d")
        changed = self.update(function_version=2)
        self.assertEqual((2, "d"), (changed.function_version, changed.description))
        self.assertIsNotNone(changed.updated_at)
        self.assertEqual(Target(self.made.id, 2), self.resolved())
        self.assertEqual(0, self.update(function_version=0).function_version)

    def test_a_description_leaves_the_target_alone(self) -> None:
        self.create(version=None, routes=(Route(2, 3), Route(3, 1)))
        changed = self.update(description="")
        self.assertEqual(("", 2), (changed.description, changed.function_version))
        self.assertEqual((Route(2, 3), Route(3, 1)), changed.shares())

    def test_nothing_to_change(self) -> None:
        made = self.create()
        self.assertEqual(made, self.update())

    def test_another_function_must_have_the_version(self) -> None:
        other = self.function()
        self.create()
        self.assertRaises(errors.NotFound, self.update, function_id=other.id)
        self.assertEqual(Target(self.made.id, 1), self.resolved())
        self.publish(other, 7)
        self.update(function_id=other.id)
        self.assertEqual(Target(other.id, 1), self.resolved())
        self.core.functions.delete(ALICE, self.made.id)

    def test_unknown_versions(self) -> None:
        self.create()
        self.assertRaises(errors.NotFound, self.update, function_version=4)
        self.assertRaises(errors.NotFound, self.update, routes=(Route(1, 1), Route(4, 1)))
        self.assertEqual(Target(self.made.id, 1), self.resolved())

    def test_a_canary_comes_grows_and_becomes_all(self) -> None:
        self.create()
        self.assertEqual(1, self.update(routes=(Route(1, 99), Route(2, 1))).function_version)
        self.assertEqual(1, self.update(routes=(Route(1, 50), Route(2, 50))).function_version)
        changed = self.update(function_version=2)
        self.assertEqual((2, None), (changed.function_version, changed.routes))
        self.assertEqual({Target(self.made.id, 2)}, {self.resolved() for _ in range(20)})

    def test_without_routes_all_calls_go_to_the_main_version(self) -> None:
        self.create(version=2, routes=(Route(1, 9), Route(2, 1)))
        changed = self.update(routes=())
        self.assertEqual((2, None), (changed.function_version, changed.routes))

    def test_changes_at_once_leave_a_target_that_exists(self) -> None:
        other = self.function()
        self.publish(other, 1)
        self.create()
        servers = [self.core, self.server()]
        # The other function has no version 3, so that both changes together would lead nowhere.
        changes = (Changes(function_id=other.id), Changes(function_version=3))
        for _ in range(5):
            self.update(function_id=self.made.id, function_version=1)
            outcomes = core.at_once(
                *(
                    functools.partial(server.aliases.update, ALICE, "prod", change)
                    for server, change in zip(servers, changes, strict=True)
                )
            )
            target = self.resolved()
            self.assertIn(target, (Target(other.id, 1), Target(self.made.id, 3)), outcomes)
            self.assertIsNotNone(self.core.routes.read(target.function_id, target.version))

    # -- whose ---------------------------------------------------------------------------------------------

    def test_of_another_project_they_do_not_exist(self) -> None:
        self.create()
        aliases = self.core.aliases
        self.assertEqual([], self.names(BOB))
        for call in (
            functools.partial(aliases.get, BOB, "prod"),
            functools.partial(aliases.get, BOB, "prod", ALICE.project_id),
            functools.partial(aliases.update, BOB, "prod", Changes(description="x")),
            functools.partial(aliases.delete, BOB, "prod"),
            functools.partial(aliases.delete, BOB, "prod", ALICE.project_id),
            functools.partial(self.resolved, project_id=BOB.project_id),
            functools.partial(self.core.aliases.find, BOB.project_id, "prod"),
        ):
            self.assertRaises(errors.NotFound, call)

    def test_admins_take_their_own_first_and_name_the_project_where_several_are(self) -> None:
        mine = self.create()
        aliases = self.core.aliases
        self.assertEqual(mine, aliases.get(ADMIN, "prod"))
        theirs = aliases.create(BOB, NewAlias("prod", self.function(BOB).id))
        error = self.assertRaises(errors.Conflict, aliases.get, ADMIN, "prod")
        self.assertIn("project_id", error.message)
        for alias in (mine, theirs):
            self.assertEqual(alias, aliases.get(ADMIN, "prod", alias.project_id))
        own = aliases.create(ADMIN, NewAlias("prod", self.function(ADMIN).id))
        self.assertEqual(own, aliases.get(ADMIN, "prod"))
        self.assertEqual(
            "x", aliases.update(ADMIN, "prod", Changes(description="x"), BOB.project_id).description
        )
        self.assertEqual(theirs.id, aliases.delete(ADMIN, "prod", BOB.project_id).id)
        self.assertEqual(
            [mine.id, own.id], [each.id for each in aliases.list(ADMIN, Listing(all_projects=True))]
        )

    def test_an_admin_calls_aliases_of_the_own_project_alone(self) -> None:
        self.create()
        self.assertRaises(errors.NotFound, self.resolved, project_id=ADMIN.project_id)

    # -- lists ---------------------------------------------------------------------------------------------

    def test_lists(self) -> None:
        for version, name in enumerate(("b", "a", "c")):
            self.create(name=name, version=version)
        self.assertEqual(["b", "a", "c"], self.names())
        self.assertEqual(["a", "b", "c"], self.names(sort_key="name"))
        self.assertEqual(["a", "c"], self.names(filters={"name": "in:a,c"}))
        self.assertEqual([], self.names(filters={"function_id": NOBODY}))
        self.assertEqual(["b", "a", "c"], self.names(ADMIN, project_id=ALICE.project_id))

    # -- the end -------------------------------------------------------------------------------------------

    def test_a_deleted_alias_is_gone_and_its_target_is_not(self) -> None:
        self.create()
        self.core.aliases.delete(ALICE, "prod")
        self.assertRaises(errors.NotFound, self.resolved)
        self.assertRaises(errors.NotFound, self.core.aliases.delete, ALICE, "prod")
        self.assertEqual(self.made.id, self.core.functions.get(ALICE, self.made.id).id)
        self.create(version=3)

    def test_a_function_that_an_alias_leads_to_is_not_deleted(self) -> None:
        self.create(version=0)
        error = self.assertRaises(errors.InUse, self.core.functions.delete, ALICE, self.made.id)
        self.assertIn("alias prod", error.message)
        self.core.aliases.delete(ALICE, "prod")
        self.core.functions.delete(ALICE, self.made.id)

    def test_a_function_is_deleted_or_named_but_not_both(self) -> None:
        other = self.server()
        for attempt in range(5):
            function = self.function(runtime_id=self.made.runtime_id)
            new = NewAlias(f"alias-{attempt}", function.id)
            outcomes = core.at_once(
                functools.partial(self.core.functions.delete, ALICE, function.id),
                functools.partial(other.aliases.create, ALICE, new),
            )
            kept = isinstance(outcomes[1], Alias)
            self.assertEqual(kept, isinstance(outcomes[0], errors.InUse), outcomes)
            self.assertEqual(not kept, isinstance(outcomes[1], errors.NotFound), outcomes)

    def test_an_alias_that_is_held_is_deleted_after_what_refers_to_it_is_there(self) -> None:
        made = self.create()
        server = self.server()
        with self.db.write() as connection:
            self.assertEqual(
                Target(self.made.id, 1), resolve(connection, ALICE.project_id, "prod", hold=True)
            )
            deleting = core.spawn(functools.partial(server.aliases.delete, ALICE, "prod"))
            self.assertRaises(TimeoutError, deleting.result, 0.3)
        self.assertEqual(made.id, deleting.result(core.PATIENCE).id)
