"""Executions that fail, and imports that do, as tests."""

from __future__ import annotations

import time
from typing import ClassVar

from funcplat.testing import workerclient
from funcplat.testing.worker_case import WorkerCase
from funcplat.testing.worker_invoke import ODD_TEXT

ENDED = "Function execution failed because of too much resource consumption"
"""What clients of the API know as the result of every process that ended, whatever it ended of."""


class FailureTests(WorkerCase):
    """Executions that end otherwise than by a result."""

    def test_an_exception_is_the_result_and_its_trace_is_in_the_log(self) -> None:
        client = self.loaded()
        for number in (1, 2):
            execution = self.act(client, ["write", "before\n"], ["count"], ["fail", f"bad thing {number}"])
            self.assert_failed(execution, "function_raised", f"bad thing {number}")
            self.assertIn(f"bad thing {number}", execution.message)
            before, _, trace = execution.log.decode().partition("\n")
            self.assertEqual("before", before)
            self.assertIn(f"bad thing {number}", trace)
            self.assertIn(self.module, trace)
        self.assertEqual(3, self.value(client, ["count"]), "the handler stays")

    def test_texts_with_any_character_are_told(self) -> None:
        client = self.loaded()
        execution = self.act(client, ["fail", ODD_TEXT])
        self.assert_failed(execution, "function_raised", ODD_TEXT)
        self.assertIn("x-status: success\r\n", execution.message)
        self.assert_serves(client)

    def test_a_text_of_any_length_is_cut(self) -> None:
        client = self.loaded(max_log=1000, max_result=10)
        for character in ("x", "\u20ac", "\U0001f600", "\ud800", "\0"):
            execution = self.act(client, ["fail", character * 1_000_000])
            self.assert_failed(execution, "function_raised")
            self.assertGreater(len(execution.output), 1000, "a text that is of use")
        self.assertEqual(1, self.value(client, ["count"]))

    def test_an_exit_ends_the_process_with_its_code(self) -> None:
        client = self.loaded()
        for code in (3, 0):
            execution = self.act(client, ["write", "bye"], ["exit", code])
            self.assert_failed(execution, "function_exited", ENDED)
            self.assertIn(f"code {code}", execution.message)
            self.assertEqual(b"bye", execution.log)
        self.assertEqual(1, self.value(client, ["count"]))

    def test_a_crash_is_named_by_its_signal(self) -> None:
        client = self.loaded()
        for number in (11, 6, 9, 15):
            execution = self.act(client, ["write", "text\n"], ["kill", number], ["sleep", 60])
            self.assert_failed(execution, "function_crashed", ENDED)
            self.assertIn(f"signal {number}", execution.message)
            self.assertEqual(b"text\n", execution.log)
        self.assertEqual(1, self.value(client, ["count"]))

    def test_a_full_disk_is_named(self) -> None:
        client = self.loaded()
        execution = self.act(client, ["save", "/dev/full", "x"])
        self.assert_failed(execution, "disk_full")
        self.assertIn("o space left on device", execution.output)
        self.assert_serves(client)

    def test_a_failure_with_a_long_log_keeps_its_reason(self) -> None:
        client = self.loaded(max_log=10)
        execution = self.act(client, ["write", "x" * 30 + "\n"], ["fail", "bad"])
        self.assert_failed(execution, "function_raised", "bad")
        self.assertEqual(b"x" * 10, execution.log)
        self.assertGreater(execution.dropped, 20)


class ImportTests(WorkerCase):
    """Importing the entry's module."""

    ONCE: ClassVar[list[str]] = ["run", "sh", "-c", "mv armed seen 2>/dev/null || ! touch armed"]

    def test_what_an_import_writes_belongs_to_the_first_execution(self) -> None:
        client = self.loaded(["write", "import\n"])
        logs = [self.act(client, ["write", "call\n"]).log for _ in range(2)]
        self.assertEqual([b"import\ncall\n", b"call\n"], logs)

    def test_an_import_that_fails_is_told_to_the_call_that_waits_and_tried_again(self) -> None:
        self._assert_told_and_tried_again(["spin", 0.5])

    def test_an_import_that_failed_is_told_to_the_next_call_and_tried_again(self) -> None:
        self._assert_told_and_tried_again(pause=1.5)

    def _assert_told_and_tried_again(self, *steps: list[object], pause: float = 0.0) -> None:
        client = self.loaded(*steps, ["write", "importing\n"], self.ONCE)
        time.sleep(pause)  # nobody tells that the import is over
        execution = self.act(client, ["value", "at last"])
        self.assert_failed(execution, "import_failed")
        self.assertTrue(execution.log.startswith(b"importing\n"), execution)
        self.assertGreater(len(execution.log), len(b"importing\n"), "the trace")
        self.assertEqual("at last", self.value(client, ["value", "at last"]))

    def test_an_import_that_throws_has_its_text(self) -> None:
        client = self.loaded(["fail", "bad import"])
        for _ in range(2):
            execution = self.act(client)
            self.assert_failed(execution, "import_failed", "bad import")
            self.assertIn(b"bad import", execution.log)

    def test_a_syntax_error_is_an_import_that_failed(self) -> None:
        client = self.start()
        client.load(workerclient.package({self.module: "(] {"}))
        execution = self.act(client)
        self.assert_failed(execution, "import_failed")
        self.assertIn(self.module.encode(), execution.log)

    def test_a_missing_module_is_named_with_what_the_package_holds(self) -> None:
        execution = self.act(self.loaded(entry="missing.main"))
        self.assert_failed(execution, "entry_not_found")
        self.assertIn("missing", execution.message.replace("missing.main", ""))
        for entry in ("lib.missing.main", "../main.main", "/main.main", "a..b.main"):
            client = self.start()
            self.assertEqual(200, client.load(self.package(), entry=entry).status)
            execution = self.act(client)
            self.assert_failed(execution, "entry_not_found")
            self.assertIn(self.module, execution.message)

    def test_a_missing_function_is_named_with_what_the_module_has(self) -> None:
        client = self.loaded(entry="main.missing")
        execution = self.act(client)
        self.assert_failed(execution, "entry_not_found")
        self.assertIn("missing", execution.message)
        self.assertIn("main", execution.message.replace("main.missing", ""))

    def test_an_import_that_takes_too_long_is_killed(self) -> None:
        client = self.loaded(["write", "zzz\n"], ["spin", 60], import_timeout=0.5)
        execution = self.act(client, timeout=0.05)
        self.assert_failed(execution, "import_timeout")
        self.assertEqual(b"zzz\n", execution.log)

    def test_an_exit_during_the_import_says_so(self) -> None:
        execution = self.act(self.loaded(["write", "bye"], ["exit", 4]))
        self.assert_failed(execution, "function_exited", ENDED)
        self.assertIn("import", execution.message)
        self.assertIn("code 4", execution.message)
        self.assertEqual(b"bye", execution.log)

    def test_a_crash_during_the_import_says_so(self) -> None:
        execution = self.act(self.loaded(["kill", 11], ["spin", 60]))
        self.assert_failed(execution, "function_crashed", ENDED)
        self.assertIn("import", execution.message)
        self.assertIn("signal 11", execution.message)
