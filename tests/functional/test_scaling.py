"""Workers come, share calls, go and die as they should (DESIGN: the scaling policy)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import signal
import time
from typing import Any, ClassVar

from funcplat.core import wire
from funcplat.drivers.base import Handle
from tests.functional.platform import ApiTest, until
from tests.services import processes

SLEEP = """
    import time
    def main(seconds=0.0, value=None):
        time.sleep(seconds)
        return value
"""


class ScalingTest(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.pool = concurrent.futures.ThreadPoolExecutor(12)
        self.addCleanup(self.pool.shutdown)

    def call(
        self, function: dict[str, Any], seconds: float = 0.0
    ) -> concurrent.futures.Future[dict[str, Any]]:
        return self.pool.submit(self.execute, function, input=json.dumps({"seconds": seconds}))

    def calls(self, function: dict[str, Any], count: int, seconds: float) -> list[dict[str, Any]]:
        """Executions that were called all at once, when they have ended."""
        return [future.result() for future in [self.call(function, seconds) for _ in range(count)]]

    def workers(self, function: dict[str, Any]) -> list[dict[str, Any]]:
        path = f"/v1/functions/{function['id']}/workers"
        found: list[dict[str, Any]] = self.ok(200, self.admin.get(path))["workers"]
        return found

    def busy(self, function: dict[str, Any], seconds: float) -> concurrent.futures.Future[dict[str, Any]]:
        """A call that a worker runs by now."""
        before = self.running(function)
        future = self.call(function, seconds)
        until(lambda: self.running(function) > before, "the call runs")
        return future

    def running(self, function: dict[str, Any]) -> int:
        """How many executions the workers of a function say that they run."""
        with self.platform.services.db.read() as connection:
            query = "SELECT handle FROM workers WHERE function_id = ? AND state = 'ready'"
            rows = connection.exec_driver_sql(query, (function["id"],)).scalars().all()
        addresses = [Handle.from_json(json.loads(row)).address for row in rows]
        return sum(wire.busy(address, 5.0) for address in addresses)


class ConcurrencyTests(ScalingTest):
    def test_three_calls_at_once_share_a_worker_and_six_need_two(self) -> None:
        function = self.create(SLEEP)
        self.execute(function)
        for executions in (self.calls(function, 3, 0.5), self.calls(function, 3, 0.5)):
            self.assertEqual(["success"] * 3, [each["status"] for each in executions])
            self.assertEqual(1, len(self.workers(function)))
        executions = self.calls(function, 6, 1.0)
        self.assertEqual(["success"] * 6, [each["status"] for each in executions])
        self.assertEqual(2, len(self.workers(function)))

    def test_calls_of_a_function_without_a_worker_wait_for_the_same_start(self) -> None:
        function = self.create(SLEEP)
        executions = self.calls(function, 3, 0.5)
        self.assertEqual(["success"] * 3, [each["status"] for each in executions])
        self.assertLessEqual(len(self.workers(function)), 2)

    def test_a_worker_that_dies_under_an_execution_fails_it_and_the_next_call_works(self) -> None:
        function = self.create(SLEEP)
        running = self.busy(function, 30)
        (worker,) = self.workers(function)
        kill(worker["id"])
        execution = running.result()
        self.assertEqual(("failed", "worker_died"), (execution["status"], execution["reason"]["code"]))
        self.assertEqual(["success"] * 5, [self.execute(function)["status"] for _ in range(5)])
        until(lambda: worker["id"] not in [each["id"] for each in self.workers(function)], "it is gone")

    def test_an_idle_worker_that_dies_is_replaced_without_a_failed_call(self) -> None:
        function = self.create(SLEEP)
        for _ in range(3):
            self.execute(function)
            (worker,) = [each for each in self.workers(function) if each["state"] == "ready"]
            kill(worker["id"])
            # A call that was sent before its end is noticed may have begun, so it would rightly fail.
            self.ok(200, self.admin.get("/healthz"))
            self.assertEqual("success", self.execute(function)["status"])

    def test_a_detached_worker_ends_what_it_runs(self) -> None:
        function = self.create(SLEEP)
        running = self.busy(function, 1.5)
        self.ok(202, self.admin.post(f"/v1/functions/{function['id']}/detach"))
        self.assertEqual("success", self.execute(function)["status"])
        self.assertEqual("success", running.result()["status"])

    def test_scaling_down_ends_no_execution(self) -> None:
        function = self.create(SLEEP)
        path = f"/v1/functions/{function['id']}"
        self.ok(202, self.admin.post(f"{path}/scale_up", {"count": 2}))
        until(lambda: [w["state"] for w in self.workers(function)] == ["ready"] * 2, "two workers are ready")
        running = [self.call(function, 1.0) for _ in range(6)]
        until(lambda: self.running(function) == 6, "the calls run")
        self.ok(202, self.admin.post(f"{path}/scale_down", {"count": 1}))
        self.assertEqual(["success"] * 6, [each.result()["status"] for each in running])


class IdleTests(ScalingTest):
    options: ClassVar = {
        "scaling": {"idle_timeout": 1.0},
        "engine": {"reap_interval": 0.1, "poll_interval": 0.05},
    }

    def test_idle_workers_go_down_to_none_and_come_back(self) -> None:
        function = self.create(SLEEP)
        self.calls(function, 4, 0.5)
        until(lambda: not self.workers(function), "no worker is left")
        self.assertEqual("success", self.execute(function)["status"])

    def test_a_worker_that_is_used_or_busy_is_not_idle(self) -> None:
        function = self.create(SLEEP)
        running = self.busy(function, 3.0)
        (worker,) = self.workers(function)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            self.execute(function)
        self.assertEqual([worker["id"]], [each["id"] for each in self.workers(function)])
        self.assertEqual("success", running.result()["status"])


class FunctionCapTests(ScalingTest):
    options: ClassVar = {"scaling": {"max_workers_per_function": 1, "concurrency": 1, "queue_limit": 3}}

    def test_at_the_functions_cap_calls_wait(self) -> None:
        function = self.create(SLEEP)
        self.execute(function)
        executions = self.calls(function, 4, 0.2)
        self.assertEqual(["success"] * 4, [each["status"] for each in executions])
        self.assertEqual(1, len(self.workers(function)))

    def test_one_call_more_than_may_wait_ends_as_an_error_at_once(self) -> None:
        function = self.create(SLEEP)
        running = self.busy(function, 2.0)
        stations = self.platform.invocation.router
        waiting = [self.call(function, 0) for _ in range(3)]
        until(
            lambda: any(line.stations.waiting == 3 for line in stations._lines.values()), "three calls wait"
        )
        refused = self.execute(function)
        self.assertEqual(("error", "queue_full"), (refused["status"], refused["reason"]["code"]))
        self.assertFalse(running.done())
        self.assertEqual({"success"}, {each.result()["status"] for each in [running, *waiting]})


class PatienceTests(ScalingTest):
    options: ClassVar = {
        "scaling": {"max_workers_per_project": 1, "concurrency": 1, "queue_timeout": 0.5, "queue_limit": 1}
    }

    def warm(self, function: dict[str, Any]) -> None:
        """Start a worker without a call, which would not wait long enough for it on a busy machine."""
        self.ok(202, self.admin.post(f"/v1/functions/{function['id']}/scale_up", json={"count": 1}))
        until(lambda: [each["state"] for each in self.workers(function)] == ["ready"], "a worker is ready")

    def test_a_call_that_waited_too_long_ends_as_an_error(self) -> None:
        function = self.create(SLEEP)
        self.warm(function)
        running = self.busy(function, 2.0)
        late = self.execute(function)
        self.assertEqual(("error", "queue_timeout"), (late["status"], late["reason"]["code"]))
        # The place in the line is free again.
        late = self.execute(function)
        self.assertEqual(("error", "queue_timeout"), (late["status"], late["reason"]["code"]))
        self.assertEqual("success", running.result()["status"])

    def test_a_call_that_no_cap_leaves_a_worker_ends_as_an_error_that_names_the_cap(self) -> None:
        one, two = self.create(SLEEP), self.create(SLEEP)
        self.warm(one)
        running = self.busy(one, 2.0)
        late = self.execute(two)
        self.assertEqual(("error", "no_capacity"), (late["status"], late["reason"]["code"]))
        self.assertIn("cap of 1 workers", late["reason"]["message"])
        self.assertEqual("success", running.result()["status"])


class HostCapTests(ScalingTest):
    options: ClassVar = {"scaling": {"max_workers": 1, "concurrency": 1}}

    def test_the_idle_worker_of_another_function_gives_way(self) -> None:
        functions = [self.create(SLEEP) for _ in range(2)]
        for _ in range(2):
            for function in functions:
                self.assertEqual("success", self.execute(function)["status"])
                self.assertEqual(1, len([w for w in self.workers(function) if w["state"] == "ready"]))

    def test_where_none_is_idle_calls_wait_until_one_is(self) -> None:
        one, two = self.create(SLEEP), self.create(SLEEP)
        running = self.busy(one, 1.0)
        self.assertEqual("success", self.execute(two)["status"])
        self.assertEqual("success", running.result()["status"])


class LeastRecentlyUsedTests(ScalingTest):
    options: ClassVar = {
        "scaling": {"max_workers": 2},
        "engine": {"reap_interval": 0.1, "poll_interval": 0.05},
    }

    def test_the_one_that_was_not_used_for_longest_gives_way(self) -> None:
        old, new, third = (self.create(SLEEP) for _ in range(3))
        self.execute(new)
        self.execute(old)
        # Use is noted in rounds, so that what happened within one is of one moment.
        until(lambda: self.execute(new) and self._used(new) > self._used(old), "the later use is noted")
        self.execute(third)
        self.assertEqual([0, 1, 1], [len(self.workers(each)) for each in (old, new, third)])

    def _used(self, function: dict[str, Any]) -> int:
        with self.platform.services.db.read() as connection:
            query = "SELECT max(used_at) FROM workers WHERE function_id = ? AND state = 'ready'"
            return int(connection.exec_driver_sql(query, (function["id"],)).scalar() or 0)


def kill(worker_id: str) -> None:
    """Kill the process that listens for a worker: the one that holds its socket, found by its inode."""
    table = pathlib.Path("/proc/net/unix").read_text()
    inodes = re.findall(rf"\s(\d+) \S*{worker_id}\S*$", table, re.MULTILINE)
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(path) in wanted and int(path.parts[2]) != os.getpid():
                found.append(int(path.parts[2]))
    assert found, f"nobody listens for worker {worker_id}"
    for pid in set(found):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(processes.start_time(pid) for pid in found), "it has ended")
