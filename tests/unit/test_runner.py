"""What tools/test says of a run is what happened."""

from __future__ import annotations

import contextlib
import io
import pathlib
import sys

import fixtures
import testtools
from subunit import v2

from tests import environments
from tests.runner import arguments, report, stream


def details(text: str) -> dict[str, object]:
    return {"file_name": "traceback", "file_bytes": text.encode(), "mime_type": "text/plain; charset=utf8"}


class StreamTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.bytes = io.BytesIO()
        self.written = v2.StreamResultToBytes(self.bytes)
        self.said = io.StringIO()
        self.enterContext(contextlib.redirect_stdout(self.said))

    def read(self) -> report.Report:
        told = report.Report()
        self.other = stream.Outcomes(told).read(io.BytesIO(self.bytes.getvalue()))
        return told

    def test_outcomes_are_counted(self) -> None:
        for name, status in (("a", "success"), ("b", "xfail"), ("c", "skip"), ("d", "fail"), ("e", "exists")):
            self.written.status(test_id=name, test_status=status)
        told = self.read()
        self.assertEqual((2, ["d"], 1), (told.passed, told.failures, told.skips.total()))

    def test_test_whose_process_died_is_a_failure(self) -> None:
        self.written.status(test_id="a", test_status="inprogress")
        self.assertEqual(["a"], self.read().failures)

    def test_test_that_passes_unexpectedly_is_a_failure(self) -> None:
        self.written.status(test_id="a", test_status="uxsuccess")
        self.assertEqual(["a"], self.read().failures)

    def test_failure_is_printed_with_its_traceback(self) -> None:
        self.written.status(test_id="a", **details("line 7, in test"))
        self.written.status(test_id="a", test_status="fail")
        self.read()
        self.assertIn("FAILED: a\n", self.said.getvalue())
        self.assertIn("line 7, in test", self.said.getvalue())

    def test_other_output_is_kept_and_does_not_disturb(self) -> None:
        self.bytes.write(b"a line of somebody's\n")
        self.written.status(test_id="a", test_status="success")
        self.assertEqual(1, self.read().passed)
        self.assertEqual("a line of somebody's\n", self.other)


class ConclusionTests(testtools.TestCase):
    def conclude(self, told: report.Report, skips_fail: bool = False) -> tuple[int, list[str]]:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = told.conclude(skips_fail)
        return status, said.getvalue().splitlines()

    def told(self, passed: int, skips: int = 0, failures: int = 0) -> report.Report:
        told = report.Report(passed=passed, failures=["name"] * failures)
        for _ in range(skips):
            told.skip("Swift: it is not installed")
        return told

    def test_last_line_has_the_counts(self) -> None:
        status, lines = self.conclude(self.told(3, skips=2))
        self.assertEqual((0, "3 passed, 0 failed, 2 skipped"), (status, lines[-1]))

    def test_reasons_of_skips_are_listed_once(self) -> None:
        _, lines = self.conclude(self.told(3, skips=2))
        self.assertEqual(1, lines.count("- 2 tests: Swift: it is not installed"))

    def test_failure_fails(self) -> None:
        status, lines = self.conclude(self.told(3, failures=1))
        self.assertEqual((1, "3 passed, 1 failed, 0 skipped"), (status, lines[-1]))

    def test_skip_fails_where_nothing_may_be_left_out(self) -> None:
        self.assertEqual(1, self.conclude(self.told(3, skips=1), skips_fail=True)[0])

    def test_run_without_tests_fails(self) -> None:
        self.assertEqual(1, self.conclude(self.told(0))[0])

    def test_long_text_loses_its_beginning(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            report.Report().fail("a", "x" * 100_000 + "the end")
        self.assertIn("the end", said.getvalue())
        self.assertLess(len(said.getvalue()), 30_000)


class ArgumentTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable("CI"))
        self.useFixture(fixtures.MockPatch("os.geteuid", return_value=0))

    def refusal(self, *argv: str) -> str:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertRaises(SystemExit, arguments.parse, argv)
        return said.getvalue()

    def test_nothing_asked_is_what_the_machine_can(self) -> None:
        self.assertEqual(arguments.Options(False, False, None), arguments.parse([]))

    def test_ci_means_everything(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable("CI", "true"))
        self.assertTrue(arguments.parse([]).everything)
        self.assertFalse(arguments.parse(["--quick"]).everything)

    def test_everything_needs_root(self) -> None:
        self.useFixture(fixtures.MockPatch("os.geteuid", return_value=1000))
        self.assertIn("run it as root", self.refusal("--all"))

    def test_all_and_quick_exclude_each_other(self) -> None:
        self.assertIn("exclude each other", self.refusal("--all", "--quick"))


class EnvironmentTests(testtools.TestCase):
    def environment(self, *requirements: str) -> environments.Environment:
        """An environment whose python is that of the tests, so that none has to be made."""
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.input = self.directory / "setup.cfg"
        self.input.write_text("first")
        programs = self.directory / "venv" / "bin"
        programs.mkdir(parents=True)
        for name in ("python", "pip"):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            (programs / name).chmod(0o755)
        return environments.Environment(self.directory / "venv", requirements, (self.input,))

    def test_made_environment_is_ready_until_its_inputs_change(self) -> None:
        made = self.environment("--dry-run", "pip")
        self.assertFalse(made.ready())
        made.make()
        self.assertTrue(made.ready())
        self.input.write_text("second")
        self.assertFalse(made.ready())

    def test_failed_installation_is_told_with_the_output(self) -> None:
        made = self.environment("--no-index", "a-distribution-that-is-nowhere")
        error = self.assertRaises(environments.EnvironmentFailure, made.make)
        self.assertIn("a-distribution-that-is-nowhere", str(error))
        self.assertFalse(made.ready())
