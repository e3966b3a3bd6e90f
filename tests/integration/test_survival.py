"""What survives the death of a server, and what must not."""

from __future__ import annotations

import concurrent.futures
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import httpx
import testtools
from testtools import content

from tests.functional.platform import IMAGE, Api, package, token_of, until
from tests.integration import server as servers

SLEEP = """
    import time
    def main(seconds=0.0, value=None):
        print("slept", flush=True)
        time.sleep(seconds)
        return value
"""
SETTLED = ("success", "failed", "error")


class ServerTest(testtools.TestCase):
    """A server, which the fixture proves to have left nothing when it has ended."""

    options: ClassVar[dict[str, dict[str, Any]]] = {}
    server_class: ClassVar[type[servers.Server]] = servers.Server

    def setUp(self) -> None:
        super().setUp()
        self.server = self.server_class(**self.options)
        self.addOnException(lambda _: self.addDetail("server", content.text_content(self.server.tail())))
        self.useFixture(self.server)
        self.api = self.server.caller(token_of("p0"))

    def function(self, source: str = SLEEP, **fields: str) -> str:
        """The id of a new function, in a runtime of its own."""
        made = self.server.admin.post("/v1/runtimes", {"image": IMAGE}).json()
        path = f"/v1/runtimes/{made['id']}"
        until(lambda: self.server.admin.get(path).json()["status"] == "available", "a runtime")
        form = {"runtime_id": made["id"], "code": '{"source": "package"}', "timeout": "60", **fields}
        answer = self.api.post("/v1/functions", data=form, files={"package": ("f", package(source))})
        self.assertEqual(201, answer.status_code, answer.text)
        return str(answer.json()["id"])

    def call(self, function: str, api: Api | None = None, sync: bool = True, **values: Any) -> Any:
        body = {"function_id": function, "sync": sync, "input": json.dumps(values)}
        answer = (api or self.api).post("/v1/executions", body)
        self.assertEqual(201, answer.status_code, answer.text)
        return answer.json()

    def in_background(self, function: str, **values: Any) -> concurrent.futures.Future[Any]:
        """A synchronous call, made by somebody else."""
        api = self.server.caller(token_of("p0"))
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(self.call(function, api, **values))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def execution(self, name: str) -> Any:
        return self.api.get(f"/v1/executions/{name}").json()

    def running(self) -> Any:
        """The one execution that runs, once there is one."""
        path = "/v1/executions?status=running"
        found = until(
            lambda: [e for e in self.api.get(path).json()["executions"] if e["phase"] == "running"],
            "an execution runs",
        )
        return found[0]

    def settled(self, names: list[str]) -> dict[str, Any]:
        def all_settled() -> Any:
            shown = {name: self.execution(name) for name in names}
            return shown if all(each["status"] in SETTLED for each in shown.values()) else None

        found: dict[str, Any] = until(all_settled, "every accepted execution is settled", 60.0)
        return found


class Load:
    """Callers that call until the server goes away, and remember what they were answered."""

    def __init__(self, make: Callable[[], Api], function: str) -> None:
        self.answered: dict[str, Any] = {}
        self._function = function
        self._threads = [
            threading.Thread(target=self._run, args=(make(), sync)) for sync in (True, True, False, False)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self, api: Api, sync: bool) -> None:
        while True:
            values = json.dumps({"seconds": random.choice([0, 0.05, 0.5, 1.3])})
            body = {"function_id": self._function, "sync": sync, "input": values}
            try:
                answer = api.http.post(f"{api.endpoint}/v1/executions", json=body)
            except httpx.TransportError:
                return
            if answer.status_code == 201:
                self.answered[answer.json()["id"]] = answer.json()
            if not sync:
                time.sleep(0.02)  # a queue that grows faster than it is worked off tests only patience


class KillTests(ServerTest):
    options: ClassVar = {"engine": {"poll_interval": 0.1, "reap_interval": 0.5, "max_attempts": 2}}

    def test_whatever_was_answered_is_settled_after_kills_at_random_moments(self) -> None:
        function = self.function()
        answered: dict[str, Any] = {}
        for _ in range(3):
            load = Load(lambda: self.server.caller(token_of("p0")), function)
            time.sleep(random.uniform(0.3, 1.5))
            self.server.kill()
            load.join()
            answered |= load.answered
            self.server.start()
        self.assertNotEqual({}, answered)
        for name, ended in self.settled(list(answered)).items():
            if answered[name]["sync"]:
                self.assertEqual(answered[name], ended)
            elif ended["status"] != "success":
                self.assertEqual("server_lost", ended["reason"]["code"], ended)
        unsettled = "SELECT id, status FROM executions WHERE status NOT IN ('success', 'failed', 'error')"
        self.assertEqual([], self.server.rows(unsettled))
        lost = "SELECT reason_code FROM executions WHERE sync AND status = 'error'"
        self.assertEqual(set(), {code for (code,) in self.server.rows(lost)} - {"server_lost"})
        self.assertEqual("success", self.call(function)["status"])
        alive = self.server.rows("SELECT server_id FROM workers WHERE state != 'deleted'")
        self.assertEqual(1, len(set(alive)), "workers of dead servers are settled, too")

    def test_an_asynchronous_execution_that_was_running_runs_again(self) -> None:
        name = self.call(self.function(), sync=False, seconds=2, value=7)["id"]
        self.running()
        self.server.kill()
        self.server.start()
        ended = self.settled([name])[name]
        self.assertEqual(("success", 7), (ended["status"], json.loads(ended["result"])["output"]))

    def test_after_its_last_attempt_it_ends_with_the_reason(self) -> None:
        name = self.call(self.function(), sync=False, seconds=50)["id"]
        for _ in range(2):
            self.running()
            self.server.kill()
            self.server.start()
        ended = self.settled([name])[name]
        self.assertEqual(("error", "server_lost"), (ended["status"], ended["reason"]["code"]))
        self.assertIn("2 attempts", ended["reason"]["message"])

    def test_a_synchronous_execution_that_had_a_row_ends_with_the_reason(self) -> None:
        answer = self.in_background(self.function(), seconds=50)
        name = self.running()["id"]
        self.server.kill()
        self.assertIsInstance(answer.exception(30), httpx.TransportError)
        self.server.start()
        ended = self.settled([name])[name]
        self.assertEqual(("error", "server_lost"), (ended["status"], ended["reason"]["code"]))


class StopTests(ServerTest):
    options: ClassVar = {"api": {"shutdown_grace": 5}}

    def test_sigterm_lets_a_running_synchronous_execution_be_answered(self) -> None:
        answer = self.in_background(self.function(), seconds=3, value="waited")
        name = self.running()["id"]
        self.assertEqual(0, self.server.stop())
        execution = answer.result(10)
        self.assertEqual(("success", name), (execution["status"], execution["id"]))
        rows = self.server.rows("SELECT status FROM executions WHERE id = ?", name)
        self.assertEqual([("success",)], rows)

    def test_sigterm_waits_for_asynchronous_executions_that_end_in_time(self) -> None:
        name = self.call(self.function(), sync=False, seconds=2)["id"]
        self.running()
        self.assertEqual(0, self.server.stop())
        self.assertEqual([("success",)], self.server.rows("SELECT status FROM executions WHERE id = ?", name))

    def test_sigint_ends_an_idle_server_at_once(self) -> None:
        self.call(self.function())
        began = time.monotonic()
        self.server.signal(signal.SIGINT)
        self.assertEqual(0, self.server.wait())
        self.assertLess(time.monotonic() - began, 5.0)
        self.assertEqual([], self.server.leftovers())


class ShortGraceTests(ServerTest):
    options: ClassVar = {"api": {"shutdown_grace": 1}}

    def test_what_outlasts_the_grace_is_queued_again_and_runs_on_the_next_server(self) -> None:
        name = self.call(self.function(), sync=False, seconds=4, value=1)["id"]
        self.running()
        self.assertEqual(0, self.server.stop())
        rows = self.server.rows("SELECT status, server_id FROM executions WHERE id = ?", name)
        self.assertEqual([("queued", None)], rows)
        self.server.start()
        self.assertEqual("success", self.settled([name])[name]["status"])

    def test_a_synchronous_execution_that_outlasts_the_grace_is_answered_that_its_worker_was_stopped(
        self,
    ) -> None:
        answer = self.in_background(self.function(), seconds=50)
        name = self.running()["id"]
        self.assertEqual(0, self.server.stop())
        execution = answer.result(10)
        self.assertEqual(("failed", "worker_stopped"), (execution["status"], execution["reason"]["code"]))
        rows = self.server.rows("SELECT status, reason_code FROM executions WHERE id = ?", name)
        self.assertEqual([("failed", "worker_stopped")], rows)
        self.assertNotIn("Traceback", self.server.tail())


class SecondServerTests(ServerTest):
    def second(self, *more: str) -> subprocess.CompletedProcess[str]:
        command = self.server.command(*more)
        return subprocess.run(
            command, cwd=servers.ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def test_a_second_server_on_the_state_directory_says_whose_it_is_and_ends(self) -> None:
        self.call(self.function())
        done = self.second("--port", "1")
        self.assertNotEqual(0, done.returncode)
        self.assertIn(str(self.server.process.pid if self.server.process else ""), done.stderr)
        self.assertIn(str(self.server.state_dir), done.stderr)
        self.assertEqual(1, done.stderr.count("\n"), done.stderr)
        self.assertEqual("ok", self.api.get("/healthz").json()["status"])

    def test_a_port_in_use_is_one_clear_line(self) -> None:
        done = self.second("--state-dir", str(self.server.home / "t"))
        self.assertNotEqual(0, done.returncode)
        lines = [line for line in done.stderr.splitlines() if str(self.server.port) in line]
        self.assertEqual(1, len(lines), done.stderr)
        self.assertIn("in use", lines[0])
        self.assertNotIn("Traceback", done.stderr)
