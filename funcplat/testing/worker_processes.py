"""What a worker owes its functions and itself, whatever processes they start, as tests."""

from __future__ import annotations

from typing import ClassVar

from funcplat.testing.worker_case import WorkerCase
from funcplat.testing.worker_failures import ENDED

DAEMON = ["ask", "setsid", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]
"""A process in a session of its own, whose parent has ended; gives its id, as text."""
STUBBORN = "trap '' TERM HUP INT; sleep 60 & wait"
"""A program with a child, both of which no signal but the last ends."""


class ProcessTests(WorkerCase):
    """Processes that functions start."""

    def test_processes_that_a_function_leaves_behind_are_killed_with_the_handler(self) -> None:
        client = self.loaded()
        for left in (["spawn", "sleep", "60"], ["spawn", "setsid", "sleep", "60"], DAEMON):
            handler = self.value(client, ["pid"])
            execution = self.act(client, left)
            self.assertEqual(("success", "processes_killed"), execution.outcome, execution)
            self.assert_gone(client, int(execution.output), handler)
            self.assertEqual(("success", None), self.act(client).outcome)

    def test_a_failure_that_leaves_a_process_keeps_its_own_reason(self) -> None:
        client = self.loaded()
        execution = self.act(client, ["run", "sh", "-c", "sleep 60 & echo $!"], ["fail", "x"])
        self.assert_failed(execution, "function_raised", "x")
        self.assert_gone(client, int(execution.log.split()[0]))

    def test_a_process_that_has_ended_is_no_matter(self) -> None:
        client = self.loaded()
        first, second = (self.act(client, ["run", "true"], ["pid"]) for _ in range(2))
        self.assertEqual(("success", None, first.output), (*second.outcome, second.output))

    def test_a_timeout_kills_the_whole_tree(self) -> None:
        client = self.loaded()
        echo = f"echo $$ >> pids; {STUBBORN}".replace("wait", "echo $! >> pids; wait")
        spawned = [["spawn", "sh", "-c", echo], ["spawn", "setsid", "sh", "-c", echo]]
        execution = self.act(client, *spawned, ["sleep", 60], timeout=1.0)
        self.assert_failed(execution, "timeout")
        pids = self.value(client, ["ask", "cat", "pids"]).split()
        self.assertEqual(4, len(pids))
        self.assert_gone(client, *map(int, pids))

    def test_processes_of_a_handler_that_died_are_killed(self) -> None:
        client = self.loaded()
        for death in (["exit", 1], ["kill", 9], ["kill", 11]):
            execution = self.act(
                client, ["run", "setsid", "sh", "-c", "sleep 60 & echo $!"], death, ["sleep", 60]
            )
            self.assertEqual("failed", execution.status, execution)
            self.assert_gone(client, int(execution.log.split()[0]))

    def test_processes_of_an_execution_are_left_to_it_while_it_runs(self) -> None:
        client = self.loaded()
        lives = ["run", "sh", "-c", "kill -0 $(cat daemon)"]
        start = ["run", "sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $! > daemon"]
        other = self.begin(client, start, ["sleep", 0.8], lives, ["value", "was there"])
        for _ in range(3):
            self.act(other, ["spawn", "sleep", "60"])
            self.act(other, ["exit", 0])
        execution = client.receive_execution()
        self.assertEqual(("was there", "processes_killed"), (execution.output, execution.reason), execution)

    def test_a_handler_that_is_killed_by_its_sibling_fails_its_execution_alone(self) -> None:
        client = self.loaded()
        tell = ["run", "sh", "-c", "echo $PPID > new; mv new victim"]
        other = self.begin(client, tell, ["sleep", 60])
        self.wait_for(lambda: bool(self.value(other, ["ask", "cat", "victim"])), "the victim")
        self.value(other, ["run", "sh", "-c", "kill -9 $(cat victim)"])
        self.assert_failed(client.receive_execution(), "function_crashed", ENDED)
        self.assert_serves(client)

    def test_handlers_that_die_while_they_are_idle_are_replaced(self) -> None:
        clients = [self.loaded(), self.connect(), self.connect()]
        for client in clients:
            client.send_invoke({"steps": [["sleep", 0.6], ["pid"]]})
        pids = [client.receive_execution().output for client in clients]
        kill = "kill -9 $pid; while grep -q '^State:.[^ZX]' /proc/$pid/status; do sleep 0.01; done"
        others = f"for pid in {' '.join(map(str, pids))}; do test $pid = $PPID || {{ {kill}; }}; done"
        self.act(clients[0], ["run", "sh", "-c", f"{others}; true"])
        for _ in range(2):
            for client in clients:
                client.send_invoke({"steps": [["sleep", 0.2], ["value", 1]]})
            self.assertEqual([1, 1, 1], [client.receive_execution().output for client in clients])


class WorkerLimitTests(WorkerCase):
    """For a worker that runs within limits, as a driver sets them: it survives functions that reach them."""

    memory: ClassVar[int]
    """Bytes that the worker may use."""
    processes: ClassVar[int]
    """Processes and threads that it may have."""

    BOMB: ClassVar[str] = "bomb() { bomb & bomb & wait; }; bomb 2>/dev/null"

    def test_too_much_memory_fails_the_execution_and_not_the_worker(self) -> None:
        client = self.loaded()
        for _ in range(2):
            execution = self.act(client, ["write", "text\n"], ["allocate", 4 * self.memory], timeout=120)
            self.assert_failed(execution, "memory_exceeded", ENDED)
            self.assertIn("memory_size", execution.message)
            self.assertTrue(execution.log.startswith(b"text\n"), execution)
            self.assert_serves(client)

    def test_a_fork_bomb_fails_the_execution_and_not_the_worker(self) -> None:
        client = self.loaded()
        for prefix in ([], ["setsid"]):
            execution = self.act(
                client, ["spawn", *prefix, "sh", "-c", self.BOMB], ["sleep", 60], timeout=1.0
            )
            self.assertIn(execution.reason, ("timeout", "pids_exceeded"), execution)
            self._assert_over()

    def test_a_fork_bomb_that_outlives_its_handler_is_killed(self) -> None:
        client = self.loaded()
        bomb = ["spawn", "setsid", "sh", "-c", self.BOMB]
        execution = self.act(client, bomb, ["sleep", 0.3], ["exit", 5])
        self.assertIn(execution.reason, ("function_exited", "pids_exceeded"), execution)
        self._assert_over()

    def test_a_fork_bomb_that_is_left_behind_is_killed(self) -> None:
        client = self.loaded()
        execution = self.act(client, ["spawn", "setsid", "sh", "-c", self.BOMB], ["value", 1])
        self.assertEqual("success", execution.status, execution)
        self._assert_over()

    def _assert_over(self) -> None:
        """Soon the worker serves as before, and there is room for processes."""
        self.wait_for(self._has_room, "the end of the bomb")

    def _has_room(self) -> bool:
        start = f'while test $i -lt {self.processes // 3}; do sleep 60 & pids="$pids $!"; i=$((i+1)); done'
        # Ended and buried here, so that they are in nobody's way afterwards.
        execution = self.act(self.connect(), ["run", "sh", "-c", f"i=0; {start}; kill $pids; wait"])
        return execution.status == "success"
