"""Servers of tests end with whoever started them, and nothing else does."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import fixtures
import testtools

from tests import environments
from tests.services import processes

SLEEP = ("sleep", "600")
STARTS_A_SERVER = """
    import sys, time
    from tests.services import processes, session

    own = session.Session()
    server = processes.spawn(own.directory / "registry", "server", ["sleep", "600"])
    print(own.directory, server.pid, own.keeper.pid, flush=True)
    time.sleep(600)
"""


class ProcessTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        process = processes.spawn(self.directory, "server", argv)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_recorded_process_is_stopped(self) -> None:
        process = self.spawn(*SLEEP)
        processes.stop(self.directory, "server")
        self.assertEqual(-15, process.wait(10))

    def test_second_stop_is_a_no_op(self) -> None:
        self.spawn(*SLEEP)
        processes.stop(self.directory, "server")
        processes.stop(self.directory, "server")

    def test_process_that_ignores_its_signal_is_killed(self) -> None:
        process = self.spawn("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
        log = processes.log_path(self.directory, "server")
        processes.wait_ready(self.directory, "server", process, lambda: "ready" in log.read_text())
        processes.stop(self.directory, "server", grace=0.3)
        self.assertEqual(-9, process.wait(10))

    def test_process_with_another_start_time_is_left_alone(self) -> None:
        process = self.spawn(*SLEEP)
        record = self.directory / "pids" / "server.json"
        entry = json.loads(record.read_text())
        record.write_text(json.dumps({**entry, "start": entry["start"] - 1}))
        processes.stop(self.directory, "server")
        self.assertIsNone(process.poll())

    def test_process_that_dies_is_told_at_once_with_its_log(self) -> None:
        process = self.spawn("sh", "-c", "echo no such disk; exit 3")
        error = self.assertRaises(
            processes.StartError, processes.wait_ready, self.directory, "server", process, lambda: False
        )
        self.assertIn("ended with 3", str(error))
        self.assertIn("no such disk", str(error))

    def test_process_that_is_never_ready_is_told_at_the_deadline(self) -> None:
        process = self.spawn(*SLEEP)
        error = self.assertRaises(
            processes.StartError, processes.wait_ready, self.directory, "server", process, lambda: False, 0.1
        )
        self.assertIn("not ready after 0.1 s", str(error))

    def test_ports_are_different(self) -> None:
        ports = [processes.free_port() for _ in range(50)]
        self.assertEqual(50, len(set(ports)))


class KeeperTests(testtools.TestCase):
    def test_killed_starter_leaves_nothing(self) -> None:
        starter = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(STARTS_A_SERVER)],
            cwd=environments.ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(starter.wait)
        self.addCleanup(starter.kill)
        assert starter.stdout is not None
        self.addCleanup(starter.stdout.close)
        line = starter.stdout.readline().split()
        directory, server, keeper = pathlib.Path(line[0]), *(os.pidfd_open(int(pid)) for pid in line[1:])
        self.addCleanup(os.close, server)
        self.addCleanup(os.close, keeper)

        starter.kill()

        self.assertTrue(processes.ended(server, 20))
        self.assertTrue(processes.ended(keeper, 20))
        self.assertFalse(directory.exists())
