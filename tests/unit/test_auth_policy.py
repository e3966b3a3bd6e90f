"""The policy: every rule, every kind of caller."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import fixtures
import testtools
from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from funcplat import conf, errors
from funcplat.api import app
from funcplat.auth import noauth, policy
from funcplat.auth.base import Identity

ADMIN = {
    "runtime:create",
    "runtime:update",
    "runtime:delete",
    "runtime:pool",
    "function:list:all_projects",
    "function:scale_up",
    "function:scale_down",
    "function:detach",
    "function_worker:list",
    "function_version:scale_up",
    "function_version:scale_down",
    "function_version:detach",
    "function_alias:list:all_projects",
    "execution:list:all_projects",
    "dead_letter:list:all_projects",
    "stats:get",
    "job:list:all_projects",
    "webhook:list:all_projects",
}
OWNER = {"function:delete", "function_version:create", "function_version:delete"}
DEFAULT = {
    "runtime:list",
    "runtime:get",
    "function:list",
    "function:get",
    "function:create",
    "function:update",
    "function_version:list",
    "function_version:get",
    "function_alias:list",
    "function_alias:get",
    "function_alias:create",
    "function_alias:update",
    "function_alias:delete",
    "execution:list",
    "execution:create",
    "execution:get",
    "execution:log",
    "execution:delete",
    "execution:cancel",
    "dead_letter:list",
    "dead_letter:redrive",
    "dead_letter:purge",
    "job:list",
    "job:get",
    "job:create",
    "job:update",
    "job:delete",
    "webhook:list",
    "webhook:get",
    "webhook:create",
    "webhook:update",
    "webhook:rotate",
    "webhook:delete",
}

MEMBER = Identity("mine", "alice", frozenset(["member"]))
ROLELESS = Identity("mine", "bob", frozenset())
BOSS = Identity("theirs", "carol", frozenset(["member", "admin"]))


class Case(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.log = self.useFixture(fixtures.FakeLogger("funcplat"))

    def policy(self, rules: str | None = None) -> policy.Policy:
        path = self.directory / "policy.yaml"
        if rules is not None:
            path.write_text(rules)
        options = cfg.ConfigOpts()
        conf.register_opts(options)
        options([], default_config_files=[], default_config_dirs=[])
        oslo_policy.opts._register(options)
        options.set_override("policy_file", str(path), "oslo_policy")
        return policy.Policy(options)

    def allows(
        self, tested: policy.Policy, rule: str, identity: Identity, project: str | None = None
    ) -> bool:
        try:
            tested.check(rule, identity, project)
        except errors.Forbidden as error:
            self.assertEqual("Operation not allowed", error.message)
            return False
        return True

    def change(self, tested: policy.Policy, rules: str) -> None:
        """Write the file as later than before, and let a second pass."""
        path = self.directory / "policy.yaml"
        later = path.stat().st_mtime + 2 if path.exists() else 1_000_000.0
        path.write_text(rules)
        os.utime(path, (later, later))
        tested._looked_at = float("-inf")


class MatrixTests(Case):
    def test_every_rule_is_in_the_matrix(self) -> None:
        named = {rule.name for rule in policy.list_rules()}
        self.assertEqual({"admin", "owner", "default"} | ADMIN | OWNER | DEFAULT, named)

    def test_every_rule_answers_every_caller_as_it_should(self) -> None:
        tested = self.policy()
        for rules, expected in (
            # own resource: member, no role, admin; foreign resource: member, admin
            (ADMIN, [False, False, True, False, True]),
            (OWNER, [True, True, True, False, False]),
            (DEFAULT, [True, True, True, False, True]),
        ):
            for rule in sorted(rules):
                for _ in range(2):  # decided, then remembered
                    self.assertEqual(expected, self.answers(tested, rule), rule)

    def answers(self, tested: policy.Policy, rule: str) -> Sequence[bool]:
        return [
            self.allows(tested, rule, MEMBER, "mine"),
            self.allows(tested, rule, ROLELESS, "mine"),
            self.allows(tested, rule, BOSS, "theirs"),
            self.allows(tested, rule, MEMBER, "theirs"),
            self.allows(tested, rule, BOSS, "mine"),
        ]

    def test_without_a_project_the_callers_own_is_meant(self) -> None:
        tested = self.policy()
        for rule in sorted(DEFAULT | OWNER):
            self.assertTrue(self.allows(tested, rule, ROLELESS), rule)

    def test_without_authentication_everything_is_allowed(self) -> None:
        tested = self.policy()
        for rule in sorted(DEFAULT | OWNER | ADMIN):
            self.assertTrue(self.allows(tested, rule, noauth.EVERYBODY), rule)

    def test_an_unknown_rule_is_a_bug_and_never_a_yes(self) -> None:
        self.assertRaises(LookupError, self.policy().check, "function:list:al_projects", BOSS)

    def test_every_rule_of_an_operation_is_documented(self) -> None:
        for rule in policy.list_rules():
            self.assertTrue(rule.description, rule.name)
            if ":" in rule.name:
                self.assertIsInstance(rule, oslo_policy.DocumentedRuleDefault)


class DocumentTests(Case):
    def test_every_rule_is_in_the_operators_page_with_its_default(self) -> None:
        page = (pathlib.Path(__file__).parents[2] / "docs" / "operator" / "auth.rst").read_text()
        for rule in policy.list_rules():
            default = {"rule:admin": "``admin``", "rule:owner": "``owner``", "rule:default": "``default``"}
            self.assertRegex(page, f"(?m)^``{rule.name}`` +{default.get(rule.check_str, '')}")

    def test_every_operation_is_one_of_the_api(self) -> None:
        paths = {route.path for route in app.ROUTES}
        for rule in policy.list_rules():
            for operation in getattr(rule, "operations", []):
                self.assertIn(operation["path"].partition("?")[0], paths)


class FileTests(Case):
    def test_a_file_overrides_a_default(self) -> None:
        tested = self.policy('"runtime:pool": "rule:default"\n"function:create": "role:member"\n')
        self.assertTrue(self.allows(tested, "runtime:pool", MEMBER))
        self.assertFalse(self.allows(tested, "function:create", ROLELESS))
        self.assertTrue(self.allows(tested, "function:create", MEMBER))

    def test_a_changed_file_counts_a_second_later(self) -> None:
        tested = self.policy('"runtime:pool": "!"\n')
        self.assertFalse(self.allows(tested, "runtime:pool", BOSS))
        self.change(tested, '"runtime:pool": "@"\n')
        self.assertTrue(self.allows(tested, "runtime:pool", ROLELESS))

    def test_a_file_that_appears_later_counts(self) -> None:
        tested = self.policy()
        self.assertFalse(self.allows(tested, "runtime:pool", MEMBER))
        self.change(tested, '"runtime:pool": "@"\n')
        self.assertTrue(self.allows(tested, "runtime:pool", MEMBER))

    def test_rules_of_one_user_or_project_are_not_remembered_for_another(self) -> None:
        tested = self.policy('"function:create": "user_id:alice"\n"function:get": "project_id:mine"\n')
        for _ in range(2):
            self.assertTrue(self.allows(tested, "function:create", MEMBER))
            self.assertFalse(self.allows(tested, "function:create", ROLELESS))
            self.assertTrue(self.allows(tested, "function:get", ROLELESS, "theirs"))
            self.assertFalse(self.allows(tested, "function:get", BOSS, "mine"))

    def test_a_broken_file_at_start_is_a_configuration_error(self) -> None:
        for text in ('"runtime:pool": [', "- a list\n"):
            error = self.assertRaises(errors.ConfigError, self.policy, text)
            self.assertIn("policy.yaml", error.message)

    def test_a_file_broken_later_leaves_the_rules_as_they_were(self) -> None:
        tested = self.policy('"runtime:pool": "@"\n"function:create": "!"\n')
        for text in ('"runtime:pool": [', "- a list\n"):
            self.change(tested, text)
            self.assertTrue(self.allows(tested, "runtime:pool", MEMBER))
            self.assertFalse(self.allows(tested, "function:create", MEMBER))
            self.assertTrue(self.allows(tested, "function:get", MEMBER))
        self.assertIn("stay", self.log.output)

    def test_a_removed_file_gives_the_defaults(self) -> None:
        tested = self.policy('"runtime:pool": "@"\n')
        (self.directory / "policy.yaml").unlink()
        tested._looked_at = float("-inf")
        self.assertFalse(self.allows(tested, "runtime:pool", MEMBER))

    def test_within_a_second_nothing_is_read_and_decisions_are_remembered(self) -> None:
        tested = self.policy()
        self.allows(tested, "runtime:list", MEMBER)
        tested._enforcer = None  # type: ignore[assignment]
        self.assertTrue(self.allows(tested, "runtime:list", MEMBER))

    def test_a_look_at_an_unchanged_file_forgets_nothing_until_its_time_has_come(self) -> None:
        tested = self.policy('"runtime:list": "@"\n')
        self.allows(tested, "runtime:list", MEMBER)
        tested._looked_at = float("-inf")
        self.allows(tested, "runtime:get", MEMBER)
        self.assertEqual(2, len(tested._remembered))
        tested._looked_at = tested._forgot_at = float("-inf")
        self.allows(tested, "runtime:get", MEMBER)
        self.assertEqual(1, len(tested._remembered))

    def test_no_more_decisions_are_remembered_than_fit(self) -> None:
        self.useFixture(fixtures.MockPatchObject(policy, "MAX_REMEMBERED", 10))
        self.useFixture(fixtures.MockPatchObject(policy, "LOOK_INTERVAL", float("inf")))
        tested = self.policy()
        for number in range(20):
            tested.check("runtime:list", Identity(f"project-{number}", "u", frozenset()))
        self.assertEqual(10, len(tested._remembered))
