"""Hostile functions in real workers of the process driver: what holds for Python holds for Node.js."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from typing import Any

from funcplat import errors
from funcplat.drivers import base
from funcplat.testing import workerclient
from tests.integration import isolation_server, nodejs_harness, test_isolation

ROOT = test_isolation.ROOT
CAPABILITIES = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
SUPERVISOR = f"{0b11101011:016x}"
"""What no exec of a worker's processes exceeds, and `no_new_privs` keeps functions from having."""


def node() -> str | None:
    if not pathlib.Path("/usr/bin/python3").exists():
        return None  # hostile.js needs one that functions see
    return nodejs_harness.node()


class NodeTestCase(test_isolation.IsolationTestCase):
    """`IsolationTestCase` for workers of Node.js."""

    worker: dict[str, Any] = isolation_server.NODE_WORKER

    def setUp(self) -> None:
        found = node()
        if found is None:
            self.skipTest("needs node and /usr/bin/python3")
        self.options = {"images": [f"*={found}"]} | self.options
        self.server_options = (f"node={found}",)
        super().setUp()


class NodeSecretsTest(NodeTestCase, test_isolation.SecretsTest):
    def test_the_environment_holds_nothing_of_the_platform(self) -> None:
        environment = self.attack("environment")
        self.assertEqual({"PATH", "HOME", "LANG", "TMPDIR", "FUNCPLAT_HANDLER"}, set(environment))
        self.assertNotIn(self.canary, json.dumps(environment))

    def test_a_function_holds_no_descriptor_of_the_platform(self) -> None:
        found = set(self.attack("descriptors").values()) - {f"/proc/{os.getpid()}/fd", "ENOENT"}
        # Its output, the channel to its supervisor, and what Node.js has for itself.
        mine = {"/dev/null", "pipe", "socket", "anon_inode"}
        self.assertLessEqual({kind for kind in found if not kind.startswith("/proc/")}, mine)

    def test_of_the_platform_there_are_the_workers_own_scripts_alone(self) -> None:
        found = self.attack("list", path="/worker")
        self.assertEqual(["frames.js", "handler", "package.json", "supervisor", "worker.js"], found)
        package = pathlib.Path(errors.__file__).parent
        results = self.attack("reach", paths=[str(package), str(package.parent / "setup.cfg")])
        self.assertEqual([["ENOENT"] * 2] * 2, list(results.values()))

    def test_a_server_that_keeps_its_files_to_itself_does_not_keep_the_system_from_functions(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        other = test_isolation.make_driver(self.state_dir, self.owner, **self.options)
        self.addCleanup(other.close)
        with test_isolation.loaded(other.start_worker(self.spec(), test_isolation.PATIENCE)) as client:
            self.assertIn("passwd", client.invoke({"action": "list", "path": "/etc"}).output)
            self.assertIn("null", client.invoke({"action": "list", "path": "/dev"}).output)


class NodeNetworkTest(NodeTestCase, test_isolation.NetworkTest):
    pass


class NodePrivilegeTest(NodeTestCase, test_isolation.PrivilegeTest):
    def test_a_function_is_an_ordinary_user_without_capabilities(self) -> None:
        identity = self.attack("identity")
        self.assertEqual([1000] * 6, identity["ids"])
        self.assertEqual(("1", "2"), (identity["NoNewPrivs"], identity["Seccomp"]))
        held = {name: identity[name] for name in CAPABILITIES}
        self.assertIn(held.pop("CapBnd"), ("0" * 16, SUPERVISOR))
        self.assertEqual({"0" * 16}, set(held.values()))

    def test_the_supervisor_behind_the_init_cannot_be_looked_into_either(self) -> None:
        if not ROOT:
            self.skipTest("needs root: an ordinary user has no second one for functions")
        results = self.attack("peek_at_node")
        self.assertEqual({"EACCES", "EPERM"}, set(results.values()), results)
        self.assertEqual("EPERM", results["signal"])


class NodeLimitTest(NodeTestCase, test_isolation.LimitTest):
    def test_a_heap_that_grows_without_end_is_contained(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "eat_heap"}, 60.0)
            self.assertEqual(("failed", "memory_exceeded"), (execution.status, execution.reason))

    def test_the_least_memory_is_enough_for_one_call_at_a_time(self) -> None:
        with self.attacked(memory=32 * test_isolation.MIB) as client:
            for value in range(10):
                self.assertEqual(value, client.invoke({"action": "echo", "value": value}).output)

    def test_a_call_that_computes_for_ever_ends_at_its_timeout(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "spin"}, 0.5)
            self.assertEqual(("failed", "timeout"), (execution.status, execution.reason))


class NodeLeftoverTest(NodeTestCase, test_isolation.LeftoverTest):
    """Nothing stays behind, however a worker of Node.js or its server ends."""

    def test_what_functions_leave_behind_is_buried(self) -> None:
        with self.attacked() as client:
            for _ in range(3):
                self.assertEqual(3, client.invoke({"action": "daemonize"}).output)
            self.assertTrue(test_isolation.wait_until(lambda: self._init(client)["zombies"] == 0))
            self.assertEqual("funcplat-worker", self._init(client)["command"])

    def _init(self, client: workerclient.WorkerClient) -> Any:
        return client.invoke({"action": "init"}).output

    def test_a_worker_whose_node_is_killed_is_cleared_away(self) -> None:
        handle = self.start()
        self._daemonize(handle)
        family = test_isolation.descendants(handle.data["pid"])
        os.kill(min(family), signal.SIGKILL)
        self.assertTrue(test_isolation.wait_until(lambda: not list(self.driver.list_workers(1.0))))
        self.assertFalse([pid for pid in family if test_isolation.alive(pid)])
        self.assertTrue(test_isolation.wait_until(lambda: not self.traces()["sockets and files"]))

    def test_a_busy_worker_ends_at_once_when_it_is_asked_to(self) -> None:
        handle = self.start()
        with test_isolation.loaded(handle) as client:
            client.send_invoke({"action": "spin"}, 60.0)
            self.assertTrue(test_isolation.wait_until(lambda: self._busy(handle) == 1))
            self.driver.stop_worker(handle, 20.0, 10.0)
        self.assertFalse(test_isolation.alive(handle.data["pid"]))


class NodeWithoutNamespacesTest(NodeTestCase):
    """Where no namespace ends what a worker has started."""

    options = {"namespaces": False}  # noqa: RUF012

    def family(self) -> tuple[base.Handle, set[int]]:
        """A worker that computes, and has left processes behind; and all that is below it."""
        handle = self.start()
        with test_isolation.loaded(handle) as client:
            client.invoke({"action": "daemonize"})
            client.send_invoke({"action": "spin"}, 3600.0)
            self.assertTrue(test_isolation.wait_until(lambda: len(self._below(handle)) >= 8))
        return handle, {handle.data["pid"], *self._below(handle)}

    def _below(self, handle: base.Handle) -> set[int]:
        return test_isolation.descendants(handle.data["pid"])

    def expect_gone(self, family: set[int]) -> None:
        gone = test_isolation.wait_until(lambda: not any(test_isolation.alive(pid) for pid in family))
        self.assertTrue(gone, [pid for pid in family if test_isolation.alive(pid)])

    def test_nothing_of_a_stopped_worker_is_left(self) -> None:
        handle, family = self.family()
        self.driver.stop_worker(handle, 0.0, 10.0)
        self.expect_gone(family)

    def test_nothing_is_left_when_the_zygote_is_killed(self) -> None:
        handle, family = self.family()
        os.kill(int(handle.data["name"].partition("-")[0]), signal.SIGKILL)
        self.expect_gone(family)


class NodeLesserModeTest(test_isolation.LesserModeTest):
    """What a machine without root, or without namespaces of some kind, still has."""

    def setUp(self) -> None:
        found = node()
        if found is None:
            self.skipTest("needs node and /usr/bin/python3")
        self.options = {"node": found}
        super().setUp()

    def test_root_without_user_namespaces_has_all_others(self) -> None:
        if not ROOT:
            self.skipTest("needs root")
        outcome = self.scenario(None, mode="ids")
        self.assertEqual(("enforced", "enforced"), (outcome["features"]["user"], outcome["features"]["pids"]))
        self.assertGreaterEqual(min(outcome["identity"]["ids"]), 200001)
        self.assertEqual("0" * 16, outcome["identity"]["CapEff"])
        self.assertEqual("0" * 16, outcome["identity"]["CapPrm"])
        self.assertEqual({"EPERM"}, set(outcome["denied"].values()))
        self.assertLessEqual(set(outcome["supervisor"].values()), {"EACCES", "EPERM"}, outcome["supervisor"])
