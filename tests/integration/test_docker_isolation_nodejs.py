"""Hostile functions in containers of Node.js: what holds for Python holds for them, but for their own worker.

An init is the first process, and the worker has the user of its functions: they can end it, and themselves.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

from funcplat.drivers import base
from tests import docker_engine
from tests.integration import test_docker_isolation

HOSTILE = pathlib.Path(__file__).with_name("hostile.js")


class NodeHostileTest(test_docker_isolation.HostileTest):
    memory = 128 * test_docker_isolation.MIB
    pids = 100

    def find_image(self) -> str:
        return docker_engine.node_image(self.url)

    def write_code(self) -> None:
        super().write_code()
        (self.code / "main.js").write_text(HOSTILE.read_text())

    def ended_by(self, action: str, **arguments: Any) -> str:
        """What is told of a worker whose function ends it."""
        handle = self.start()
        with self.loaded(handle) as client:
            client.send_invoke({"action": action, **arguments})
            self.assertRaises((EOFError, ConnectionError), client.receive)
        return self.detail_of(handle)

    def detail_of(self, handle: base.Handle) -> str:
        end = time.monotonic() + test_docker_isolation.PATIENCE
        while (state := self.state_of(handle)).running:
            self.assertLess(time.monotonic(), end, "the container goes on without its worker")
            time.sleep(0.05)
        return state.detail

    def state_of(self, handle: base.Handle) -> base.WorkerState:
        states = self.driver.list_workers(test_docker_isolation.PATIENCE)
        return next(state for state in states if state.worker_id == handle.worker_id)


class NodeReachTest(NodeHostileTest, test_docker_isolation.ReachTest):
    def test_an_operator_may_give_a_runtime_a_network(self) -> None:
        made = self.make_driver(networks=["*nobody*=none", "*nodejs*=bridge"])
        with self.loaded(self.start(made)) as client:
            results = client.invoke({"action": "network", "port": 9, "abstract": "nobody"}).output
        self.assertIn("eth0", results["interfaces"])

    def test_the_environment_holds_nothing_of_the_platform(self) -> None:
        self.assertEqual(
            {"PATH", "HOME", "LANG", "TMPDIR", "FUNCPLAT_HANDLER"}, set(self.attack("environment"))
        )

    def test_only_processes_of_the_worker_can_be_seen(self) -> None:
        pids = self.attack("pids")
        self.assertIn(1, pids)
        self.assertLess(len(pids), 12)


class NodePrivilegeTest(NodeHostileTest, test_docker_isolation.PrivilegeTest):
    def test_the_supervisor_cannot_be_looked_into(self) -> None:
        """It can, by what has its user: in it is nothing of the platform's but the function's secret."""
        results = self.attack("peek_at_node")
        self.assertEqual("EPERM", results["setuid"], results)

    def test_the_supervisor_cannot_be_ended(self) -> None:
        """It can, and with it ends everything in its container, which is told."""
        self.assertIn("it exited with code", self.ended_by("end_supervisor"))

    def test_killing_everything_kills_the_function_alone(self) -> None:
        """It kills the worker too, which is all that there is."""
        self.assertNotEqual("", self.ended_by("kill_all"))


class NodeDiskTest(NodeHostileTest, test_docker_isolation.DiskTest):
    def test_the_log_of_the_container_cannot_be_written_to(self) -> None:
        """It can, by what has the user of the first process; so it is the Engine that bounds it."""
        self.attack("say", size=1)
        with docker_engine.client(self.url) as engine:
            found = engine.inspect_container(self.start().data["container"])
        self.assertEqual({"max-size": "256k", "max-file": "1"}, found["HostConfig"]["LogConfig"]["Config"])


class NodeLimitTest(NodeHostileTest, test_docker_isolation.LimitTest):
    def test_the_init_buries_what_functions_leave_behind(self) -> None:
        with self.attacked() as client:
            for _ in range(3):
                client.invoke({"action": "daemonize"})
            end = time.monotonic() + test_docker_isolation.PATIENCE
            while (found := client.invoke({"action": "init"}).output)["zombies"]:
                self.assertLess(time.monotonic(), end, found)
        self.assertIn("init", found["command"])
