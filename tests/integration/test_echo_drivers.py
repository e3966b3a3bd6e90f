"""The example of a third-party driver package, as its user has it: installed by pip, named in two lines."""

import os
import pathlib
import subprocess
import sys
import tempfile

import testtools

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "funcplat-echo-drivers"
DEADLINE = 300.0


class EchoDriversTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        # A short path: sockets of workers are below it.
        self.home = pathlib.Path(self.enter(tempfile.TemporaryDirectory(prefix="fp-")))
        self.installed = self.home / "site"
        source = self.home / "source"  # a build writes beside what it builds
        self.run_command("cp", "-r", str(EXAMPLE), str(source))
        target = ("--no-deps", "--quiet", "--target", str(self.installed))
        self.run_command(sys.executable, "-m", "pip", "install", *target, str(source))

    def enter(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def run_command(self, *argv, cwd=None, **environment):
        paths = [str(self.installed), str(EXAMPLE.parents[1])]
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stdout)
        return done.stdout

    def test_its_own_tests_pass_the_kits(self):
        told = self.run_command(
            sys.executable, "-m", "unittest", "discover", "-t", ".", "-s", "tests", cwd=EXAMPLE
        )
        self.assertRegex(told, r"Ran [1-9][0-9]+ tests")
        self.assertIn("\nOK", told)

    def test_two_lines_of_configuration_enable_it(self):
        told = self.run_command(
            sys.executable,
            "-m",
            "funcplat.cmd",
            "drivers",
            "list",
            "-f",
            "value",
            "--state-dir",
            str(self.home / "s"),
            OS_ORCHESTRATOR__ENABLED="process,echo",
            OS_STORAGE__ENABLED="local,echo",
        )
        for kind in ("orchestrator", "storage"):
            line = next(line for line in told.splitlines() if line.startswith(f"{kind} echo"))
            self.assertIn("funcplat-echo-drivers", line)
            self.assertIn("True", line)
