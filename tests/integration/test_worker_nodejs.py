"""What the Node.js worker is for functions in JavaScript, beside what its contract says."""

from __future__ import annotations

import json
import os

from funcplat.testing import workerclient
from funcplat.testing.worker_failures import ENDED
from tests.integration import nodejs_harness

HELLO = "exports.main = (context, input) => ({ hello: input?.name ?? 'World' });"
SLEEP = "const sleep = (ms) => new Promise((done) => setTimeout(done, ms));\n"


class FunctionTest(nodejs_harness.NodeWorker):
    def test_a_function_is_called_with_context_and_input(self) -> None:
        labels = {"function_id": "f-1", "function_version": 0}
        client = self.run_module("exports.main = (context, input) => [context, input];", labels=labels)
        execution = client.invoke({"name": "Qinling"}, execution="e-7")
        context = {"executionId": "e-7", "functionId": "f-1", "functionVersion": 0}
        self.assertEqual(("success", [context, {"name": "Qinling"}]), (execution.status, execution.output))

    def test_no_input_is_null(self) -> None:
        self.assertIs(
            True, self.run_module("exports.main = (context, input) => input === null;").invoke().output
        )

    def test_an_input_that_is_no_object_comes_as_the_platform_wraps_it(self) -> None:
        client = self.run_module("exports.main = (context, input) => input.__function_input;")
        self.assertEqual("ab", client.invoke({"__function_input": "ab"}).output)

    def test_a_promise_is_awaited(self) -> None:
        client = self.run_module(
            SLEEP + "exports.main = async (context, { n }) => { await sleep(n); return n; };"
        )
        self.assertEqual(20, client.invoke({"n": 20}).output)

    def test_nothing_returned_is_null(self) -> None:
        execution = self.run_module("exports.main = () => {};").invoke()
        self.assertEqual(("success", None), (execution.status, execution.output))

    def test_an_entry_may_be_deep_in_a_package(self) -> None:
        files = {"a/b.js": "exports.run = () => 'a/b';", "c/index.js": "exports.run = () => 'c';"}
        for entry, output in (("a.b.run", "a/b"), ("a/b.run", "a/b"), ("c.run", "c")):
            self.assertEqual(output, self.run_files(files, entry=entry).invoke().output)

    def test_modules_of_both_kinds_are_imported(self) -> None:
        esm = "import os from 'node:os'; import { n } from './n.mjs'; await null;\n"
        five = {"n.mjs": "export const n = 5;"}
        for files, entry in (
            ({"m.mjs": esm + "export const main = () => n;", **five}, "m.main"),
            ({"m.mjs": esm + "export default { main: () => n };", **five}, "m.main"),
            ({"m.mjs": esm + "export default () => n;", **five}, "m.default"),
            ({"t/package.json": '{"type": "module"}', "t/k.js": "export const main = () => 5;"}, "t.k.main"),
            ({"t/c.cjs": "exports.main = () => 5;"}, "t.c.main"),
            (
                {"d.js": "module.exports = { main: () => require('./e').five };", "e.js": "exports.five=5"},
                "d.main",
            ),
        ):
            execution = self.run_files(files, entry=entry).invoke()
            self.assertEqual((5, b""), (execution.output, execution.log), files)

    def test_dependencies_come_from_the_package(self) -> None:
        files = {
            "index.js": "exports.main = () => require('dep').x;",
            "node_modules/dep/package.json": '{"main": "lib.js"}',
            "node_modules/dep/lib.js": "exports.x = 'dependency';",
        }
        self.assertEqual("dependency", self.run_files(files, entry="index.main").invoke().output)

    def test_the_environment_is_the_functions_own(self) -> None:
        for name in ("NAME", "NODE_ENV"):  # the second is there when Node.js starts
            client = self.run_module("exports.main = () => process.env;", environment={name: "value"})
            environment = client.invoke().output
            self.assertEqual("value", environment[name])
            self.assertEqual({"PATH", "HOME", "LANG", "TMPDIR", "FUNCPLAT_HANDLER", name}, set(environment))

    def test_options_of_node_in_the_environment_have_effect(self) -> None:
        text = "exports.main = () => [process.noDeprecation, process.env.NODE_OPTIONS];"
        client = self.run_module(text, environment={"NODE_OPTIONS": "--no-deprecation"})
        self.assertEqual([True, "--no-deprecation"], client.invoke().output)

    def test_the_heap_is_bounded_by_the_memory_that_the_worker_is_told(self) -> None:
        self.options = (f"--memory={100 * 2**20}",)
        client = self.run_module("exports.main = () => require('v8').getHeapStatistics().heap_size_limit;")
        self.assertTrue(client.invoke().output < 100 * 2**20)

    def test_the_platform_cannot_be_seen(self) -> None:
        client = self.run_module(
            "exports.main = () => [Object.keys(require.cache), require.main ?? null, process.argv.slice(1)];"
        )
        main = f"{self.path}/main.js"
        self.assertEqual([[main], None, [main]], client.invoke().output)

    def test_no_descriptor_of_the_supervisor_is_open(self) -> None:
        client = self.run_module(
            """
            const fs = require("fs");
            exports.main = () => fs.readdirSync("/proc/self/fd").map((fd) => {
              try { return fs.readlinkSync("/proc/self/fd/" + fd); } catch { return ""; }
            });
            """
        )
        mine = {f"socket:[{os.fstat(client.socket.fileno()).st_ino}]"}
        opened = client.invoke().output
        self.assertEqual(4 - 1, len({name for name in opened if name.startswith(("socket", "/dev/null"))}))
        self.assertFalse(mine & set(opened))


class FailureTest(nodejs_harness.NodeWorker):
    def test_an_error_is_the_result_and_its_stack_is_in_the_log(self) -> None:
        for text in (
            "const f = () => { throw new TypeError('bad thing'); };\nexports.main = () => f();",
            "exports.main = async () => { await null; throw new TypeError('bad thing'); };",
        ):
            client = self.run_module(text)
            execution = client.invoke()
            self.assert_failed(execution, "function_raised", "bad thing")
            self.assertIn("TypeError: bad thing", execution.message)
            log = execution.log.decode()
            self.assertTrue(log.startswith("TypeError: bad thing\n    at "), log)
            self.assertIn(f"{self.path}/main.js:", log)
            self.assertNotIn("runtimes/nodejs", log)
            self.assertNotIn("node:internal", log)
            pid = self.handlers()
            self.assert_failed(client.invoke(), "function_raised")
            self.assertEqual(pid, self.handlers())

    def test_what_is_thrown_need_not_be_an_error(self) -> None:
        client = self.run_module("exports.main = (context, { what }) => { throw what; };")
        for what, output in (("text", "text"), (5, "5"), (None, "null"), ({"a": 1}, "{ a: 1 }")):
            self.assert_failed(client.invoke({"what": what}), "function_raised", output)

    def test_an_error_without_message_is_named(self) -> None:
        client = self.run_module("exports.main = () => { throw new RangeError(); };")
        self.assert_failed(client.invoke(), "function_raised", "RangeError")

    def test_an_uncaught_error_of_a_callback_fails_the_execution(self) -> None:
        client = self.run_module(
            "exports.main = () => new Promise(() => setTimeout(() => { throw new Error('late'); }, 5));"
        )
        execution = client.invoke()
        self.assert_failed(execution, "function_raised", "late")
        self.assertIn(b"Error: late\n    at ", execution.log)
        self.assert_failed(client.invoke(), "function_raised", "late")

    def test_an_unhandled_rejection_fails_the_execution(self) -> None:
        client = self.run_module(
            SLEEP + "exports.main = async () => { Promise.reject(new Error('lost')); await sleep(9000); };"
        )
        self.assert_failed(client.invoke(), "function_raised", "lost")

    def test_a_promise_that_is_never_settled_fails_at_once(self) -> None:
        client = self.run_module(
            "let n = 0; exports.main = (c, { hang }) => hang ? new Promise(() => {}) : ++n;"
        )
        self.assertEqual(1, client.invoke({"hang": False}).output)
        execution = client.invoke({"hang": True})
        self.assert_failed(execution, "function_raised")
        self.assertIn("never settled", execution.output)
        self.assertEqual(2, client.invoke({"hang": False}).output)

    def test_an_import_that_is_never_settled_fails_at_once(self) -> None:
        files = {"main.mjs": "await new Promise(() => {}); export const main = 1;"}
        execution = self.run_files(files).invoke()
        self.assert_failed(execution, "import_failed")
        self.assertIn("never settled", execution.output)

    def test_a_missing_module_is_named_with_what_the_package_holds(self) -> None:
        for entry in ("missing.main", "../main.main", "/main.main", "a..b.main"):
            execution = self.run_module(HELLO, entry=entry).invoke()
            self.assert_failed(execution, "entry_not_found")
            self.assertIn("no module '", execution.message)

    def test_a_module_that_misses_a_dependency_failed_to_be_imported(self) -> None:
        for name, text in (("main.js", "require('missing')"), ("main.mjs", "import 'missing';")):
            execution = self.run_files({name: text}).invoke()
            self.assert_failed(execution, "import_failed")
            self.assertIn(
                "Cannot find package 'missing'" if ".mjs" in name else "Cannot find module 'missing'",
                execution.output,
            )

    def test_a_syntax_error_is_an_import_that_failed_and_tells_the_place(self) -> None:
        execution = self.run_module("exports.main = (] => 1;").invoke()
        self.assert_failed(execution, "import_failed")
        self.assertIn(b"main.js:1\nexports.main = (] => 1;", execution.log)

    def test_results_that_are_not_json_say_why(self) -> None:
        client = self.run_module(
            """
            const loop = [];
            loop.push(loop);
            const odd = { toJSON() { throw new Error("odd"); } };
            exports.main = (context, { which }) => [10n, loop, odd, () => 1, Symbol("s")][which];
            """
        )
        for which, complaint in enumerate(
            ("BigInt", "circular", "odd", "it is a function", "it is a symbol")
        ):
            execution = client.invoke({"which": which})
            self.assert_failed(execution, "result_not_json")
            self.assertIn(complaint, execution.message)

    def test_a_heap_that_is_full_is_the_memory_limit(self) -> None:
        self.options = (f"--memory={60 * 2**20}",)
        client = self.run_module("exports.main = () => { for (const a = []; ; ) a.push({ n: a.length }); };")
        execution = client.invoke(timeout=60)
        self.assert_failed(execution, "memory_exceeded", ENDED)
        self.assertIn("heap", execution.message)

    def test_a_heap_that_is_full_is_the_memory_limit_with_a_full_log_too(self) -> None:
        self.options = (f"--memory={60 * 2**20}",)
        text = "exports.main = () => { console.log('x'.repeat(200)); for (const a = []; ; ) a.push([1]); };"
        client = self.run_module(text, max_log=100)
        self.assert_failed(client.invoke(timeout=60), "memory_exceeded")

    def test_a_crash_is_named_by_its_signal(self) -> None:
        client = self.run_module("exports.main = () => { console.log('x'); process.abort(); };")
        execution = client.invoke()
        self.assert_failed(execution, "function_crashed")
        self.assertIn("signal 6 (SIGABRT)", execution.message)
        self.assertTrue(execution.log.startswith(b"x\n"))

    def test_functions_may_run_as_another_user(self) -> None:
        user = self.new_user()
        self.options = (f"--user={user}:{user + 1}",)
        client = self.run_module("exports.main = () => [process.getuid(), process.getgid()];")
        for _ in range(2):
            self.assertEqual([user, user + 1], client.invoke().output)


class LoadTest(nodejs_harness.NodeWorker):
    def assert_refused(self, client: workerclient.WorkerClient, package: bytes, complaint: str) -> None:
        answer = client.load(package)
        self.assertEqual(400, answer.status, complaint)
        self.assertIn(complaint, answer.json()["message"])
        self.assertEqual([], os.listdir(f"{self.directory}/pushed/code"))

    def test_members_that_come_twice_or_lie_are_refused(self) -> None:
        client = self.start()
        good = workerclient.package({"aa": "first", "bb": "second"})
        crc = good.index(b"PK\x01\x02") + 16
        size = good.index(b"PK\x01\x02") + 24
        flags = good.rindex(b"PK\x01\x02") + 9
        utf8 = good[:flags] + b"\x08" + good[flags + 1 :]
        for package, complaint in (
            (good.replace(b"bb", b"aa"), "EEXIST"),
            (utf8.replace(b"bb", b"\xff\xff"), "not UTF-8"),
            (good[:crc] + b"\0\0\0\0" + good[crc + 4 :], "damaged"),
            (good[:size] + b"\x03" + good[size + 1 :], "larger than"),
            (good[:size] + b"\x09" + good[size + 1 :], "damaged"),
            (good[:-5], "not a ZIP file"),
            (good[20:], "not where"),
            (good.replace(b"PK\x01\x02", b"PK\x01\x03"), "damaged"),
            (b"x" * 30_000, "not a ZIP file"),
        ):
            self.assert_refused(client, package, complaint)


class ManifestTest(nodejs_harness.NodeWorker):
    def test_it_depends_on_nothing(self) -> None:
        manifest = json.loads((nodejs_harness.WORKER.parent / "package.json").read_text())
        self.assertEqual(set(), {"dependencies", "devDependencies", "optionalDependencies"} & set(manifest))
