"""What becomes of executions, said in words."""

from __future__ import annotations

import errno
import json
import pathlib
import re

import testtools

import funcplat.worker
from funcplat import errors
from funcplat.worker import frames, verdicts


class DeathTest(testtools.TestCase):
    def assert_reason(self, reason: str, death: verdicts.Death, *words: str) -> verdicts.Outcome:
        outcome = verdicts.died(death)
        self.assertEqual((False, reason), (outcome.success, outcome.reason))
        for word in words:
            self.assertIn(word, outcome.message)
        return outcome

    def test_a_kernel_kill_for_memory(self) -> None:
        outcome = self.assert_reason(
            "memory_exceeded", verdicts.Death(signal=9, oom_killed=True), "memory_size"
        )
        self.assertEqual(verdicts.RESOURCES_TEXT, json.loads(outcome.result))

    def test_a_crash_while_the_kernel_killed_another_is_a_crash(self) -> None:
        self.assert_reason("function_crashed", verdicts.Death(signal=11, oom_killed=True), "SIGSEGV")

    def test_a_kill_by_somebody(self) -> None:
        self.assert_reason("function_crashed", verdicts.Death(signal=9), "killed by signal 9 (SIGKILL)")

    def test_a_signal_without_a_name(self) -> None:
        self.assert_reason("function_crashed", verdicts.Death(signal=40), "killed by signal 40")

    def test_an_exit(self) -> None:
        outcome = self.assert_reason("function_exited", verdicts.Death(exit_code=3), "exit code 3", "during")
        self.assertEqual(verdicts.RESOURCES_TEXT, json.loads(outcome.result))
        self.assertIn("exit code 3", outcome.message)

    def test_an_exit_while_importing(self) -> None:
        self.assert_reason("function_exited", verdicts.Death(importing=True), "while its module was imported")

    def test_a_death_for_want_of_processes(self) -> None:
        outcome = self.assert_reason(
            "pids_exceeded", verdicts.Death(signal=6, pids_refused=True), "killed by signal 6 (SIGABRT)"
        )
        self.assertEqual(verdicts.RESOURCES_TEXT, json.loads(outcome.result))


class OutcomeTest(testtools.TestCase):
    def test_a_timeout_keeps_the_old_text(self) -> None:
        outcome = verdicts.timed_out(2.5)
        self.assertEqual("Function execution timeout.", json.loads(outcome.result))
        self.assertIn("2.5 seconds", outcome.message)

    def test_refused_processes_explain_an_end_and_keep_its_result(self) -> None:
        outcome = verdicts.with_pids_refused(verdicts.timed_out(2))
        self.assertEqual(("pids_exceeded", verdicts.timed_out(2).result), (outcome.reason, outcome.result))
        self.assertIn("timeout of 2 seconds", outcome.message)

    def test_a_kill_of_a_child_explains_an_end_and_keeps_its_result(self) -> None:
        end = verdicts.Outcome(False, b'"x"', "function_raised", "The function raised X.")
        outcome = verdicts.with_oom_kill(end)
        self.assertEqual(("memory_exceeded", b'"x"'), (outcome.reason, outcome.result))
        self.assertIn("The function raised X.", outcome.message)

    def test_a_refused_fork_of_a_handler_is_the_process_limit(self) -> None:
        refused = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.assertEqual("pids_exceeded", verdicts.not_started(refused, False).reason)
        short = OSError(errno.ENOMEM, "Cannot allocate memory")
        self.assertEqual("pids_exceeded", verdicts.not_started(short, True).reason)
        self.assertEqual("platform_error", verdicts.not_started(short, False).reason)

    def test_left_processes_are_a_greater_matter_than_a_cut_log(self) -> None:
        self.assertEqual("processes_killed", verdicts.remark(True, 5, 100)[0])
        reason, message = verdicts.remark(False, 5, 100)
        self.assertEqual("log_truncated", reason)
        self.assertIn("first 100 bytes", message)
        self.assertEqual(("", ""), verdicts.remark(False, 0, 100))


class ReasonTest(testtools.TestCase):
    def test_every_reason_of_a_worker_is_one_of_the_platform(self) -> None:
        known = {code.value for code in errors.ReasonCode}
        self.assertEqual(set(), set(frames.REASONS) - known - {""})
        source = pathlib.Path(funcplat.worker.__file__).with_name("verdicts.py").read_text()
        used = set(re.findall(r'"([a-z]+_[a-z_]+|timeout)",?$', source, re.MULTILINE))
        self.assertTrue({"timeout", "function_crashed", "import_timeout"} <= used)
        self.assertEqual(set(), used - known)
