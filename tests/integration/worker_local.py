"""What the platform's own workers do as processes of a machine, beyond their contract, as tests."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import ClassVar

from funcplat.drivers.base import Address
from funcplat.testing.worker_failures import ENDED
from funcplat.testing.workerclient import SECRET, Answer, WorkerClient
from tests.integration import worker_harness

BEYOND = 60.0
"""Seconds that are longer than any test."""


class LocalTests(worker_harness.LocalWorker):
    """For a worker that a driver starts."""

    peak: ClassVar[int]
    """Bytes of memory that a supervisor takes at most, whatever its functions write."""

    # -- cancellation ---------------------------------------------------------------------------------

    def cancel(self, client: WorkerClient, execution: str, secret: str = SECRET) -> Answer:
        return client.ask("POST", f"/cancel?execution={execution}", x_secret=secret)

    def cancelled(self, client: WorkerClient, execution: str) -> bool:
        answer = self.cancel(client, execution)
        self.assertEqual(200, answer.status)
        return bool(json.loads(answer.body)["cancelled"])

    def test_a_running_execution_can_be_cancelled_with_all_that_it_started(self) -> None:
        client = self.loaded()
        other = self.begin(client, ["run", "sh", "-c", "echo $$; sleep 100"], execution="e9")
        self.wait_for(lambda: other.log("execution=e9").body.endswith(b"\n"), "output")
        child = int(other.log("execution=e9").body)
        self.assertEqual(403, self.cancel(other, "e9", "wrong").status)
        self.assertFalse(self.cancelled(other, "e8"))
        self.assertTrue(self.cancelled(other, "e9"))
        ended = client.receive_execution()
        self.assertEqual(("failed", "cancelled"), ended.outcome)
        self.assertEqual(b"%d\n" % child, ended.log)
        self.wait_for(lambda: not pathlib.Path(f"/proc/{child}").exists(), "the child's end")
        self.assertFalse(self.cancelled(other, "e9"))
        self.assertEqual(400, other.ask("POST", "/cancel?nothing", x_secret=SECRET).status)
        self.assert_serves(client)

    def test_a_call_that_waits_for_the_import_can_be_cancelled(self) -> None:
        client = self.loaded(["spin", 1.0])
        other = self.begin(client, ["value", 1], execution="waits")
        self.wait_for(lambda: self.cancelled(other, "waits"), "the cancellation")
        self.assertEqual("cancelled", client.receive_execution().reason)
        self.assert_serves(client)

    # -- ends ---------------------------------------------------------------------------------------

    def test_sigterm_kills_everything_and_exits_with_0(self) -> None:
        self._assert_ends(lambda: self.process.send_signal(signal.SIGTERM))

    def test_the_end_of_the_lifeline_is_the_workers_end(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.lifeline = reader
        self._assert_ends(lambda: os.close(writer))

    def _assert_ends(self, end: Callable[[], None]) -> None:
        client = self.loaded()
        self.begin(client, ["spawn", "setsid", "sleep", "61.5"], ["save", "up", ""], ["sleep", BEYOND])
        self.wait_for((self.scratch / "up").exists, "the function")
        (handler,) = self.handlers()
        (sleeper,) = worker_harness.children(handler)
        end()
        self.assertEqual(0, self.process.wait(self.patience))
        self.assert_dead(handler, sleeper)
        self.assert_cut_off(client)

    def test_handlers_end_with_a_supervisor_that_is_killed(self) -> None:
        for when in ("now", "later"):
            client = self.loaded()
            self.begin(client, ["save", "up", ""], ["sleep", BEYOND])
            if when == "later":
                self.wait_for((self.scratch / "up").exists, "the function")
            (handler,) = self.handlers()
            self.kill_worker()
            self.assert_dead(handler)

    # -- the supervisor's own needs -----------------------------------------------------------------

    def test_an_idle_worker_has_one_handler(self) -> None:
        client = self.loaded()
        for number in range(10):
            self.assertEqual(number, self.value(client, ["value", number]))
        self.assertEqual(1, len(self.handlers()))

    def test_directories_are_those_that_the_worker_was_given(self) -> None:
        client = self.start()
        self.assertEqual(200, client.load(self.package(big=os.urandom(30_000_000))).status)
        where = self.value(client, ["ask", "pwd"]).strip(), self.value(client, ["here"])
        self.assertEqual((str(self.scratch), f"{self.directory}/pushed/code"), where)
        self.assertEqual(["code"], os.listdir(f"{self.directory}/pushed"), "the upload is gone")

    def test_output_that_is_dropped_costs_the_supervisor_neither_memory_nor_much_time(self) -> None:
        client = self.loaded()
        started = time.monotonic()
        execution = self.act(client, ["run", "head", "-c", "100000000", "/dev/zero"], timeout=BEYOND)
        self.assertEqual(100_000_000, len(execution.log) + execution.dropped)
        self.assertLess(time.monotonic() - started, 10)
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        self.assertLess(1024 * int(status.split("VmHWM:")[1].split()[0]), self.peak)

    def test_who_writes_for_ever_does_not_keep_the_supervisor_busy(self) -> None:
        client = self.loaded()
        self.act(client, ["chatter"])
        time.sleep(0.3)
        before = self._cpu_ticks()
        time.sleep(0.5)
        self.assertLessEqual(self._cpu_ticks() - before, 2)

    def _cpu_ticks(self) -> int:
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    # -- what the kernel tells ----------------------------------------------------------------------

    def test_the_kernel_kills_handlers_before_the_supervisor(self) -> None:
        client = self.loaded()
        self.act(client)
        (handler,) = self.handlers()
        scores = [pathlib.Path(f"/proc/{pid}/oom_score_adj") for pid in (handler, self.process.pid, "self")]
        self.assertEqual("1000", scores[0].read_text().strip())
        self.assertEqual(scores[2].read_text(), scores[1].read_text())

    def test_a_kernel_kill_for_memory_ends_every_execution_it_hits_with_that_reason(self) -> None:
        clients = [self.loaded(), self.connect()]
        for number, client in enumerate(clients):
            client.send_invoke({"steps": [["save", f"up{number}", ""], ["sleep", BEYOND]]}, timeout=BEYOND)
        self.wait_for(lambda: len(list(self.scratch.iterdir())) == 2, "both executions")
        time.sleep(0.1)  # so that the worker's last look at the count is old
        self.count("oom_kills", 2)
        for pid in self.handlers():
            os.kill(pid, signal.SIGKILL)
        for client in clients:
            execution = client.receive_execution()
            self.assert_failed(execution, "memory_exceeded", ENDED)
            self.assertIn("memory_size", execution.message)

    def test_an_old_count_of_memory_kills_explains_nothing(self) -> None:
        self.counts["oom_kills"] = 5
        self.assert_failed(self.act(self.loaded(), ["kill", 9], ["sleep", 5]), "function_crashed", ENDED)

    def test_refused_forks_are_the_reason_of_what_fails_by_them(self) -> None:
        client = self.loaded()
        for _ in range(2):
            self.count("pids_hits", 0)
            time.sleep(0.1)
            refuse = ["save", "../pids_hits", self.count_text("pids_hits", 3)]
            execution = self.act(client, refuse, ["fail", "cannot start a thread"])
            self.assert_failed(execution, "pids_exceeded", "cannot start a thread")
            self.assertIn("cannot start a thread", execution.message)

    def test_refused_forks_are_the_reason_of_a_timeout(self) -> None:
        refuse = ["save", "../pids_hits", self.count_text("pids_hits", 3)]
        execution = self.act(self.loaded(), refuse, ["sleep", BEYOND], timeout=0.4)
        self.assert_failed(execution, "pids_exceeded", "Function execution timeout.")
        self.assertIn("ran into its timeout", execution.message)


class CommandLineTests(worker_harness.LocalWorker):
    """For a worker that is a program."""

    def test_it_makes_its_unix_socket_also_in_the_place_of_an_old_one(self) -> None:
        self.make_directory()
        for _ in range(2):
            self._assert_listens(Address(socket=f"{self.directory}/worker"), f"unix:{self.directory}/worker")
            self.kill_worker()
            self.stop_worker(self.address)

    def test_it_listens_on_tcp(self) -> None:
        self.make_directory()
        with socket.create_server(("127.0.0.1", 0)) as free:
            host, port = free.getsockname()
        self._assert_listens(Address(host=host, port=port), f"tcp:{host}:{port}")
        self.stop_worker(self.address)

    def _assert_listens(self, address: Address, option: str) -> None:
        self.address = address
        self.spawn([*self.command(), f"--listen={option}"], address)
        self.wait_for(self._answers, f"a worker at {option}")

    def _answers(self) -> bool:
        try:
            return self.connect().ask("GET", "/ready").status == 200
        except OSError:
            return False

    def test_arguments_that_cannot_be_used_are_said(self) -> None:
        self.make_directory()
        for argument in ("--listen=nonsense", "--listen=tcp:1", "--listen=fd:x", "--concurrency=0", "--what"):
            done = subprocess.run(
                [*self.command(), f"--listen=unix:{self.directory}/x", argument],
                capture_output=True,
                check=False,
                timeout=self.patience,
            )
            self.assertIn(done.returncode, (1, 2), argument)
            self.assertTrue(done.stderr)

    def test_help_names_every_option(self) -> None:
        self.make_directory()
        done = subprocess.run([*self.command(), "--help"], capture_output=True, check=True, text=True)
        for option in ("listen", "concurrency", "code-dir", "scratch"):
            self.assertIn(f"--{option}", done.stdout)
