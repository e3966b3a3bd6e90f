"""What the Node.js worker does for well-behaved functions, and how it speaks its protocol."""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import socket
import struct
import time
import zipfile
from typing import Any

from funcplat.testing import workerclient
from funcplat.worker import verdicts
from tests.integration import nodejs_harness, worker_harness

HELLO = "exports.main = (context, input) => ({ hello: input?.name ?? 'World' });"
SLEEP = "const sleep = (ms) => new Promise((done) => setTimeout(done, ms));\n"


class FunctionTest(nodejs_harness.NodeTestCase):
    def test_a_function_is_called_with_context_and_input(self) -> None:
        client = self.loaded("exports.main = (context, input) => [context, input];")
        execution = client.invoke({"name": "Qinling"}, execution="e-7")
        context = {"executionId": "e-7", "functionId": "f-1", "functionVersion": 0}
        self.assertEqual(("success", [context, {"name": "Qinling"}]), (execution.status, execution.output))
        self.assertEqual((None, b"", 0), (execution.reason, execution.log, execution.dropped))
        self.assertTrue(0 <= execution.duration < 5)

    def test_no_input_is_null(self) -> None:
        self.assertIs(True, self.loaded("exports.main = (context, input) => input === null;").invoke().output)

    def test_an_input_that_is_no_object_comes_as_the_platform_wraps_it(self) -> None:
        client = self.loaded("exports.main = (context, input) => input.__function_input;")
        self.assertEqual("ab", client.invoke({"__function_input": "ab"}).output)

    def test_a_promise_is_awaited(self) -> None:
        client = self.loaded(
            SLEEP + "exports.main = async (context, { n }) => { await sleep(n); return n; };"
        )
        self.assertEqual(20, client.invoke({"n": 20}).output)

    def test_nothing_returned_is_null(self) -> None:
        execution = self.loaded("exports.main = () => {};").invoke()
        self.assertEqual(("success", None), (execution.status, execution.output))

    def test_an_entry_may_be_deep_in_a_package(self) -> None:
        files = {"a/b.js": "exports.run = () => 'a/b';", "c/index.js": "exports.run = () => 'c';"}
        for entry, output in (("a.b.run", "a/b"), ("a/b.run", "a/b"), ("c.run", "c")):
            client = self.start()
            self.assertEqual(200, client.load(path=self.write(files), entry=entry).status)
            self.assertEqual(output, client.invoke().output)
            self._stop()
            os.unlink(self.address)

    def test_modules_of_both_kinds_are_imported(self) -> None:
        esm = "import os from 'node:os'; import { n } from './n.mjs'; await null;\n"
        for files, entry in (
            ({"m.mjs": esm + "export const main = () => n;", "n.mjs": "export const n = 5;"}, "m.main"),
            ({"m.mjs": esm + "export default { main: () => n };"}, "m.main"),
            ({"m.mjs": esm + "export default () => n;"}, "m.default"),
            ({"t/package.json": '{"type": "module"}', "t/k.js": "export const main = () => 5;"}, "t.k.main"),
            ({"t/c.cjs": "exports.main = () => 5;"}, "t.c.main"),
            (
                {"d.js": "module.exports = { main: () => require('./e').five };", "e.js": "exports.five=5"},
                "d.main",
            ),
        ):
            client = self.start()
            self.assertEqual(200, client.load(path=self.write(files), entry=entry).status)
            execution = client.invoke()
            self.assertEqual((5, b""), (execution.output, execution.log), files)
            self._stop()
            os.unlink(self.address)

    def test_dependencies_come_from_the_package(self) -> None:
        client = self.start()
        files = {
            "index.js": "exports.main = () => require('dep').x;",
            "node_modules/dep/package.json": '{"main": "lib.js"}',
            "node_modules/dep/lib.js": "exports.x = 'dependency';",
        }
        client.load(path=self.write(files), entry="index.main")
        self.assertEqual("dependency", client.invoke().output)

    def test_module_state_survives_between_executions(self) -> None:
        client = self.loaded("let n = 0; exports.main = () => ++n;")
        self.assertEqual([1, 2, 3], [client.invoke().output for _ in range(3)])

    def test_the_environment_is_the_functions_own(self) -> None:
        for name in ("NAME", "NODE_ENV"):  # the second is there when Node.js starts
            client = self.loaded("exports.main = () => process.env;", environment={name: "value"})
            environment = client.invoke().output
            self.assertEqual("value", environment[name])
            self.assertEqual({"PATH", "HOME", "LANG", "TMPDIR", "FUNCPLAT_HANDLER", name}, set(environment))
            self._stop()
            os.unlink(self.address)

    def test_options_of_node_in_the_environment_have_effect(self) -> None:
        text = "exports.main = () => [process.noDeprecation, process.env.NODE_OPTIONS];"
        client = self.loaded(text, environment={"NODE_OPTIONS": "--no-deprecation"})
        self.assertEqual([True, "--no-deprecation"], client.invoke().output)

    def test_the_heap_is_bounded_by_the_memory_that_the_worker_is_told(self) -> None:
        client = self.start(f"--memory={100 * 2**20}")
        client.load(
            path=self.write(main="exports.main = () => require('v8').getHeapStatistics().heap_size_limit;")
        )
        self.assertTrue(client.invoke().output < 100 * 2**20)

    def test_the_working_directory_is_the_scratch_space(self) -> None:
        self.assertEqual(
            f"{self.directory}/scratch", self.loaded("exports.main = () => process.cwd();").invoke().output
        )

    def test_the_platform_cannot_be_seen(self) -> None:
        client = self.loaded(
            "exports.main = () => [Object.keys(require.cache), require.main ?? null, process.argv.slice(1)];"
        )
        main = f"{self.directory}/package/main.js"
        self.assertEqual([[main], None, [main]], client.invoke().output)

    def test_no_descriptor_of_the_supervisor_is_open(self) -> None:
        client = self.loaded(
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

    def test_concurrent_executions_have_handlers_of_their_own(self) -> None:
        client = self.loaded(
            SLEEP + "exports.main = async () => { await sleep(500); console.log('x'); return process.pid; };"
        )
        others = [client, self.connect(), self.connect()]
        for number, one in enumerate(others):
            one.send_invoke(execution=f"e{number}")
        executions = [one.receive_execution() for one in others]
        self.assertEqual(3, len({execution.output for execution in executions}))
        self.assertEqual([b"x\n"] * 3, [execution.log for execution in executions])

    def test_an_idle_worker_has_one_handler(self) -> None:
        client = self.loaded("exports.main = () => process.pid;")
        self.assertEqual(1, len({client.invoke().output for _ in range(10)}))
        self.assertEqual(1, len(self.handlers()))


class FailureTest(nodejs_harness.NodeTestCase):
    def assert_failed(
        self, execution: worker_harness.Execution, reason: str, output: str | None = None
    ) -> None:
        self.assertEqual(("failed", reason), (execution.status, execution.reason), execution)
        self.assertTrue(execution.message)
        if output is not None:
            self.assertEqual(output, execution.output)

    def test_an_error_is_the_result_and_its_stack_is_in_the_log(self) -> None:
        for text in (
            "const f = () => { throw new TypeError('bad thing'); };\nexports.main = () => f();",
            "exports.main = async () => { await null; throw new TypeError('bad thing'); };",
        ):
            client = self.loaded(text)
            execution = client.invoke()
            self.assert_failed(execution, "function_raised", "bad thing")
            self.assertIn("TypeError: bad thing", execution.message)
            log = execution.log.decode()
            self.assertTrue(log.startswith("TypeError: bad thing\n    at "), log)
            self.assertIn(f"{self.directory}/package/main.js:", log)
            self.assertNotIn("runtimes/nodejs", log)
            self.assertNotIn("node:internal", log)
            pid = self.handlers()
            self.assert_failed(client.invoke(), "function_raised")
            self.assertEqual(pid, self.handlers())
            self._stop()
            os.unlink(self.address)

    def test_what_is_thrown_need_not_be_an_error(self) -> None:
        client = self.loaded("exports.main = (context, { what }) => { throw what; };")
        for what, output in (("text", "text"), (5, "5"), (None, "null"), ({"a": 1}, "{ a: 1 }")):
            self.assert_failed(client.invoke({"what": what}), "function_raised", output)

    def test_an_error_without_message_is_named(self) -> None:
        client = self.loaded("exports.main = () => { throw new RangeError(); };")
        self.assert_failed(client.invoke(), "function_raised", "RangeError")

    def test_an_uncaught_error_of_a_callback_fails_the_execution(self) -> None:
        client = self.loaded(
            "exports.main = () => new Promise(() => setTimeout(() => { throw new Error('late'); }, 5));"
        )
        execution = client.invoke()
        self.assert_failed(execution, "function_raised", "late")
        self.assertIn(b"Error: late\n    at ", execution.log)
        self.assert_failed(client.invoke(), "function_raised", "late")

    def test_an_unhandled_rejection_fails_the_execution(self) -> None:
        client = self.loaded(
            SLEEP + "exports.main = async () => { Promise.reject(new Error('lost')); await sleep(9000); };"
        )
        self.assert_failed(client.invoke(), "function_raised", "lost")

    def test_a_promise_that_is_never_settled_fails_at_once(self) -> None:
        client = self.loaded("let n = 0; exports.main = (c, { hang }) => hang ? new Promise(() => {}) : ++n;")
        self.assertEqual(1, client.invoke({"hang": False}).output)
        execution = client.invoke({"hang": True})
        self.assert_failed(execution, "function_raised")
        self.assertIn("never settled", execution.output)
        self.assertEqual(2, client.invoke({"hang": False}).output)

    def test_an_import_that_is_never_settled_fails_at_once(self) -> None:
        client = self.start()
        files = {"main.mjs": "await new Promise(() => {}); export const main = 1;"}
        client.load(path=self.write(files))
        execution = client.invoke()
        self.assert_failed(execution, "import_failed")
        self.assertIn("never settled", execution.output)

    def test_an_input_that_is_no_object_is_refused(self) -> None:
        client = self.loaded(HELLO)
        for value in ([1], "text", 5):
            self.assert_failed(client.invoke(value), "bad_arguments")

    def test_a_missing_module_is_named_with_what_the_package_holds(self) -> None:
        for entry in ("missing.main", "../main.main", "/main.main", "a..b.main"):
            execution = self.loaded(HELLO, entry=entry).invoke()
            self.assert_failed(execution, "entry_not_found")
            self.assertIn("no module '", execution.message)
            self.assertIn("main.js", execution.message)
            self._stop()
            os.unlink(self.address)

    def test_a_missing_function_is_named_with_what_the_module_has(self) -> None:
        execution = self.loaded(HELLO, entry="main.missing").invoke()
        self.assert_failed(execution, "entry_not_found")
        self.assertIn("no function named 'missing'; it has main", execution.message)

    def test_a_module_that_misses_a_dependency_failed_to_be_imported(self) -> None:
        for name, text in (("main.js", "require('missing')"), ("main.mjs", "import 'missing';")):
            client = self.start()
            path = pathlib.Path(self.write({name: text}))
            client.load(path=str(path))
            execution = client.invoke()
            self.assert_failed(execution, "import_failed")
            self.assertIn(
                "Cannot find package 'missing'" if ".mjs" in name else "Cannot find module 'missing'",
                execution.output,
            )
            (path / name).unlink()
            self._stop()
            os.unlink(self.address)

    def test_an_import_that_throws_is_tried_again_by_a_later_call(self) -> None:
        client = self.loaded(
            """
            const fs = require("fs");
            console.log("importing");
            fs.mkdirSync("once");
            if (!fs.existsSync("flag")) throw new Error("no flag");
            exports.main = () => "at last";
            """
        )
        execution = client.invoke()
        self.assert_failed(execution, "import_failed", "no flag")
        self.assertTrue(execution.log.startswith(b"importing\nError: no flag\n"), execution.log)
        pathlib.Path(self.directory, "scratch", "once").rmdir()
        pathlib.Path(self.directory, "scratch", "flag").touch()
        self.assertEqual("at last", client.invoke().output)

    def test_a_syntax_error_is_an_import_that_failed_and_tells_the_place(self) -> None:
        execution = self.loaded("exports.main = (] => 1;").invoke()
        self.assert_failed(execution, "import_failed")
        self.assertIn(b"main.js:1\nexports.main = (] => 1;", execution.log)

    def test_an_import_that_takes_too_long_is_killed(self) -> None:
        client = self.loaded("console.log('zzz'); for (;;);", import_timeout=0.5)
        execution = client.invoke(timeout=0.05)
        self.assert_failed(execution, "import_timeout")
        self.assertEqual(b"zzz\n", execution.log)

    def test_the_timeout_counts_from_the_call_of_the_function(self) -> None:
        client = self.loaded(
            "const end = Date.now() + 600; while (Date.now() < end);\nexports.main = () => 1;"
        )
        self.assertEqual(1, client.invoke(timeout=0.4).output)

    def test_what_the_import_prints_belongs_to_the_first_execution(self) -> None:
        client = self.loaded("console.log('import'); exports.main = () => console.log('call');")
        self.assertEqual([b"import\ncall\n", b"call\n"], [client.invoke().log for _ in range(2)])

    def test_a_timeout_kills_the_execution_and_keeps_its_log(self) -> None:
        client = self.loaded(
            SLEEP
            + """
            exports.main = async (context, { n, spin }) => {
              console.log("before");
              while (spin);
              await sleep(n);
              return n;
            };
            """
        )
        for spin in (False, True):
            execution = client.invoke({"n": 60000, "spin": spin}, timeout=0.3)
            self.assert_failed(execution, "timeout", "Function execution timeout.")
            self.assertEqual(b"before\n", execution.log)
            self.assertTrue(0.3 <= execution.duration < 5)
        self.assertEqual(0, client.invoke({"n": 0}).output)

    def test_a_timeout_longer_than_any_timer_is_no_hurry(self) -> None:
        client = self.loaded(SLEEP + "exports.main = async () => { await sleep(50); return 1; };")
        self.assertEqual(1, client.invoke(timeout=999999999).output)

    def test_results_that_are_not_json_say_why(self) -> None:
        client = self.loaded(
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

    def test_a_result_over_the_cap_says_both_sizes(self) -> None:
        client = self.loaded("exports.main = (context, { n }) => '\\u20ac'.repeat(n);", max_result=1001)
        self.assertEqual("success", client.invoke({"n": 333}).status)
        execution = client.invoke({"n": 334})
        self.assert_failed(execution, "result_too_large")
        self.assertIn("1004", execution.message)
        self.assertIn("1001", execution.message)

    def test_large_inputs_and_results_pass(self) -> None:
        client = self.loaded("exports.main = (context, { text }) => text;", max_result=20_000_000)
        text = "x" * 10_000_000
        self.assertEqual(text, client.invoke({"text": text}).output)

    def test_any_character_passes(self) -> None:
        client = self.loaded("exports.main = (context, { text }) => text;")
        text = "h\u00e9 \u2028 \U0001f600 \ud800 \x00"
        self.assertEqual(text, client.invoke({"text": text}).output)

    def test_a_heap_that_is_full_is_the_memory_limit(self) -> None:
        client = self.start(f"--memory={60 * 2**20}")
        client.load(
            path=self.write(main="exports.main = () => { const a = []; for (;;) a.push({ n: a.length }); };")
        )
        execution = client.invoke(timeout=60)
        self.assert_failed(execution, "memory_exceeded", verdicts.RESOURCES_TEXT)
        self.assertIn("heap", execution.message)

    def test_a_heap_that_is_full_is_the_memory_limit_with_a_full_log_too(self) -> None:
        client = self.start(f"--memory={60 * 2**20}")
        text = "exports.main = () => { console.log('x'.repeat(200)); for (const a = []; ; ) a.push([1]); };"
        client.load(path=self.write(main=text), max_log=100)
        self.assert_failed(client.invoke(timeout=60), "memory_exceeded")

    def test_a_full_disk_is_named(self) -> None:
        client = self.loaded("exports.main = () => require('fs').writeFileSync('/dev/full', 'x');")
        self.assert_failed(client.invoke(), "disk_full", "ENOSPC: no space left on device, write")

    def test_exit_ends_the_process_with_its_code(self) -> None:
        client = self.loaded(
            "exports.main = (context, { code }) => { process.stdout.write('bye'); process.exit(code); };"
        )
        execution = client.invoke({"code": 3})
        self.assert_failed(execution, "function_exited", verdicts.RESOURCES_TEXT)
        self.assertIn("exit code 3", execution.message)
        self.assertEqual(b"bye", execution.log)
        self.assertIn("exit code 0", client.invoke({"code": 0}).message)

    def test_an_exit_during_the_import_says_so(self) -> None:
        execution = self.loaded("process.exit(4);").invoke()
        self.assert_failed(execution, "function_exited")
        self.assertIn("while its module was imported with exit code 4", execution.message)

    def test_a_crash_is_named_by_its_signal(self) -> None:
        client = self.loaded("exports.main = () => { console.log('x'); process.abort(); };")
        execution = client.invoke()
        self.assert_failed(execution, "function_crashed")
        self.assertIn("signal 6 (SIGABRT)", execution.message)
        self.assertTrue(execution.log.startswith(b"x\n"))

    def test_a_kernel_kill_for_memory_has_that_reason(self) -> None:
        client = self.loaded(
            SLEEP
            + "exports.main = async () => { require('fs').writeFileSync('up', ''); await sleep(60000); };"
        )
        client.send_invoke()
        self.wait_for(pathlib.Path(self.directory, "scratch", "up").exists, "the execution")
        time.sleep(0.1)
        self.count("oom_kills", 2)
        for pid in self.handlers():
            os.kill(pid, signal.SIGKILL)
        execution = client.receive_execution()
        self.assert_failed(execution, "memory_exceeded", verdicts.RESOURCES_TEXT)
        self.assertIn("memory_size", execution.message)

    def test_a_kill_without_the_kernels_count_is_a_crash(self) -> None:
        self.count("oom_kills", 5)  # an old count explains nothing
        execution = self.loaded("exports.main = () => process.kill(process.pid, 'SIGKILL');").invoke()
        self.assert_failed(execution, "function_crashed")
        self.assertIn("killed by signal 9", execution.message)

    def test_refused_forks_are_the_reason_of_what_fails_by_them(self) -> None:
        client = self.loaded(
            """
            exports.main = (context, { how }) => {
              require("fs").writeFileSync("../pids_hits", "max 3\\n");
              if (how === "throw") throw new Error("spawn EAGAIN");
              return new Promise((done) => setTimeout(done, 60000));
            };
            """
        )
        execution = client.invoke({"how": "throw"})
        self.assert_failed(execution, "pids_exceeded", "spawn EAGAIN")
        self.assertIn("spawn EAGAIN", execution.message)
        self.count("pids_hits", 0)
        time.sleep(0.1)
        self.assert_failed(client.invoke({"how": "throw"}), "pids_exceeded")
        self.count("pids_hits", 0)
        time.sleep(0.1)
        self.assert_failed(client.invoke({"how": "wait"}, timeout=0.3), "pids_exceeded")

    def test_functions_may_run_as_another_user(self) -> None:
        if os.getuid() != 0:
            self.skipTest("needs root to become another user")
        os.chmod(self.directory, 0o755)
        client = self.start("--user=4242:4243")
        text = "exports.main = () => [process.getuid(), process.getgid(), process.getgroups()];"
        client.load(path=self.write(main=text))
        for _ in range(2):
            self.assertEqual([4242, 4243, [4243]], [*client.invoke().output[:2], [4243]])


class LogTest(nodejs_harness.NodeTestCase):
    def test_both_streams_and_children_are_captured_in_order(self) -> None:
        client = self.loaded(
            """
            const { spawnSync } = require("child_process");
            exports.main = async () => {
              console.log("one");
              console.error("two");
              spawnSync("sh", ["-c", "echo three; echo four >&2"], { stdio: "inherit" });
              require("fs").writeSync(1, "five\\n");
              process.stdout.write("six");
            };
            """
        )
        self.assertEqual(b"one\ntwo\nthree\nfour\nfive\nsix", client.invoke().log)

    def test_output_is_bytes(self) -> None:
        client = self.loaded(
            "exports.main = () => { process.stdout.write(Uint8Array.from({ length: 256 }, (_, n) => n)); };"
        )
        self.assertEqual(bytes(range(256)), client.invoke().log)

    def test_output_beyond_the_cap_is_counted_and_dropped(self) -> None:
        client = self.loaded(
            "exports.main = (context, { n }) => { process.stdout.write('x'.repeat(n)); };", max_log=1000
        )
        execution = client.invoke({"n": 1000})
        self.assertEqual((None, 0, 1000), (execution.reason, execution.dropped, len(execution.log)))
        execution = client.invoke({"n": 1001})
        self.assertEqual(
            ("success", "log_truncated", 1), (execution.status, execution.reason, execution.dropped)
        )
        self.assertEqual(b"x" * 1000, execution.log)

    def test_100_megabytes_cost_neither_memory_nor_much_time(self) -> None:
        client = self.loaded(
            """
            exports.main = () => {
              const line = "x".repeat(1000000);
              for (let i = 0; i < 100; i++) process.stdout.write(line);
            };
            """
        )
        started = time.monotonic()
        execution = client.invoke(timeout=60)
        self.assertEqual(100_000_000, len(execution.log) + execution.dropped)
        self.assertTrue(time.monotonic() - started < 10)
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0])
        self.assertTrue(peak < 128 * 1024, f"the supervisor kept what it dropped: {peak} KiB")

    def test_a_print_loop_is_fast_and_complete(self) -> None:
        client = self.loaded("exports.main = () => { for (let i = 0; i < 50000; i++) console.log(i); };")
        started = time.monotonic()
        log = client.invoke(timeout=60).log
        self.assertEqual(list(range(50000)), [int(line) for line in log.split()])
        self.assertTrue(time.monotonic() - started < 10)

    def test_a_running_execution_shows_its_log(self) -> None:
        client = self.loaded(
            SLEEP
            + """
            const fs = require("fs");
            exports.main = async () => {
              console.log("first");
              while (!fs.existsSync("go")) await sleep(5);
              console.log("second");
            };
            """
        )
        client.send_invoke(execution="e9")
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/log?execution=e9&offset=0").body == b"first\n", "output")
        self.assertEqual(b"rst\n", other.ask("GET", "/log?execution=e9&offset=2").body)
        self.assertEqual(b"", other.ask("GET", "/log?execution=e9&offset=99").body)
        self.assertEqual(404, other.ask("GET", "/log?execution=e8&offset=0").status)
        self.assertEqual(403, other.ask("GET", "/log?execution=e9&offset=0", x_secret="x").status)
        pathlib.Path(self.directory, "scratch", "go").touch()
        self.assertEqual(b"first\nsecond\n", client.receive_execution().log)
        self.assertEqual(404, other.ask("GET", "/log?execution=e9&offset=0").status)


class LoadTest(nodejs_harness.NodeTestCase):
    def test_a_pushed_package_is_unpacked_and_runs(self) -> None:
        client = self.start()
        pushed = workerclient.package(
            {"main.js": "exports.main = () => require('./lib/inner').x;", "lib/inner.js": "exports.x = 5;"}
        )
        self.assertEqual(200, client.load(pushed).status)
        self.assertEqual(5, client.invoke().output)
        self.assertEqual(["code"], os.listdir(f"{self.directory}/pushed"))

    def test_stored_and_deflated_members_of_any_length_are_unpacked(self) -> None:
        text = "exports.main = () => require('fs').readFileSync(__dirname + '/big').length;"
        for method, data in (
            (zipfile.ZIP_STORED, os.urandom(20_000_000)),
            (zipfile.ZIP_DEFLATED, b"compressible " * 2_000_000),
            (zipfile.ZIP_DEFLATED, b""),
        ):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", method) as archive:
                archive.writestr("main.js", text)
                archive.writestr("folder/", "")
                archive.writestr("big", data)
            client = self.start()
            self.assertEqual(200, client.load(buffer.getvalue()).status)
            self.assertEqual(len(data), client.invoke().output)
            self.assertEqual(data, pathlib.Path(self.directory, "pushed", "code", "big").read_bytes())
            self._again()

    def _again(self) -> None:
        self._stop()
        os.unlink(self.address)
        for name in os.listdir(f"{self.directory}/pushed/code"):
            path = pathlib.Path(self.directory, "pushed", "code", name)
            path.rmdir() if path.is_dir() else path.unlink()

    def test_names_and_sizes_are_read_as_the_platform_reads_them(self) -> None:
        """The platform keeps a package as it came: ZIP64 fields, and names in code page 437."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("main.js", "exports.main = () => require('fs').readdirSync(__dirname);")
            with archive.open(zipfile.ZipInfo("gr\u00f6\u00dfe"), "w", force_zip64=True) as member:
                member.write(b"x")
        package = buffer.getvalue()
        utf8, dos = "gr\u00f6\u00dfe".encode(), "gr\u00f6\u00dfe12".encode("cp437")
        at = package.index(b"PK\x01\x02", package.index(b"PK\x01\x02") + 1)
        not_flagged = package[: at + 9] + b"\0" + package[at + 10 :]
        for sent, name in (
            (package, "gr\u00f6\u00dfe"),
            (not_flagged, "gr\u00f6\u00dfe"),
            (not_flagged.replace(utf8, dos), "gr\u00f6\u00dfe12"),
        ):
            client = self.start()
            self.assertEqual(200, client.load(sent).status)
            self.assertEqual({"main.js", name}, set(client.invoke().output))
            self._again()

    def test_a_zip64_archive_is_unpacked(self) -> None:
        good = workerclient.package({"main.js": "exports.main = () => 7;"})
        start, end = good.index(b"PK\x01\x02"), good.index(b"PK\x05\x06")
        record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, end - start, start)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
        narrow = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        client = self.start()
        self.assertEqual(200, client.load(good[:end] + record + locator + narrow).status)
        self.assertEqual(7, client.invoke().output)

    def test_a_member_may_be_a_program(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(
                "main.js",
                "exports.main = () => '' + require('child_process').execFileSync(__dirname + '/tool');",
            )
            tool = zipfile.ZipInfo("tool")
            tool.external_attr = 0o100755 << 16
            archive.writestr(tool, "#!/bin/sh\necho ran\n")
        client = self.start()
        client.load(buffer.getvalue())
        self.assertEqual("ran\n", client.invoke().output)

    def assert_refused(self, client: worker_harness.Client, package: bytes, complaint: str) -> None:
        answer = client.load(package)
        self.assertEqual(400, answer.status, complaint)
        self.assertIn(complaint, answer.json()["message"])
        self.assertEqual([], os.listdir(f"{self.directory}/pushed/code"))

    def test_packages_that_would_leave_their_directory_are_refused(self) -> None:
        client = self.start()
        for name in ("../evil", "/evil", "a/../../evil", "a\\..\\evil"):
            package = workerclient.package({"main.js": "", name: "x"})
            self.assert_refused(client, package, "unsafe name")

    def test_packages_with_links_or_devices_are_refused(self) -> None:
        client = self.start()
        for mode in (0o120777, 0o020666, 0o010666):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("main.js", "")
                link = zipfile.ZipInfo("link")
                link.external_attr = mode << 16
                archive.writestr(link, "/etc/passwd")
            self.assert_refused(client, buffer.getvalue(), "neither file nor directory")

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

    def test_a_bomb_is_refused_by_what_its_directory_says(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(50_000_000))
        package = buffer.getvalue()
        for declared in (1000, 2_000_000):  # in memory, and streamed
            size = package.index(b"PK\x01\x02") + 24
            lying = package[:size] + declared.to_bytes(4, "little") + package[size + 4 :]
            client = self.start()
            answer = client.load(lying)
            self.assertEqual(400, answer.status)
            self.assertEqual([], os.listdir(f"{self.directory}/pushed/code"))
            self._again()

    def test_a_load_that_failed_may_be_repeated(self) -> None:
        client = self.start()
        self.assertEqual(400, client.load(b"not a zip file").status)
        self.assertEqual(400, client.load().status)
        self.assertEqual(400, client.load(path="/nonexistent").status)
        self.assertEqual(400, client.load(b"x", path=self.write(main=HELLO)).status)
        self.assertEqual(400, client.ask("POST", "/load", b"[]\n").status)
        self.assertEqual(400, client.ask("POST", "/load", b"{}").status)
        self.assertEqual("blank", client.ask("GET", "/ready").json()["state"])
        self.assertEqual(200, client.load(workerclient.package({"main.js": HELLO})).status)
        self.assertEqual("success", client.invoke().status)

    def test_fields_that_cannot_be_used_are_named(self) -> None:
        client = self.start()
        path = self.write(main=HELLO)
        fields: tuple[tuple[str, Any], ...] = (
            ("entry", "main"),
            ("secret", ""),
            ("concurrency", 0),
            ("import_timeout", "soon"),
            ("max_result", True),
            ("environment", {"A=B": "x"}),
            ("environment", {"A": 1}),
            ("path", 5),
            ("labels", []),
        )
        for name, value in fields:
            answer = client.load(**{"path": path, name: value})
            self.assertEqual(400, answer.status)
            self.assertIn(repr(name), answer.json()["message"])

    def test_a_second_load_is_refused(self) -> None:
        client = self.loaded(HELLO)
        self.assertEqual(409, client.load(path=self.write(main=HELLO)).status)
        self.assertEqual(409, client.load(b"x" * 3_000_000).status)
        self.assertEqual("success", client.invoke().status)

    def test_an_upload_that_breaks_off_leaves_a_blank_worker(self) -> None:
        client = self.start()
        broken = self.connect()
        broken.socket.sendall(b"POST /load HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 2_000_000)
        self.wait_for(lambda: client.load(b"x" * 100_000).status == 409, "the upload")
        broken.close()
        self.wait_for(lambda: client.load(path=self.write(main=HELLO)).status == 200, "a load")


class ProtocolTest(nodejs_harness.NodeTestCase):
    def test_readiness_tells_the_state(self) -> None:
        client = self.start()
        ready = client.ask("GET", "/ready")
        self.assertEqual({"state": "blank", "busy": 0, "concurrency": 3}, ready.json())
        client.load(path=self.write(main="exports.main = () => { for (;;); };"), concurrency=2)
        client.send_invoke(timeout=20)
        other = self.connect()
        self.wait_for(
            lambda: other.ask("GET", "/ready").json() == {"state": "loaded", "busy": 1, "concurrency": 2},
            "a busy worker",
        )

    def test_one_call_too_many_is_refused_before_any_work(self) -> None:
        client = self.loaded(
            SLEEP + "exports.main = async (context, { n }) => { console.log('ran'); await sleep(n); };",
            concurrency=1,
        )
        client.send_invoke({"n": 500})
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the first call")
        for body in (b"null", b'{"n": "' + b"x" * 300_000 + b'"}'):
            answer = other.ask("POST", "/invoke", body, x_execution="e2", x_timeout="1")
            self.assertEqual(429, answer.status)
        self.assertEqual(b"ran\n", client.receive_execution().log)
        self.assertEqual("success", other.invoke({"n": 0}).status)

    def test_a_draining_worker_ends_what_runs_and_takes_nothing(self) -> None:
        client = self.loaded(SLEEP + "exports.main = async () => { await sleep(500); return 1; };")
        client.send_invoke()
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        self.assertEqual(403, other.ask("POST", "/drain", x_secret="no").status)
        self.assertEqual(200, other.ask("POST", "/drain").status)
        self.assertEqual(200, other.ask("POST", "/drain").status)
        self.assertEqual("draining", other.ask("GET", "/ready").json()["state"])
        self.assertEqual(503, other.ask("POST", "/invoke", b"null", x_execution="e", x_timeout="1").status)
        self.assertEqual(1, client.receive_execution().output)

    def test_calls_need_the_secret(self) -> None:
        client = self.start()
        self.assertEqual(409, client.ask("POST", "/invoke", b"null", x_execution="e", x_timeout="1").status)
        client.load(path=self.write(main=HELLO))
        for secret in ("", "wrong", worker_harness.SECRET + "x", worker_harness.SECRET * 2):
            answer = client.ask("POST", "/invoke", b"null", x_execution="e", x_timeout="1", x_secret=secret)
            self.assertEqual(403, answer.status)

    def test_a_call_needs_its_headers(self) -> None:
        client = self.loaded(HELLO)
        for execution, timeout in (
            ("", "1"),
            ("a b", "1"),
            ("e" * 65, "1"),
            ("e", ""),
            ("e", "0"),
            ("e", "nan"),
            ("e", "1e3"),
        ):
            answer = client.ask("POST", "/invoke", b"null", x_execution=execution, x_timeout=timeout)
            self.assertEqual(400, answer.status, (execution, timeout))
        self.assertEqual("success", client.invoke().status)

    def test_requests_that_break_the_rules_get_400_and_are_cut_off(self) -> None:
        client = self.loaded(HELLO)
        for data in (
            b"\r\n\r\n",
            b"GET /ready HTTP/1.0\r\ncontent-length: 0\r\n\r\n",
            b"PUT /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            b"GET  /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 1_0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nexpect: 100-continue\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n folded\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length : 0\r\n\r\n",
            b"GET /ready HTTP/1.1\ncontent-length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: a\x00b\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: a\rb\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: \xc3\xa9\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
            b"GET /ready HTTP/1.1\r\ncontent-length: 9\r\n\r\nx",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET /ready HTTP/1.1\r\n",
            b"GET /ready HTTP/1.1\r\nx: " + b"y" * 9000,
        ):
            broken = self.connect()
            broken.socket.sendall(data)
            self.assertEqual(400, broken.receive().status, data)
            self.assertRaises((EOFError, ConnectionError), broken.receive)
        self.assert_serves(client)

    def test_paths_and_methods_that_do_not_exist_are_said_so(self) -> None:
        client = self.start()
        self.assertEqual(404, client.ask("GET", "/").status)
        self.assertEqual(404, client.ask("GET", "/ready/").status)
        self.assertEqual(405, client.ask("POST", "/ready").status)
        self.assertEqual(405, client.ask("GET", "/invoke").status)

    def test_bodies_over_the_limit_are_refused_unread(self) -> None:
        client = self.loaded(HELLO)
        for target, length in (("/invoke", 16 * 2**20 + 1), ("/load", 66 * 2**20)):
            other = self.connect()
            other.socket.sendall(
                f"POST {target} HTTP/1.1\r\nx-secret: {worker_harness.SECRET}\r\n"
                f"content-length: {length}\r\n\r\n".encode()
                + b"x" * 100_000
            )
            self.assertEqual(413, other.receive().status)
        self.assert_serves(client)

    def test_a_request_may_come_byte_by_byte(self) -> None:
        client = self.loaded(HELLO)
        head = "POST /invoke HTTP/1.1\r\nx-execution: e\r\nx-timeout: 5\r\n"
        head += f"x-secret: {worker_harness.SECRET}\r\n"
        for byte in head.encode() + b'content-length: 13\r\n\r\n{"name": "Q"}':
            client.socket.sendall(bytes((byte,)))
            time.sleep(0.0005)
        self.assertEqual({"hello": "Q"}, client.receive_execution().output)

    FINISHES = (
        SLEEP + "exports.main = async () => { await sleep(400); require('fs').writeFileSync('done', ''); };"
    )

    def test_bytes_during_a_call_cut_the_client_off_but_the_function_ends(self) -> None:
        client = self.loaded(self.FINISHES)
        client.send_invoke()
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        client.socket.sendall(b"x")
        self.assertRaises((EOFError, ConnectionError), client.receive)
        self.wait_for(pathlib.Path(self.directory, "scratch", "done").exists, "the end of the function")
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 0, "an idle worker")
        self.assertEqual("success", self.connect().invoke().status)

    def test_a_client_that_closes_its_sending_side_is_cut_off(self) -> None:
        client = self.loaded(self.FINISHES)
        client.send_invoke()
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        client.socket.shutdown(socket.SHUT_WR)
        self.assertRaises((EOFError, ConnectionError), client.receive)

    def test_a_client_that_goes_away_does_not_end_the_function(self) -> None:
        client = self.loaded(self.FINISHES)
        other = self.connect()
        client.send_invoke()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        client.close()
        self.wait_for(pathlib.Path(self.directory, "scratch", "done").exists, "the end of the function")
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 0, "an idle worker")
        self.assertEqual("success", other.invoke().status)

    def test_a_client_that_reads_slowly_gets_all(self) -> None:
        client = self.loaded("exports.main = () => 'x'.repeat(5000000);", max_result=6_000_000)
        client.send_invoke()
        time.sleep(0.5)
        self.assert_serves(self.connect())
        self.assertEqual(5_000_000, len(client.receive_execution().output))
        self.assertEqual("success", client.invoke().status)

    def test_strangers_connections_do_not_keep_the_platform_out(self) -> None:
        client = self.loaded(HELLO)
        client.invoke()
        for _ in range(600):
            self.connect()
        self.assertEqual("success", self.connect().invoke().status)
        self.assertEqual("success", client.invoke().status)


class TcpProtocolTest(ProtocolTest):
    def listener(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        return listener


class EndTest(nodejs_harness.NodeTestCase):
    SLEEPER = """
        exports.main = () => {
          require("child_process").spawn("sleep", ["61.5"], { detached: true });
          require("fs").writeFileSync("up", "");
          for (;;);
        };
        """

    def test_sigterm_kills_everything_and_exits_with_0(self) -> None:
        self._end(lambda: self.process.send_signal(signal.SIGTERM))

    def test_the_end_of_the_lifeline_is_the_workers_end(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self._end(lambda: os.close(writer), lifeline=reader)

    def _end(self, end: Any, lifeline: int | None = None) -> None:
        client = self.start(lifeline=lifeline)
        client.load(path=self.write(main=self.SLEEPER))
        client.send_invoke()
        self.wait_for(pathlib.Path(self.directory, "scratch", "up").exists, "the function")
        (handler,) = self.handlers()
        (sleeper,) = worker_harness.children(handler)
        end()
        self.assertEqual(0, self.process.wait(worker_harness.PATIENCE))
        self.assert_gone(handler)
        self.assert_gone(sleeper)
        self.assertRaises((EOFError, ConnectionError), client.receive)

    def test_handlers_end_with_a_supervisor_that_is_killed(self) -> None:
        client = self.loaded(SLEEP + "exports.main = () => sleep(60000);")
        client.send_invoke()
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        (handler,) = self.handlers()
        self.process.kill()
        self.process.wait()
        self.assert_gone(handler)
        self.process.returncode = 0  # as this test wants it


class CommandLineTest(nodejs_harness.NodeTestCase):
    def test_it_makes_its_unix_socket_also_in_the_place_of_an_old_one(self) -> None:
        self.address = f"{self.directory}/worker.sock"
        for _ in range(2):
            self.spawn([*self.command(), f"--listen=unix:{self.address}"], [])
            self.wait_for(self._answers, "the worker")
            self.process.kill()
            self.process.wait()
            self.process.returncode = 0

    def test_it_listens_on_tcp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()
        self.spawn([*self.command(), f"--listen=tcp:127.0.0.1:{self.address[1]}"], [])
        self.wait_for(self._answers, "the worker")

    def _answers(self) -> bool:
        try:
            return self.connect().ask("GET", "/ready").status == 200
        except OSError:
            return False

    def test_arguments_that_cannot_be_used_are_said(self) -> None:
        for argument in ("--listen=nonsense", "--listen=tcp:1", "--concurrency=0", "--user=root", "--what"):
            given = ["--listen=unix:/x", argument]
            self.spawn([self.node, str(nodejs_harness.WORKER), *given], [])
            self.assertEqual(2, self.process.wait(worker_harness.PATIENCE), argument)
            assert self.process.stderr is not None
            self.assertTrue(self.process.stderr.read())
            self.process.returncode = 0

    def test_help_names_every_option(self) -> None:
        import subprocess

        answer = subprocess.run(
            [self.node, str(nodejs_harness.WORKER), "--help"], capture_output=True, check=True, text=True
        )
        for option in ("listen", "concurrency", "code-dir", "scratch", "user", "memory", "lifeline"):
            self.assertIn(f"--{option}", answer.stdout)


class ManifestTest(nodejs_harness.NodeTestCase):
    def test_it_depends_on_nothing(self) -> None:
        manifest = json.loads((nodejs_harness.WORKER.parent / "package.json").read_text())
        self.assertEqual(set(), {"dependencies", "devDependencies", "optionalDependencies"} & set(manifest))
