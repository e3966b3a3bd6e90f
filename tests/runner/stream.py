"""Running stestr and reading its subunit stream."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

import testtools
from subunit import v2

from tests import environments
from tests.runner import report

DEADLINE = 2400.0
GRACE = 20.0
PASSED = ("success", "xfail")
OTHER_OUTPUT = "output"
# what details of a test say of it besides how it ended
ATTACHMENT_TYPE = "text"


class OtherOutput(testtools.StreamResult):
    """Keeps what is in a stream besides subunit: complaints of stestr, and what tests print."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = b""

    def status(self, *arguments: Any, **event: Any) -> None:
        if event.get("file_name") == OTHER_OUTPUT and event.get("test_id") is None:
            self.bytes = (self.bytes + event["file_bytes"])[-report.TEXT_LIMIT :]


class Outcomes:
    """Counts the tests of a subunit stream in a report."""

    def __init__(self, told: report.Report) -> None:
        self._told = told

    def read(self, stream: BinaryIO) -> str:
        """Read the stream to its end; the end of what else was in it."""
        other = OtherOutput()
        result = testtools.CopyStreamResult([testtools.StreamToDict(self._on_test), other])
        result.startTestRun()
        v2.ByteStreamToStreamResult(stream, non_subunit_name=OTHER_OUTPUT).run(result)
        result.stopTestRun()
        return other.bytes.decode(errors="replace")

    def _on_test(self, test: dict[str, Any]) -> None:
        status = test["status"]
        if status in PASSED:
            self._told.passes()
        elif status == "skip":
            reason = test["details"].get("reason")
            self._told.skip(reason.as_text().strip() if reason else "no reason given")
        elif status != "exists":
            # fail, uxsuccess; inprogress is a test whose process ended under it
            self._told.fail(test["id"], f"status: {status}\n{_details(test)}")


def _details(test: Mapping[str, Any]) -> str:
    texts = []
    for name, content in sorted(test["details"].items()):
        if content.content_type.type == ATTACHMENT_TYPE and (text := content.as_text().strip()):
            texts.append(f"{name}:\n{text}")
    return "\n".join(texts) or "no details"


def select(pattern: str, told: report.Report) -> list[str]:
    """The names of the tests that match ``pattern``; reports a failure when there are none."""
    argv = [sys.executable, "-m", "stestr", "list", pattern]
    done = subprocess.run(
        argv,
        cwd=environments.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    names = [line for line in done.stdout.splitlines() if line.startswith("tests.")]
    if done.returncode == 0 and names:
        return names
    told.fail("finding tests", done.stdout or f"no test has a name that matches {pattern}")
    return []


def run(pattern: str | None, unit_only: bool, environment: Mapping[str, str], told: report.Report) -> None:
    """Run the tests that match ``pattern`` side by side, and report each."""
    told.section("Tests")
    workers = max(2, len(os.sched_getaffinity(0)))
    argv = [sys.executable, "-m", "stestr", "run", "--subunit", f"--concurrency={workers}"]
    argv += [pattern] if pattern else []
    path = {"OS_TEST_PATH": "./tests/unit"} if unit_only else {}
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            argv,
            cwd=environments.ROOT,
            env={**os.environ, **environment, **path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        failures = len(told.failures)
        text = _read(process, told)
        complaints.seek(0)
        text += complaints.read().decode(errors="replace")
    if process.returncode != 0 and len(told.failures) == failures:
        told.fail("stestr", f"{' '.join(argv)} ended with {process.returncode}:\n{text}")


def _read(process: subprocess.Popen[bytes], told: report.Report) -> str:
    """Read the output of stestr within the deadline, and end it; what it printed besides subunit."""
    late = threading.Timer(DEADLINE, _end, [process])
    late.start()
    try:
        if process.stdout is None:
            raise RuntimeError("stestr was started without a pipe")
        other = Outcomes(told).read(process.stdout)
        process.wait(GRACE)
        if not late.is_alive():
            told.fail("deadline", f"the tests did not end within {DEADLINE:g} s")
        return other
    finally:
        late.cancel()
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
