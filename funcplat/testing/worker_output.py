"""What functions write, as tests: the log of an execution, and ``/log``."""

from __future__ import annotations

import time

from funcplat.testing.worker_case import WorkerCase


class OutputTests(WorkerCase):
    """The log that comes with an execution's answer."""

    def test_both_streams_and_children_are_captured_in_order(self) -> None:
        client = self.loaded()
        execution = self.act(
            client,
            ["write", "one\n"],
            ["complain", "two\n"],
            ["run", "sh", "-c", "echo three; echo four >&2"],
            ["write", "five\n"],
            ["complain", "six\n"],
            ["write", "seven"],
        )
        self.assertEqual(b"one\ntwo\nthree\nfour\nfive\nsix\nseven", execution.log)

    def test_output_is_bytes(self) -> None:
        execution = self.act(self.loaded(), ["write_bytes", bytes(range(256)).hex()])
        self.assertEqual(bytes(range(256)), execution.log)

    def test_output_beyond_the_cap_is_counted_and_dropped(self) -> None:
        client = self.loaded(max_log=1000)
        execution = self.act(client, ["write", "x" * 1000])
        self.assertEqual((None, 0, 1000), (execution.reason, execution.dropped, len(execution.log)))
        for _ in range(2):
            execution = self.act(client, ["write", "x" * 1001], ["value", 5])
            self.assertEqual(("success", "log_truncated"), execution.outcome)
            self.assertEqual((5, 1, b"x" * 1000), (execution.output, execution.dropped, execution.log))

    def test_a_cap_of_nothing_keeps_nothing(self) -> None:
        client = self.loaded(max_log=0)
        execution = self.act(client, ["write", "x\n"])
        self.assertEqual((b"", 2, "log_truncated"), (execution.log, execution.dropped, execution.reason))
        self.assert_serves(client)

    def test_a_hundred_megabytes_are_counted(self) -> None:
        client = self.loaded()
        line = "x" * 999_999 + "\n"
        execution = self.act(client, *[["write", line]] * 10, timeout=120)
        self.assertEqual((1 << 20, 10_000_000), (len(execution.log), len(execution.log) + execution.dropped))
        program = "head -c 100000000 /dev/zero"
        execution = self.act(client, ["run", "sh", "-c", program], timeout=120)
        self.assertEqual(100_000_000, len(execution.log) + execution.dropped)
        self.assertEqual(bytes(1 << 20), execution.log)
        self.assert_serves(client)

    def test_many_lines_are_complete(self) -> None:
        client = self.loaded()
        for _ in range(2):
            execution = self.act(client, *(["write", f"{number}\n"] for number in range(50_000)), timeout=60)
            self.assertEqual(list(range(50_000)), [int(line) for line in execution.log.split()])
            self.assertLess(execution.duration, 10)

    def test_more_than_a_pipe_holds_between_two_looks_is_complete(self) -> None:
        client = self.loaded(max_log=2_000_000)
        for _ in range(3):
            execution = self.act(client, ["write", "x" * 1_500_000])
            self.assertEqual((1_500_000, 0), (len(execution.log), execution.dropped))

    def test_output_after_the_return_is_dropped(self) -> None:
        client = self.loaded()
        late = [["later", delay, "late" * 1000 + "\n"] for delay in (0.1, 0.2, 0.4)]
        self.assertEqual(b"in time\n", self.act(client, *late, ["write", "in time\n"]).log)
        time.sleep(0.8)  # nobody tells of them
        self.assertEqual(b"in time\n", self.act(client, ["write", "in time\n"]).log)

    def test_who_writes_for_ever_holds_nobody_up(self) -> None:
        client = self.loaded()
        self.act(client, ["chatter"])
        for number in range(5):
            execution = self.act(client, ["value", number])
            self.assertEqual(number, execution.output)
            self.assertIn(execution.outcome, (("success", None), ("success", "log_truncated")))
        self.assert_serves(client)

    def test_a_child_that_keeps_the_output_does_not_delay_the_answer(self) -> None:
        client = self.loaded()
        execution = self.act(
            client, ["spawn", "sh", "-c", "while :; do echo x; done"], ["value", 1], timeout=5
        )
        self.assertEqual(("success", "processes_killed", 1), (*execution.outcome, execution.output))
        self.assert_serves(client)


class LiveLogTests(WorkerCase):
    """``GET /log``."""

    def test_a_running_execution_shows_its_log(self) -> None:
        client = self.loaded()
        wait = ["run", "sh", "-c", "while ! test -e go; do sleep 0.05; done"]
        steps = ["write", "first\n"], wait, ["write", "second\n"]
        other = self.begin(client, *steps, execution="e9")
        self.wait_for(lambda: other.log("execution=e9&offset=0").body == b"first\n", "output")
        self.assertEqual(b"first\n", other.log("execution=e9").body)
        self.assertEqual(b"rst\n", other.log("execution=e9&offset=2").body)
        for offset in (6, 99, 999_999_999_999_999):
            answer = other.log(f"execution=e9&offset={offset}")
            self.assertEqual((200, b""), (answer.status, answer.body))
        self.assertEqual(404, other.log("execution=e8").status)
        self.assertEqual(404, other.log("execution=e").status)
        self.assertEqual(403, other.log("execution=e9", "wrong").status)
        self.value(other, ["save", "go", ""])
        self.assertEqual(b"first\nsecond\n", client.receive_execution().log)
        self.assertEqual(404, other.log("execution=e9").status)

    def test_queries_of_another_form_are_refused(self) -> None:
        client = self.loaded()
        for query in ("", "execution=", "offset=0", "execution=e&offset=", "execution=e&offset=-1", "x=1"):
            self.assertEqual(400, client.log(query).status, query)
        self.assert_serves(client)

    def test_what_was_dropped_is_told_while_it_runs(self) -> None:
        client = self.loaded(max_log=5)
        other = self.begin(client, ["write", "more than 5\n"], ["sleep", 0.7])
        self.wait_for(lambda: other.log("execution=e1").headers.get("x-log-dropped") == "7", "the count")
        self.assertEqual(b"more ", other.log("execution=e1").body)
        self.assertEqual(7, client.receive_execution().dropped)

    def test_a_call_that_waits_for_the_import_shows_what_that_writes(self) -> None:
        client = self.loaded(["write", "importing\n"], ["spin", 1.0])
        other = self.begin(client, ["write", "running\n"], execution="waits")
        self.wait_for(lambda: other.log("execution=waits").body == b"importing\n", "output")
        self.assertEqual(b"importing\nrunning\n", client.receive_execution().log)

    def test_executions_show_their_own_logs(self) -> None:
        client, second = self.loaded(), self.connect()
        self.begin(client, ["write", "one\n"], ["sleep", 0.8], execution="e1")
        other = self.begin(second, ["write", "two\n"], ["sleep", 0.8], execution="e2")
        for name, text in (("e1", b"one\n"), ("e2", b"two\n")):
            self.wait_for(lambda n=name, t=text: other.log(f"execution={n}").body == t, f"the log of {name}")  # type: ignore[misc]
