"""Conditions of lists: operators, scopes and what is refused before the database is asked."""

from __future__ import annotations

import sqlalchemy as sa
import testtools

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import listing
from funcplat.db import models

T = models.functions
MEMBER = Identity("mine", "me", frozenset({"member"}))
ADMIN = Identity("admins", "root", frozenset({"admin"}))


def sql(condition: sa.ColumnElement[bool]) -> str:
    return str(condition.compile(compile_kwargs={"literal_binds": True}))


class ConditionTests(testtools.TestCase):
    def test_each_operator_is_its_comparison(self) -> None:
        for text, expected in (
            ("x", "functions.name = 'x'"),
            ("eq:x", "functions.name = 'x'"),
            ("neq:x", "functions.name != 'x'"),
            ("gt:x", "functions.name > 'x'"),
            ("gte:x", "functions.name >= 'x'"),
            ("lt:x", "functions.name < 'x'"),
            ("lte:x", "functions.name <= 'x'"),
            ("in:x,y", "functions.name IN ('x', 'y')"),
        ):
            self.assertEqual(expected, sql(listing.condition(T.c.name, text)))
        self.assertIn("NOT IN ('x', 'y')", sql(listing.condition(T.c.name, "nin:x,y")))

    def test_has_escapes_wildcards(self) -> None:
        self.assertIn("ESCAPE", sql(listing.condition(T.c.name, "has:50%")))

    def test_an_unknown_operator_is_part_of_the_value(self) -> None:
        self.assertEqual("functions.name = 'like:x'", sql(listing.condition(T.c.name, "like:x")))

    def test_only_the_first_colon_counts(self) -> None:
        self.assertEqual("functions.name = 'in:x'", sql(listing.condition(T.c.name, "eq:in:x")))

    def test_values_are_bound_and_never_part_of_the_statement(self) -> None:
        hostile = "x'; DROP TABLE functions; --"
        for operator in ("", *(f"{name}:" for name in listing.OPERATORS)):
            self.assertNotIn("DROP", str(listing.condition(T.c.name, operator + hostile)))


class ScopeTests(testtools.TestCase):
    def test_a_member_sees_single_rows_of_the_own_project(self) -> None:
        self.assertEqual("functions.project_id = 'mine'", sql(listing.scope(T, MEMBER)))

    def test_an_admin_sees_every_single_row(self) -> None:
        self.assertEqual("true", sql(listing.scope(T, ADMIN)))

    def test_an_admins_list_is_of_the_own_project_too(self) -> None:
        found = listing.list_scope(T, ADMIN, listing.Listing())
        self.assertEqual("functions.project_id = 'admins'", sql(found))

    def test_all_projects_lists_everything(self) -> None:
        self.assertEqual("true", sql(listing.list_scope(T, ADMIN, listing.Listing(all_projects=True))))

    def test_an_admin_may_name_a_project_with_an_operator(self) -> None:
        found = listing.list_scope(T, ADMIN, listing.Listing(project_id="neq:x"))
        self.assertEqual("functions.project_id != 'x'", sql(found))

    def test_a_project_that_a_member_names_is_ignored(self) -> None:
        found = listing.list_scope(T, MEMBER, listing.Listing(project_id="other"))
        self.assertEqual("functions.project_id = 'mine'", sql(found))


class PageTests(testtools.TestCase):
    def refused(self, **fields: object) -> str:
        asked = listing.Listing(**fields)  # type: ignore[arg-type]
        columns = [T.c.id, T.c.name, T.c.environment, T.c.code]
        page = self.assertRaises(
            errors.InvalidRequest,
            listing.page,
            None,
            T,
            columns,
            sa.true(),
            asked,
        )
        return str(page)

    def test_an_unknown_sort_key_is_named(self) -> None:
        self.assertIn("'colour'", self.refused(sort_key="colour"))

    def test_what_callers_do_not_see_is_no_sort_key(self) -> None:
        for key in ("environment", "code", "project_id"):
            self.refused(sort_key=key)

    def test_a_direction_is_asc_or_desc(self) -> None:
        self.assertIn("asc or desc", self.refused(sort_key="name", sort_dir="up"))

    def test_a_limit_has_its_range(self) -> None:
        for limit in (0, -1, listing.MAX_LIMIT + 1):
            self.assertIn(str(listing.MAX_LIMIT), self.refused(sort_key="name", limit=limit))
