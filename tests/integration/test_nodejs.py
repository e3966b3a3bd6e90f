"""Functions in Node.js on a real server, beside functions in Python."""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from typing import Any

from funcplat.drivers.process import interpreters
from tests.functional import platform
from tests.integration import nodejs_harness, server, test_survival

IMAGE = "openstackqinling/nodejs-runtime:0.0.1"
MIB = 1 << 20
GREETER = """
    let calls = 0;
    exports.main = async (context, input) => {
      console.log('greeting', input.name);
      await new Promise((done) => setTimeout(done, 5));
      console.error('call', ++calls, 'of', context.functionId);
      return { greeting: `Hello, ${input.name}!`, calls };
    };
"""
WILD = """
    const fs = require('fs');
    const { spawn } = require('child_process');
    const actions = {
      echo: ({ value }) => value,
      fail() { throw new TypeError('of the function'); },
      reject: () => Promise.reject(new Error('later')),
      sleep: ({ seconds }) => new Promise((done) => setTimeout(done, seconds * 1000)),
      spin() { for (;;); },
      eat_memory() { for (const kept = []; ; ) kept.push(Buffer.alloc(1 << 20, 'x')); },
      async fork_bomb() {
        const script = 'b() { b | b & b; }; b';
        for (;;) {
          spawn('/bin/sh', ['-c', script], { stdio: 'ignore' }).on('error', () => {});
          await null;
        }
      },
      connect: ({ host, port }) => new Promise((done) => {
        const socket = require('net').connect({ host, port });
        socket.on('connect', () => done('connected')).on('error', (error) => done(error.code));
      }),
      read({ path }) { try { return fs.readFileSync(path, 'utf8'); } catch (error) { return error.code; } },
      root: () => fs.readdirSync('/'),
    };
    exports.main = (context, { action, ...given }) => actions[action](given);
"""


def zipped(**files: str) -> bytes:
    """A package of modules by the names of their files, an underscore for the dot."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), textwrap.dedent(text))
    return data.getvalue()


class NodeServerTest(test_survival.ServerTest):
    """A server that has a node."""

    def setUp(self) -> None:
        node = nodejs_harness.node()
        if node is None:
            self.skipTest("node is not installed; Debian has it in nodejs")
        images = {"orchestrator_process": {"images": f"*python*=default, *node*={node}"}}
        self.options = {**images, **self.options}  # type: ignore[misc]
        super().setUp()

    def runtime(self, image: str = IMAGE) -> Any:
        """A new runtime, once it is known whether it can be used."""
        made = self.server.admin.post("/v1/runtimes", {"image": image}).json()
        path = f"/v1/runtimes/{made['id']}"
        return platform.until(
            lambda: found if (found := self.server.admin.get(path).json())["status"] != "creating" else None,
            "the runtime is settled",
        )

    def node_function(self, source: str = WILD, **fields: str) -> str:
        """The id of a new function ``index.main``, in a runtime of its own."""
        runtime = self.runtime()
        self.assertEqual("available", runtime["status"], runtime)
        form = {
            "runtime_id": runtime["id"],
            "code": '{"source": "package"}',
            "entry": "index.main",
            "timeout": "20",
            "memory_size": str(96 * MIB),
            **fields,
        }
        package = zipped(index_js=source)
        answer = self.api.post("/v1/functions", data=form, files={"package": ("f", package)})
        self.assertEqual(201, answer.status_code, answer.text)
        return str(answer.json()["id"])

    def outcome(self, function: str, **values: Any) -> Any:
        execution = self.call(function, **values)
        return execution["status"], (execution["reason"] or {}).get("code")

    def output(self, function: str, **values: Any) -> Any:
        execution = self.call(function, **values)
        self.assertEqual("success", execution["status"], execution)
        return json.loads(execution["result"])["output"]

    def reach(self, function: str, host: str, port: int) -> Any:
        """How a connection of the function's ends."""
        return self.output(function, action="connect", host=host, port=port)

    def log(self, execution: Any) -> str:
        """What the function wrote, without the lines of the platform around it."""
        text = self.api.get(f"/v1/executions/{execution['id']}/log").text
        return re.sub(r"(?m)^(Start|Finished) execution: .*\n", "", text)


class CallTests(NodeServerTest):
    def test_a_function_greets_logs_and_stays_warm(self) -> None:
        function = self.node_function(GREETER)
        first, second = self.call(function, name="Ann"), self.call(function, name="Bo")
        outputs = [json.loads(each["result"])["output"] for each in (first, second)]
        self.assertEqual({"greeting": "Hello, Ann!", "calls": 1}, outputs[0])
        self.assertEqual({"greeting": "Hello, Bo!", "calls": 2}, outputs[1])
        self.assertEqual(f"greeting Bo\ncall 2 of {function}\n", self.log(second))

    def test_a_queued_call_ends_alike(self) -> None:
        execution = self.call(self.node_function(GREETER), sync=False, name="Cy")
        settled = self.settled([execution["id"]])[execution["id"]]
        self.assertEqual("success", settled["status"], settled)
        self.assertEqual("Hello, Cy!", json.loads(settled["result"])["output"]["greeting"])
        self.assertIn("greeting Cy\n", self.log(settled))

    def test_failures_are_results(self) -> None:
        function = self.node_function()
        execution = self.call(function, action="fail")
        self.assertEqual(("failed", "function_raised"), (execution["status"], execution["reason"]["code"]))
        self.assertEqual("of the function", json.loads(execution["result"])["output"])
        self.assertRegex(self.log(execution), r"TypeError: of the function\n +at .*/code/index.js:")
        self.assertEqual(("failed", "function_raised"), self.outcome(function, action="reject"))
        self.assertEqual("on", self.output(function, action="echo", value="on"))

    def test_both_languages_run_side_by_side(self) -> None:
        python = self.function("def main(name):\n    print('python')\n    return [name]\n")
        node = self.node_function(
            "exports.main = (context, { name }) => { console.log('node'); return [name] };"
        )
        calls = [self.in_background(each, name=n) for n in range(3) for each in (python, node)]
        results = [json.loads(call.result(60)["result"])["output"] for call in calls]
        self.assertEqual([[0], [0], [1], [1], [2], [2]], results)
        self.assertEqual("python\n", self.log(calls[0].result()))
        self.assertEqual("node\n", self.log(calls[1].result()))


class LimitTests(NodeServerTest):
    options = {"resource_limits": {"min_memory": 16 * MIB, "max_cpu": 2000, "default_cpu": 2000}}  # noqa: RUF012

    def test_functions_that_go_beyond_a_limit_fail_with_the_reason_and_the_next_call_runs(self) -> None:
        function = self.node_function(timeout="2")
        self.assertEqual(("failed", "timeout"), self.outcome(function, action="spin"))
        self.assertEqual(("failed", "timeout"), self.outcome(function, action="sleep", seconds=60))
        self.assertEqual(("failed", "memory_exceeded"), self.outcome(function, action="eat_memory"))
        status, reason = self.outcome(function, action="fork_bomb")
        self.assertEqual("failed", status)
        self.assertIn(reason, ("timeout", "pids_exceeded"))
        self.assertEqual("on", self.output(function, action="echo", value="on"))

    def test_the_least_memory_runs_a_function_and_less_is_refused_with_what_it_takes(self) -> None:
        small = self.node_function(memory_size=str(32 * MIB))
        self.assertEqual([0, 1, 2], [self.output(small, action="echo", value=value) for value in range(3)])
        execution = self.call(self.node_function(memory_size=str(24 * MIB)), action="echo", value=1)
        self.assertEqual("error", execution["status"])
        reason = execution["reason"]
        self.assertIn("needs 32 MiB of memory at least, and the function has 24", reason["message"])


class IsolationTests(NodeServerTest):
    def test_neither_network_nor_files_of_the_platform_are_there(self) -> None:
        function = self.node_function()
        self.assertEqual("ECONNREFUSED", self.reach(function, "127.0.0.1", self.server.port))
        self.assertEqual("ENETUNREACH", self.reach(function, "169.254.169.254", 80))
        for path in (self.server.state_dir / "funcplat.sqlite", self.server.config, "/etc/shadow"):
            self.assertEqual("ENOENT", self.output(function, action="read", path=str(path)), path)
        system = {"bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"}
        own = {"code", "dev", "etc", "function", "proc", "tmp", "worker"}
        node = str(pathlib.Path(nodejs_harness.node() or "/").resolve()).split("/")[1]
        self.assertLessEqual(set(self.output(function, action="root")), system | own | {node})


class DeathTests(NodeServerTest):
    def test_a_server_that_is_killed_leaves_nothing_of_its_functions(self) -> None:
        function = self.node_function()
        self.output(function, action="echo", value=1)
        calls = [self.in_background(function, action=action, seconds=60) for action in ("spin", "sleep")]
        self.running()
        self.server.kill()
        for call in calls:
            self.assertIsNotNone(call.exception(60))
        platform.until(lambda: not self.server.leftovers(), "nothing is left")
        self.server.start()
        self.assertEqual(2, self.output(function, action="echo", value=2))


class MissingTests(test_survival.ServerTest):
    options = {"orchestrator_process": {"images": "*python*=default, *node*=node-of-nobody"}}  # noqa: RUF012

    def test_a_runtime_without_its_interpreter_says_so_and_others_are_made(self) -> None:
        made = self.server.admin.post("/v1/runtimes", {"image": IMAGE}).json()
        path = f"/v1/runtimes/{made['id']}"
        platform.until(lambda: self.server.admin.get(path).json()["status"] == "error", "an error")
        reason = self.server.admin.get(path).json()["reason"]
        self.assertEqual("image_unknown", reason["code"])
        self.assertIn("'node-of-nobody', and there is no such program in PATH", reason["message"])
        self.assertEqual("success", self.call(self.function("def main():\n    return 1\n"))["status"])


class UserServer(server.Server):
    """A server that an ordinary user runs."""

    user = 12345

    def command(self, *more: str) -> list[str]:
        interpreter = shutil.which("python3", path="/usr/bin")
        assert interpreter is not None
        return [interpreter, *super().command(*more)[1:]]

    def spawn(self) -> None:
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, self.user, self.user)
        packages = [path for path in sys.path if path.endswith("site-packages")]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "PYTHONPATH": ":".join([str(server.ROOT), *packages]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                user=self.user,
                group=self.user,
                extra_groups=[],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def _version(interpreter: str) -> str:
    return interpreters.identify(pathlib.Path(interpreter)).version


class OrdinaryUserTests(NodeServerTest):
    server_class = UserServer

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("needs root, to be somebody else")
        interpreter = shutil.which("python3", path="/usr/bin")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if not interpreter or not _version(interpreter).startswith(f"{version}."):
            self.skipTest(f"needs a /usr/bin/python3 of {version}, which ordinary users can read")
        super().setUp()

    def test_functions_of_both_languages_run(self) -> None:
        self.assertEqual(1, self.output(self.function("def main():\n    return 1\n")))
        function = self.node_function(GREETER)
        self.assertEqual("Hello, Ann!", self.output(function, name="Ann")["greeting"])
        self.assertEqual("Hello, Bo!", self.output(function, name="Bo")["greeting"])

    def test_limits_hold_as_far_as_they_can(self) -> None:
        function = self.node_function(timeout="2", memory_size=str(64 * MIB))
        self.assertEqual(("failed", "timeout"), self.outcome(function, action="spin"))
        self.assertEqual("ECONNREFUSED", self.reach(function, "127.0.0.1", self.server.port))
        self.assertEqual("ENOENT", self.output(function, action="read", path=str(self.server.config)))
        self.assertEqual("on", self.output(function, action="echo", value="on"))
