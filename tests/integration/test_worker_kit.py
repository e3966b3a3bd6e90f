"""The contract of workers against workers that are broken on purpose.

A kit that passes everybody is worth nothing.
"""

from __future__ import annotations

import re
import unittest

import testtools

from funcplat.testing import WorkerCarriedTests, WorkerLimitTests, WorkerTests, worker_functions
from tests import environments
from tests.integration import worker_harness


class KitTest(testtools.TestCase):
    def assert_caught(self, defect: str, *names: str) -> None:
        """A Python worker with a defect fails these tests of the contract."""

        class Subject(WorkerTests, worker_harness.PythonWorker):
            patience = 3.0

        Subject.defect = defect
        result = unittest.TestResult()
        for name in names:
            Subject(f"test_{name}").run(result)
        caught = [test.id().rpartition(".test_")[2] for test, _ in result.failures + result.errors]
        self.assertEqual(sorted(names), sorted(set(caught)))

    def test_a_worker_without_a_defect_passes(self) -> None:
        self.assertRaises(
            testtools.matchers.MismatchError, self.assert_caught, "", "requests_need_the_secret"
        )

    def test_answers_of_another_form_are_caught(self) -> None:
        defect = (
            "from funcplat.worker import http; plain = http.answer; "
            "http.answer = lambda *given: plain(*given).replace(b'content-', b'Content-')"
        )
        self.assert_caught(defect, "readiness_tells_the_state", "requests_need_the_secret")

    def test_requests_of_another_form_are_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import http; http._FORBIDDEN = frozenset()",
            "requests_that_break_the_rules_get_400_and_are_cut_off",
        )

    def test_a_limit_that_is_one_byte_off_is_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import http; http.MAX_INPUT += 1", "a_body_over_the_limit_is_refused_unread"
        )
        self.assert_caught(
            "from funcplat.worker import http; http.MAX_HEAD += 1", "a_head_may_have_8_kib_and_no_more"
        )

    def test_a_door_that_is_open_is_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import service; service._equal = lambda *_: True",
            "requests_need_the_secret",
        )

    def test_a_concurrency_that_is_not_kept_is_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import pool; pool.Pool.occupied = property(lambda self: 0)",
            "one_call_too_many_is_refused_before_any_work",
            "as_many_calls_run_at_once_as_the_concurrency_says",
            "readiness_tells_the_state",
        )

    def test_a_drain_that_drains_nothing_is_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import http, service; "
            "service.Service._drain = lambda self: http.answer(200)",
            "a_draining_worker_ends_what_runs_and_takes_nothing",
        )

    def test_a_package_that_gets_out_is_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import load; load.member_path = lambda name: (name,)",
            "packages_that_are_not_what_they_should_be_are_refused",
        )

    def test_output_of_others_in_a_log_is_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import guest, log; log.Pipe.begin = log.Pipe.begin_before; "
            "guest.CONTACT_SECONDS = 0",
            "output_after_the_return_is_dropped",
        )

    def test_processes_that_stay_are_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import kernel; kernel.reap_children = lambda: False",
            "processes_that_a_function_leaves_behind_are_killed_with_the_handler",
        )

    def test_a_result_that_is_made_to_fit_is_caught(self) -> None:
        self.assert_caught(
            "from funcplat.worker import entry; import json; "
            "entry.encode = lambda result, limit: json.dumps(result, default=str).encode()",
            "a_result_that_is_not_json_is_the_functions_mistake",
            "a_result_over_the_cap_says_both_sizes",
        )


class DocumentTest(testtools.TestCase):
    """The page "Testing a worker" and what it describes."""

    def setUp(self) -> None:
        super().setUp()
        self.page = (environments.ROOT / "docs" / "driver-author" / "worker-tests.rst").read_text()

    def test_every_step_is_documented_in_every_language(self) -> None:
        documented = set(
            re.findall(r"^``(\w+)(?: [^`]+)?`` ", self.page.partition("What else may")[0], re.MULTILINE)
        )
        self.assertIn("write_bytes", documented)
        python = {"exit", *re.findall(r"^def (\w+)", worker_functions.PYTHON, re.MULTILINE)} - {"main"}
        self.assertEqual(documented, python)
        table = worker_functions.NODEJS.partition("const STEPS = {")[2].partition("\n};")[0]
        self.assertEqual(documented, set(re.findall(r"^  (\w+)[:(]", table, re.MULTILINE)))

    def test_every_class_of_tests_is_documented(self) -> None:
        parts = {each for each in WorkerTests.__mro__ if any(name.startswith("test_") for name in vars(each))}
        for each in (*parts, WorkerCarriedTests, WorkerLimitTests):
            self.assertIn(f"``{each.__module__.rpartition('.')[2]}.{each.__name__}``", self.page)
