"""The command line against a running server.

FUNCPLAT_TEST_ENDPOINT (and FUNCPLAT_TEST_TOKEN) name the server; without them it is a small one of the
tests' own.  FUNCPLAT_TEST_IMAGE is the image of its Python runtime, ``python3`` where it is not set.
"""

import io
import os
import pathlib
import uuid
import zipfile

import fixtures
import testtools

from funcplat.auth import tokenfile
from tests import cli_server

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "functions"


class CommandLineTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.home = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        endpoint = os.environ.get("FUNCPLAT_TEST_ENDPOINT") or self.useFixture(cli_server.Server()).endpoint
        token = os.environ.get("FUNCPLAT_TEST_TOKEN")
        self.cli = self.useFixture(
            cli_server.CommandLine(endpoint, "--quiet", *(["--token", token] if token else []))
        )
        image = os.environ.get("FUNCPLAT_TEST_IMAGE", "python3")
        # Tests run at once against one server: names must not meet.
        self.runtime = self.unique("runtime")
        self.succeed("runtime", "create", image, "--name", self.runtime)
        self.addCleanup(self.cli, "runtime", "delete", self.runtime)

    def unique(self, word):
        return f"{word}-{uuid.uuid4().hex[:8]}"

    def succeed(self, *words, **more):
        result = self.cli(*words, **more)
        self.assertEqual(0, result.code, result.err)
        return result

    def create(self, *code):
        name = self.unique("function")
        self.succeed("function", "create", name, "--runtime", self.runtime, *code)
        self.addCleanup(self.cli, "function", "delete", name)
        return name

    def create_from(self, source):
        path = self.home / "main.py"
        path.write_text(source)
        return self.create("--file", str(path))

    def example(self, name):
        return self.create("--directory", str(EXAMPLES / name))

    def test_hello(self):
        name = self.create("--file", str(EXAMPLES / "hello" / "hello.py"))
        result = self.succeed("invoke", name, "name=Ann")
        self.assertEqual('"Hello, Ann!"\n', result.out)
        self.assertIn("greeting Ann\n", result.err)

    def test_the_other_examples(self):
        orders = f"@{EXAMPLES / 'json_transform' / 'orders.json'}"
        totals = self.succeed("invoke", self.example("json_transform"), "--input", orders).json
        self.assertEqual("Bo", totals["customers"][0]["customer"])
        slug = self.succeed("invoke", self.example("vendored"), "title=Crème brûlée!").json
        self.assertEqual("creme-brulee", slug["slug"])
        waited = self.succeed("invoke", self.example("gather"), "seconds=[0.2, 0.2]").json
        self.assertLess(waited["waited"], waited["in_turn"])

    def test_an_asynchronous_call_is_followed_to_its_end(self):
        name = self.create("--file", str(EXAMPLES / "hello" / "hello.py"))
        result = self.succeed("invoke", name, "--wait", "name=Bo")
        self.assertEqual('"Hello, Bo!"\n', result.out)
        self.assertIn("greeting Bo\n", result.err)

    def test_an_execution_and_its_log_can_be_looked_up_until_it_is_deleted(self):
        name = self.create("--file", str(EXAMPLES / "hello" / "hello.py"))
        created = self.succeed("execution", "create", name, "-f", "json").json
        self.assertEqual("success", created["status"])
        listed = self.succeed("execution", "list", "--function", name, "-f", "value", "-c", "id").out
        self.assertIn(created["id"], listed)
        self.assertIn("greeting World\n", self.succeed("execution", "log", created["id"]).out)
        self.assertIn("greeting World\n", self.succeed("execution", "log", "-f", created["id"]).out)
        self.succeed("execution", "delete", created["id"])
        self.assertEqual(4, self.cli("execution", "show", created["id"]).code)

    def test_a_failing_function_exits_with_1(self):
        name = self.create_from("def main():\n    raise ValueError('too bad')\n")
        result = self.cli("invoke", name)
        self.assertEqual((1, ""), (result.code, result.out))
        self.assertIn("too bad", result.err)
        self.assertNotIn("funcplat/cmd", result.err)

    def test_an_update_of_the_code_serves_the_next_call(self):
        name = self.create_from("def main():\n    return 1\n")
        self.assertEqual("1\n", self.succeed("invoke", name).out)
        path = self.home / "main.py"
        path.write_text("def main():\n    return 2\n")
        for _ in range(2):  # the second time nothing changes, and that is no error
            self.succeed("function", "update", name, "--file", str(path))
        self.assertEqual("2\n", self.succeed("invoke", name).out)

    def test_limits_are_kept(self):
        name = self.create_from("main = dict\n")
        self.succeed("function", "update", name, "--memory", "64M", "--cpu", "200", "--timeout", "7")
        shown = self.succeed("function", "show", name, "-f", "json").json
        limits = [shown[key] for key in ("memory_size", "cpu", "timeout")]
        self.assertEqual([64 * 1024**2, 200, 7], limits)

    def test_the_environment_is_set_replaced_and_removed(self):
        path = self.home / "main.py"
        path.write_text("import os\ndef main():\n    return [os.environ.get(name) for name in 'AB']\n")
        name = self.create("--file", str(path), "--env", "A=1", "--env", "B=x=y")
        self.assertEqual(["1", "x=y"], self.succeed("invoke", name).json)
        self.succeed("function", "update", name, "--env", "A=2")
        self.assertEqual(["2", None], self.succeed("invoke", name).json)
        self.succeed("function", "update", name, "--no-env")
        self.assertEqual([None, None], self.succeed("invoke", name).json)

    def test_a_log_is_followed_while_it_grows(self):
        name = self.create_from(
            "import time\ndef main():\n    for n in range(3):\n        print('line', n, flush=True)\n"
            "        time.sleep(0.2)\n"
        )
        execution_id = self.succeed("invoke", name, "--async").out.strip()
        log = self.succeed("execution", "log", "-f", execution_id).out
        self.assertIn("line 0\nline 1\nline 2\n", log)

    def test_a_download_is_what_was_uploaded(self):
        name = self.example("hello")
        target = self.home / "back.zip"
        self.succeed("function", "download", name, "-o", str(target))
        self.assertIn("hello.py", zipfile.ZipFile(io.BytesIO(target.read_bytes())).namelist())

    def test_lists_show_what_was_made(self):
        name = self.create_from("main = dict\n")
        self.assertIn(name, self.succeed("function", "list").out)
        names = [runtime["name"] for runtime in self.succeed("runtime", "list", "-f", "json").json]
        self.assertIn(self.runtime, names)

    def test_workers_are_started_and_detached(self):
        name = self.create_from("main = dict\n")
        self.succeed("function", "scale-up", name)
        self.succeed("function", "scale-down", name)
        self.succeed("worker", "list", name)
        self.succeed("function", "detach", name)

    def test_what_does_not_exist_exits_with_4(self):
        for words in (["function", "show", "no-such"], ["execution", "show", str(uuid.uuid4())]):
            self.assertEqual(4, self.cli(*words).code)

    def test_status(self):
        self.assertEqual("ok", self.succeed("status", "-f", "json").json["ready"])

    def test_the_table_and_the_formats_agree(self):
        name = self.create_from("main = dict\n")
        shown = self.succeed("function", "show", name, "-f", "json").json
        self.assertIn(shown["id"], self.succeed("function", "show", name).out)
        value = self.succeed("function", "show", name, "-f", "value", "-c", "id").out
        self.assertEqual(shown["id"], value.strip())


class ServerCommandTests(testtools.TestCase):
    """Commands of those who run a server: they need none that runs."""

    def setUp(self):
        super().setUp()
        self.state = self.useFixture(fixtures.TempDir()).join("state")
        self.cli = self.useFixture(cli_server.CommandLine("http://127.0.0.1:9"))
        for name in list(os.environ):
            if name.startswith("OS_"):
                self.useFixture(fixtures.EnvironmentVariable(name))

    def run_on_state(self, *words):
        return self.cli(*words, "--state-dir", self.state)

    def test_the_database_is_checked_upgraded_and_checked(self):
        before = self.run_on_state("db", "check")
        self.assertEqual(78, before.code)
        self.assertIn("run: funcplat db upgrade (schema_error)", before.err)
        self.assertEqual(0, self.run_on_state("db", "upgrade").code)
        self.assertEqual(0, self.run_on_state("db", "check").code)

    def test_drivers_are_listed_with_what_they_can_do(self):
        result = self.run_on_state("drivers", "list", "-f", "json")
        drivers = {(driver["kind"], driver["name"]): driver for driver in result.json}
        self.assertIn("packages", drivers["storage", "local"]["capabilities"])
        self.assertTrue(drivers["orchestrator", "process"]["enabled"])

    def test_features_are_listed_one_a_row(self):
        result = self.run_on_state("drivers", "list", "--features", "-f", "json")
        features = {(row["name"], row["feature"]): row for row in result.json}
        self.assertIn(features["process", "memory"]["isolation"], ("enforced", "partial", "none"))

    def test_a_configuration_that_cannot_work_exits_with_78_and_one_line(self):
        path = self.useFixture(fixtures.TempDir()).join("funcplat.conf")
        pathlib.Path(path).write_text("[orchestrator]\ndefault = no_such\n")
        for command in (["serve"], ["db", "check"], ["drivers", "list"]):
            result = self.cli(*command, "--config-file", path)
            self.assertEqual(78, result.code)
            self.assertIn("no_such", result.err)
            self.assertEqual(1, result.err.count("\n"))

    def test_a_missing_configuration_file_exits_with_78(self):
        self.assertEqual(78, self.cli("serve", "--config-file", "/nowhere/funcplat.conf").code)

    def test_a_port_that_is_none_is_a_usage_error(self):
        self.assertEqual(2, self.run_on_state("serve", "--port", "99999").code)

    def test_a_token_is_printed_once_and_its_hash_is_kept(self):
        words = ["token", "create", "--project", "p", "--user", "ann"]
        first = self.run_on_state(*words, "--role", "admin", "--days", "30")
        second = self.run_on_state(*words)
        self.assertEqual((0, 0), (first.code, second.code), first.err)
        path = pathlib.Path(self.state, "tokens.toml")
        grants = tokenfile.parse(path.read_text(), path)
        admin = grants[tokenfile.hash_token(first.out.strip())]
        self.assertEqual(
            ("p", "ann", {"admin"}),
            (admin.identity.project_id, admin.identity.user_id, set(admin.identity.roles)),
        )
        self.assertIsNotNone(admin.expires_at)
        self.assertIsNone(grants[tokenfile.hash_token(second.out.strip())].expires_at)
        self.assertNotIn(first.out.strip(), path.read_text())

    def test_a_token_goes_where_the_configuration_says(self):
        home = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (home / "funcplat.conf").write_text(f"[auth_tokens]\nfile = {home}/mine.toml\n")
        words = ["--project", "p", "--user", "u", "--config-file", str(home / "funcplat.conf")]
        self.assertEqual(0, self.cli("token", "create", *words).code)
        self.assertTrue((home / "mine.toml").exists())

    def test_a_name_that_no_token_may_have_is_a_usage_error(self):
        result = self.run_on_state("token", "create", "--project", "p\n", "--user", "u")
        self.assertEqual(2, result.code)
        self.assertIn("project must be", result.err)
