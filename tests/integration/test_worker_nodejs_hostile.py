"""Functions in JavaScript that misbehave in ways of their own: the worker goes on, and says what happened."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import Any

from funcplat.drivers import base
from funcplat.testing import workerclient
from tests.integration import nodejs_harness, worker_harness

CHANNEL = """
    const { writeSync } = require("fs");
    const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
    const report = (length, sequence, kind, reason, flags, duration, result, rest = "") => {
      const frame = Buffer.alloc(23 + Buffer.byteLength(rest));
      frame.writeUInt32BE(length, 0);
      frame.writeUInt32BE(sequence, 4);
      frame.set([kind, reason, flags], 8);
      frame.writeDoubleBE(duration, 11);
      frame.writeUInt32BE(result, 19);
      frame.write(rest, 23);
      return frame;
    };
    const send = (data) => writeSync(3, data);
    """
SPAWN = 'const { spawn } = require("child_process");\n'


class ProcessTest(nodejs_harness.NodeWorker):
    def test_a_child_of_a_worker_thread_is_killed(self) -> None:
        client = self.run_module(
            """
            const { Worker } = require("worker_threads");
            const code = `require("worker_threads").parentPort.postMessage(
              require("child_process").spawn("sleep", ["60"]).pid); setInterval(() => {}, 1000);`;
            exports.main = () => new Promise((done) => new Worker(code, { eval: true }).on("message", done));
            """
        )
        execution = client.invoke()
        self.assert_ended(execution, "success", "processes_killed")
        self.assert_dead(execution.output)

    def test_processes_of_a_handler_that_died_are_killed(self) -> None:
        for how in ("process.exit(1)", "process.abort()", "process.kill(process.pid, 'SIGKILL')"):
            client = self.run_module(
                SPAWN + "exports.main = () => { const child = spawn('sleep', ['60'], { detached: true });"
                f" console.log(child.pid); {how}; }};"
            )
            execution = client.invoke()
            self.assertEqual("failed", execution.status)
            self.assert_dead(int(execution.log.split()[0]))


class NamespaceTest(nodejs_harness.NodeWorker):
    """With a pid namespace of its own below an init, as in a container, nothing gets away."""

    def command(self) -> list[str]:
        init = (
            "mount -t proc proc /proc; trap 'kill -TERM $worker' TERM; \"$@\" & worker=$!; wait; wait $worker"
        )
        return [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            init,
            "sh",
            *super().command(),
        ]

    def setUp(self) -> None:
        if os.getuid() != 0 or shutil.which("unshare") is None:
            self.skipTest("needs root and unshare to make a pid namespace")
        super().setUp()

    def stop_worker(self, address: base.Address) -> None:
        self.process.kill()  # with it the namespace
        _out, errors = self.process.communicate()
        self.assertEqual(b"", errors)

    def test_a_daemon_that_hides_its_origin_is_killed(self) -> None:
        client = self.run_module(
            """
            const { execFileSync } = require("child_process");
            exports.main = (context, { hide }) => hide ? Number(execFileSync("setsid",
              ["env", "-i", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"])) : living();
            const { readdirSync } = require("fs");
            const living = () => readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).length;
            """
        )
        before = client.invoke({"hide": False}).output
        pid = client.invoke({"hide": True}).output
        self.assertTrue(pid > 1)
        self.wait_for(lambda: client.invoke({"hide": False}).output <= before, "the end of the daemon")

    def test_processes_of_others_are_spared(self) -> None:
        """What was entered into the namespace from outside is the operator's."""
        if shutil.which("nsenter") is None:
            self.skipTest("needs nsenter")
        client = self.run_module("exports.main = () => null;")
        client.invoke()
        (inner,) = worker_harness.children(self.process.pid)
        other = subprocess.Popen(["nsenter", f"--target={inner}", "--pid", "--mount", "sleep", "30"])
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        time.sleep(0.2)
        for _ in range(3):
            self.assert_ended(client.invoke(), "success", None)
        self.assertIs(None, other.poll())


class ChannelTest(nodejs_harness.NodeWorker):
    def _loaded_with_channel(self, action: str) -> workerclient.WorkerClient:
        return self.run_module(
            f"{CHANNEL}\nexports.main = async (context, input) => {{\n"
            f"if (input?.calm) return process.pid;\n{action}\n}};"
        )

    def _broken_by(self, action: str) -> None:
        client = self._loaded_with_channel(action)
        execution = client.invoke(timeout=4)
        self.assert_ended(execution, "failed", "function_crashed")
        self.assert_ended(client.invoke({"calm": True}), "success", None)
        self.assert_answers(client)

    def test_garbage_on_the_channel(self) -> None:
        self._broken_by("send('garbage'.repeat(100)); await sleep(60000);")

    def test_an_endless_report(self) -> None:
        self._broken_by("send(Buffer.alloc(40, 255)); for (;;) try { send(Buffer.alloc(100000)); } catch {} ")

    def test_a_report_with_another_sequence(self) -> None:
        self._broken_by("send(report(19, 99, 1, 0, 0, 0, 0)); await sleep(60000);")

    def test_a_report_whose_result_is_longer_than_itself(self) -> None:
        self._broken_by("send(report(19, 1, 1, 0, 0, 0, 9)); await sleep(60000);")

    def test_a_report_shorter_than_its_fixed_part(self) -> None:
        self._broken_by("send(report(3, 1, 1, 0, 0, 0, 0).subarray(0, 7)); await sleep(60000);")

    def test_two_reports_at_once(self) -> None:
        self._broken_by(
            "const one = report(19, 1, 1, 0, 0, 0, 0); send(Buffer.concat([one, one])); await sleep(60000);"
        )

    def test_a_second_announcement_of_readiness(self) -> None:
        self._broken_by("send(report(19, 0, 0, 0, 0, 0, 0)); await sleep(60000);")

    def test_a_closed_channel(self) -> None:
        self._broken_by("require('fs').closeSync(3); await sleep(60000);")

    def test_a_closed_channel_before_a_return(self) -> None:
        self._broken_by("require('fs').closeSync(3);")

    def test_every_descriptor_closed(self) -> None:
        self._broken_by(
            "for (let fd = 0; fd < 100; fd++) try { require('fs').closeSync(fd); } catch {}\n"
            "await sleep(60000);"
        )

    def test_a_forged_report_harms_only_its_own_execution(self) -> None:
        client = self._loaded_with_channel("send(report(19, 1, 1, 255, 255, NaN, 0)); await sleep(60000);")
        client.send_invoke(timeout=3)
        forged = client.receive()
        self.assertEqual(("success", "0"), (forged.headers["x-status"], forged.headers["x-result-length"]))
        self.assertTrue(0 <= float(forged.headers["x-duration"]) < 3)
        self.assert_ended(client.invoke({"calm": True}), "success", None)

    def test_an_odd_reason_and_message_are_made_harmless(self) -> None:
        client = self._loaded_with_channel(
            "const text = '\"1\"x\\r\\nx-status: success\\r\\n\\u20ac%';"
            "send(report(19 + Buffer.byteLength(text), 1, 2, 200, 0, -5, 3, text)); await sleep(60000);"
        )
        execution = client.invoke()
        self.assert_ended(execution, "failed", "function_raised")
        self.assertEqual("x\r\nx-status: success\r\n\u20ac%", execution.message)
        self.assert_answers(client)

    def test_reports_while_idle_end_the_handler_only(self) -> None:
        client = self._loaded_with_channel(
            "setTimeout(() => send(report(19, 2, 1, 0, 0, 0, 0)), 100); return process.pid;"
        )
        pid = client.invoke().output
        self.assert_dead(pid)
        self.assertNotEqual(pid, client.invoke({"calm": True}).output)

    def test_a_handler_that_dies_while_idle_is_replaced(self) -> None:
        for what in ("process.exit(3)", "(() => { throw new Error('late'); })()", "Promise.reject(1)"):
            client = self._loaded_with_channel(f"setTimeout(() => {what}, 100); return process.pid;")
            pid = client.invoke().output
            self.assert_dead(pid)
            self.assert_ended(client.invoke({"calm": True}), "success", None)


class OutputTest(nodejs_harness.NodeWorker):
    def test_streams_that_are_closed_or_replaced_harm_nothing(self) -> None:
        for action in (
            "process.stdout.end(); process.stderr.destroy();",
            "Object.defineProperty(process, 'stdout', { value: null, configurable: true });",
            "try { process.stdout = null; } catch {}",
            "require('fs').writeSync = null;",
        ):
            client = self.run_module(
                "exports.main = (context, { odd }) => {\n"
                f"console.log('x'); if (odd) {{ {action} }} return 1; }};"
            )
            for odd in (True, False):
                execution = client.invoke({"odd": odd})
                self.assertEqual((1, b"x\n"), (execution.output, execution.log), action)

    def test_a_log_that_is_closed_is_there_for_the_next_call(self) -> None:
        client = self.run_module(
            "exports.main = (context, { close }) => { console.log('x'); const fs = require('fs');"
            " if (close) { fs.closeSync(1); fs.closeSync(2); } return 1; };"
        )
        for close in (True, False, False):
            execution = client.invoke({"close": close})
            self.assertEqual((1, b"x\n"), (execution.output, execution.log))

    def test_output_after_the_return_is_dropped(self) -> None:
        client = self.run_module(
            """
            const fs = require("fs");
            exports.main = (context, { calm }) => {
              console.log("in time");
              if (!calm) setTimeout(() => {
                console.log("late".repeat(1000));
                fs.writeSync(1, "late");
                setTimeout(() => { fs.writeSync(1, "later"); fs.writeFileSync("done", ""); }, 100);
              }, 100);
            };
            """
        )
        self.assertEqual(b"in time\n", client.invoke({"calm": False}).log)
        self.wait_for((self.scratch / "done").exists, "the late output")
        self.assertEqual(b"in time\n", client.invoke({"calm": True}).log)

    def test_a_child_that_makes_the_log_non_blocking_loses_nothing(self) -> None:
        client = self.run_module(
            """
            const { spawnSync } = require("child_process");
            exports.main = () => {
              spawnSync(process.execPath, ["-e", "process.stdout.write('child\\\\n')"], { stdio: "inherit" });
              for (let i = 0; i < 20000; i++) console.log(i);
            };
            """
        )
        log = client.invoke(timeout=60).log
        self.assertEqual(["child", *map(str, range(20000))], log.decode().split())

    def test_stdin_is_empty(self) -> None:
        self.assertEqual(
            "", self.run_module("exports.main = () => require('fs').readFileSync(0, 'utf8');").invoke().output
        )


class ObjectTest(nodejs_harness.NodeWorker):
    def _failure(self, text: str, reason: str, **fields: Any) -> workerclient.Execution:
        client = self.run_module(text, **fields)
        execution = client.invoke(timeout=20)
        self.assert_ended(execution, "failed", reason)
        self.assert_answers(client)
        return execution

    def test_an_error_whose_every_property_throws(self) -> None:
        execution = self._failure(
            """
            class Odd extends Error {
              get message() { throw new Error("message"); }
              get name() { throw new Error("name"); }
              get stack() { throw new Error("stack"); }
              get code() { throw new Error("code"); }
              [Symbol.for("nodejs.util.inspect.custom")]() { throw new Error("inspect"); }
            }
            exports.main = () => { throw new Odd(); };
            """,
            "function_raised",
        )
        self.assertEqual("Error", execution.output)

    def test_a_thrown_proxy(self) -> None:
        self._failure(
            "const odd = new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } });\n"
            "exports.main = () => { throw odd; };",
            "function_raised",
        )

    def test_a_result_whose_serialisation_throws(self) -> None:
        for odd in (
            "new Proxy({}, { ownKeys() { throw new Error('x'); } })",
            "{ get a() { throw null; } }",
            "new Proxy([], { get() { throw undefined; } })",
        ):
            text = f"const odd = {odd};\nexports.main = () => ({{ odd }});"
            self._failure(text, "result_not_json")

    def test_a_promise_that_is_none(self) -> None:
        self._failure(
            "exports.main = () => ({ get then() { throw new Error('then'); } });", "function_raised"
        )
        client = self.run_module("exports.main = () => ({ then(done) { done(1); done(2); throw 3; } });")
        self.assertEqual([1, 1], [client.invoke().output for _ in range(2)])

    def test_endless_recursion(self) -> None:
        execution = self._failure("exports.main = () => exports.main();", "function_raised")
        self.assertEqual("Maximum call stack size exceeded", execution.output)

    def test_a_promise_of_one_call_that_another_settles(self) -> None:
        client = self.run_module(
            """
            let settle;
            exports.main = (context, { wait }) => {
              if (wait) return new Promise((done) => { settle = done; });
              settle("wrong");
              return new Promise((done) => setTimeout(done, 50, "right"));
            };
            """
        )
        self.assert_ended(client.invoke({"wait": True}), "failed", "function_raised")
        self.assertEqual("right", client.invoke({"wait": False}).output)

    def test_listeners_of_the_worker_removed(self) -> None:
        client = self.run_module(
            """
            exports.main = (context, { how }) => {
              process.removeAllListeners();
              if (how === "throw") setTimeout(() => { throw new Error("x"); }, 5);
              return new Promise((done) => how === "wait" ? setTimeout(done, 20, 1) : null);
            };
            """
        )
        self.assertEqual(1, client.invoke({"how": "wait"}).output)
        for how in ("throw", "never"):
            self.assert_ended(client.invoke({"how": how}, timeout=3), "failed", "function_exited")
            self.assertEqual(1, client.invoke({"how": "wait"}).output)

    def test_a_function_that_breaks_the_objects_of_the_language(self) -> None:
        client = self.run_module(
            """
            exports.main = (context, input) => {
              JSON.stringify = Buffer.concat = Buffer.alloc = Promise.prototype.then = null;
              Object.prototype.reason = "x";
              globalThis.process = Array.prototype.push = null;
              return 1;
            };
            """
        )
        for _ in range(2):
            client.invoke(timeout=2)
        self.assert_answers(client)
