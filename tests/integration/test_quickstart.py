"""tools/quickstart as a new user runs it: in a fresh copy of the checkout, and every line that it prints."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import fixtures
import testtools

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 900.0  # seconds; pip may be slow


def fresh_copy(target: pathlib.Path) -> None:
    """What a clone would hold, with what is not committed yet."""
    listing = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listing += ["--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


class TestQuickstart(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.checkout = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / "funcplat"
        fresh_copy(self.checkout)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        self.environment = {**inherited, "PYTHONWARNINGS": ""}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        running = subprocess.Popen(
            [sys.executable, "tools/quickstart", "--port", "0", *arguments],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        watchdog = threading.Timer(DEADLINE, running.kill)
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        self.addCleanup(running.wait)
        self.addCleanup(running.kill)
        return running

    def story(self, running: subprocess.Popen[str]) -> str:
        """What is printed up to the server's log."""
        assert running.stdout is not None
        assert running.stderr is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line.startswith("Serving until"):
                return "".join(lines)
        self.fail("".join(lines) + running.stderr.read())

    def paste(self, line: str) -> str:
        command = ["bash", "-c", line.replace("curl ", "curl --silent --show-error --fail ", 1)]
        done = subprocess.run(
            command, cwd=self.checkout, env=self.environment, capture_output=True, text=True, check=False
        )
        self.assertEqual(0, done.returncode, f"{line}\n{done.stdout}{done.stderr}")
        return done.stdout

    def test_everything_works_from_a_fresh_clone(self) -> None:
        running = self.start()
        story = self.story(running)
        self.assertIn("Installing the platform", story)
        for line in re.findall(r"^   (.+)$", story, re.MULTILINE):
            if not line.startswith("curl ") or shutil.which("curl"):
                self.paste(line)
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", story)[0])
        running.send_signal(signal.SIGINT)
        self.assertEqual(0, running.wait(DEADLINE))
        with socket.socket() as probe:
            self.assertNotEqual(0, probe.connect_ex(("127.0.0.1", port)))

        again = self.start("--once")
        printed, complaint = again.communicate(timeout=DEADLINE)
        self.assertEqual(0, again.returncode, complaint)
        self.assertNotIn("Installing the platform", printed)
        self.assertIn("was there", printed)
        self.assertNotIn("(new)", printed)
