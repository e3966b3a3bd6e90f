"""``funcplat version`` and ``funcplat alias``, and calls of either, against a server that records."""

from tests import cli_server
from tests.unit.test_cmd_commands import CommandCase

fault = cli_server.fault


class VersionTests(CommandCase):
    def setUp(self):
        super().setUp()
        self.key = self.server.add_function("hi")
        self.path = f"/v1/functions/{self.key}/versions"

    def test_create_sends_the_description_and_shows_the_number(self):
        made = self.succeed("version", "create", "hi", "--description", "first", "-f", "json").json
        self.assertEqual((1, "first"), (made["version_number"], made["description"]))
        self.assertEqual(("POST", self.path), (self.last.method, self.last.path))
        self.assertEqual({"description": "first"}, self.last.json)

    def test_create_without_a_description_still_sends_a_body(self):
        self.succeed("version", "create", self.key)
        self.assertEqual({"description": None}, self.last.json)

    def test_a_package_that_did_not_change_is_a_conflict(self):
        for code in ("version_unchanged", "too_many_versions"):
            self.server.prepare("POST", self.path, fault(403, code, "No."))
            self.assertIn(f"No. ({code}", self.fail(7, "version", "create", "hi"))
        self.server.prepare("POST", self.path, fault(403, "forbidden", "No."))
        self.fail(5, "version", "create", "hi")

    def test_list_and_show(self):
        for _ in range(2):
            self.succeed("version", "create", "hi")
        listed = self.succeed("version", "list", "hi", "-f", "value", "-c", "version_number").out
        self.assertEqual("1\n2\n", listed)
        self.succeed("version", "list", "hi", "--limit", "1", "--marker", "m", "--long")
        self.assertEqual({"limit": "1", "marker": "m"}, self.last.query)
        self.assertEqual(2, self.succeed("version", "show", "hi", "2", "-f", "json").json["version_number"])
        self.fail(4, "version", "show", "hi", "3")
        self.assertIn("number of a version", self.fail(2, "version", "show", "hi", "abc"))

    def test_delete_takes_several_and_goes_on(self):
        for _ in range(3):
            self.succeed("version", "create", "hi")
        self.server.prepare("DELETE", f"{self.path}/1", fault(403, "in_use", "An alias leads to it."))
        err = self.fail(7, "version", "delete", "hi", "1", "2")
        self.assertIn("1: An alias leads to it.", err)
        self.assertIn("version 2 of hi is deleted", err)
        self.assertEqual([1, 3], [each["version_number"] for each in self.server.versions[self.key]])

    def test_download(self):
        self.succeed("version", "create", "hi")
        target = self.home / "out.zip"
        self.succeed("version", "download", "hi", "1", "-o", str(target))
        self.assertEqual(self.server.packages[self.key], target.read_bytes())
        self.assertEqual((f"{self.path}/1", {"download": "true"}), (self.last.path, self.last.query))
        self.assertEqual([target], list(self.home.iterdir()))

    def test_workers_of_a_version(self):
        self.succeed("version", "scale-up", "hi", "2", "--count", "3")
        self.assertEqual((f"{self.path}/2/scale_up", {"count": 3}), (self.last.path, self.last.json))
        self.succeed("version", "scale-down", "hi", "2")
        self.assertEqual((f"{self.path}/2/scale_down", {"count": 1}), (self.last.path, self.last.json))
        err = self.succeed("version", "detach", "hi", "2").err
        self.assertEqual((f"{self.path}/2/detach", b""), (self.last.path, self.last.body))
        self.assertIn("version 2 of hi", err)
        self.succeed("worker", "list", "hi", "--version", "2")
        self.assertEqual({"function_version": "2"}, self.last.query)
        self.succeed("worker", "list", "hi")
        self.assertEqual({}, self.last.query)


class AliasTests(CommandCase):
    def setUp(self):
        super().setUp()
        self.key = self.server.add_function("hi")

    def test_create_sends_what_is_given(self):
        self.succeed("alias", "create", "prod", "--function", "hi")
        self.assertEqual({"name": "prod", "function_id": self.key}, self.last.json)
        self.succeed(
            "alias", "create", "prod", "--function", self.key, "--version", "3", "--description", "d"
        )
        self.assertEqual(
            {"name": "prod", "function_id": self.key, "function_version": 3, "description": "d"},
            self.last.json,
        )

    def test_routes(self):
        routes = [{"function_version": 1, "weight": 95}, {"function_version": 0, "weight": 5}]
        made = self.succeed(
            "alias",
            *("create", "prod", "--function", "hi", "--route", "1=95", "--route", "0=5", "-f", "json"),
        ).json
        self.assertEqual(routes, self.last.json["routes"])
        self.assertEqual(routes, made["routes"])
        for wrong in ("1", "1=", "=1", "x=1", "1=0", "1=x", "-1=1"):
            self.fail(2, "alias", "update", "prod", f"--route={wrong}")

    def test_a_function_must_be_named(self):
        self.assertIn("--function", self.fail(2, "alias", "create", "prod"))

    def test_update_sends_what_is_given(self):
        self.succeed("alias", "create", "prod", "--function", "hi")
        for words, body in (
            (["--version", "2"], {"function_version": 2}),
            (["--function", "hi"], {"function_id": self.key}),
            (["--no-routes"], {"routes": []}),
            (["--route", "1=2"], {"routes": [{"function_version": 1, "weight": 2}]}),
            (["--description", ""], {"description": ""}),
        ):
            self.succeed("alias", "update", "prod", *words)
            self.assertEqual(
                ("PUT", "/v1/aliases/prod", body), (self.last.method, self.last.path, self.last.json)
            )
        self.assertIn("nothing to change", self.fail(2, "alias", "update", "prod"))

    def test_names_are_quoted(self):
        self.succeed("alias", "create", "a b/ü?", "--function", "hi")
        self.assertEqual("a b/ü?", self.succeed("alias", "show", "a b/ü?", "-f", "json").json["name"])
        self.assertEqual("/v1/aliases/a%20b%2F%C3%BC%3F", self.last.path)

    def test_list_sends_its_options(self):
        self.succeed("alias", "create", "prod", "--function", "hi")
        self.assertEqual("prod\n", self.succeed("alias", "list", "-f", "value", "-c", "name").out)
        self.assertEqual({}, self.last.query)
        self.succeed("alias", "list", "--function", "hi", "--all-projects", "--long")
        self.assertEqual({"function_id": self.key, "all_projects": "true"}, self.last.query)

    def test_delete_goes_on_after_a_failure(self):
        self.succeed("alias", "create", "prod", "--function", "hi")
        self.assertIn("alias prod is deleted", self.fail(4, "alias", "delete", "nobody", "prod"))
        self.assertEqual({}, self.server.aliases)


class CallTests(CommandCase):
    def setUp(self):
        super().setUp()
        self.key = self.server.add_function("hi", "def main(n=0, m=0):\n    return [n, m]\n")
        self.succeed("alias", "create", "prod", "--function", "hi")

    @property
    def created(self):
        return [request for request in self.server.requests if request.path == "/v1/executions"][-1].json

    def test_a_version_is_called(self):
        for command in (("invoke",), ("execution", "create")):
            self.succeed(*command, "hi", "--version", "2", "n=3")
            self.assertEqual(
                {"function_id": self.key, "function_version": 2, "sync": True, "input": '{"n": 3}'},
                self.created,
            )

    def test_version_0_is_said(self):
        self.succeed("invoke", "hi", "--version", "0")
        self.assertEqual(0, self.created["function_version"])

    def test_an_alias_is_called_without_a_function(self):
        for words in (
            ("--alias", "prod", "n=3", "m=4"),
            ("n=3", "m=4", "--alias=prod"),
            ("n=3", "--alias", "prod", "m=4"),
        ):
            result = self.succeed("invoke", *words)
            self.assertEqual([3, 4], result.json)
            self.assertEqual(
                {"function_alias": "prod", "sync": True, "input": '{"n": 3, "m": 4}'}, self.created
            )
        self.succeed("execution", "create", "--alias", "prod", "--description", "d")
        self.assertEqual({"function_alias": "prod", "sync": True, "description": "d"}, self.created)

    def test_an_alias_is_called_in_the_background(self):
        self.succeed("invoke", "--alias", "prod", "--wait")
        self.assertEqual({"function_alias": "prod", "sync": False}, self.created)
        self.succeed("invoke", "--alias", "prod", "--async")
        self.assertEqual({"function_alias": "prod", "sync": False}, self.created)

    def test_what_is_to_be_called_must_be_said_once(self):
        self.assertIn("name a function", self.fail(2, "invoke"))
        self.assertIn("no function to name", self.fail(2, "invoke", "hi", "--alias", "prod"))
        self.assertIn("not allowed", self.fail(2, "invoke", "--alias", "prod", "--version", "1"))
        self.fail(2, "invoke", "hi", "--version", "x")
        self.fail(2, "invoke", "hi", "--version")

    def test_an_unknown_alias_is_not_found(self):
        self.fail(4, "invoke", "--alias", "nobody")


class ProgramVersionTests(CommandCase):
    def test_alone_it_is_that_of_the_program(self):
        for words in (("--version",), ("--debug", "--version"), ("--version", "--quiet")):
            self.assertRegex(self.succeed(*words).out, r"^funcplat \d")

    def test_help_names_it(self):
        self.assertIn("--version", self.succeed("--help").out)
