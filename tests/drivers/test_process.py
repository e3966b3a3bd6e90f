"""The process driver against the kit, and what is its own."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Collection

import testtools

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.process import driver, run_dir
from funcplat.testing import orchestrator, workerclient


class ProcessDriverTest(orchestrator.OrchestratorDriverTests, testtools.TestCase):
    driver_class = driver.ProcessDriver
    image = "funcplat/python3"

    def setUp(self) -> None:
        self.owners: set[str] = set()
        super().setUp()

    def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
        self.owners.add(context.owner)
        return super().make_driver(context)

    def census(self) -> Collection[str]:
        """Processes below this one, control groups, mounts, and files of workers."""
        found = [f"process {pid}" for pid in zygotes()]
        for owner in self.owners:
            found += self._groups(f"funcplat-{run_dir.short_name(owner)}")
        mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        found += [line for line in mounts if str(self.directory) in line]
        return found + [str(path) for path in self.directory.glob("*/process/**/*")]

    def _groups(self, name: str) -> list[str]:
        command = ["find", "/sys/fs/cgroup", "-type", "d", "-path", f"*/{name}*"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()

    def test_a_handle_says_where_the_worker_sees_its_code(self) -> None:
        self.assertEqual("/code", self.start().data["code"])
        self.assertIsNone(self.start(code_path=None).data["code"])

    def test_a_worker_of_another_installation_is_not_started(self) -> None:
        spec = self.spec(owner="somebody else")
        self.assertRaises(errors.DriverError, self.driver.start_worker, spec, 10)

    def test_missing_code_is_an_error_and_leaves_nothing(self) -> None:
        spec = self.spec(code_path=self.directory / "missing")
        error = self.assertRaises(errors.DriverError, self.driver.start_worker, spec, 10)
        self.assertIn("missing", error.message)
        self.assertEqual({}, self.listed())

    def test_a_missing_interpreter_makes_its_images_unknown(self) -> None:
        self.options = {"images": ["ghost=/no/such/python", "*=/bin/true", "*python*=default"]}
        other = self.make_driver(self.driver.context)
        self.addCleanup(other.close)
        for image in ("ghost", "any"):
            error = self.assertRaises(errors.ImageUnknown, other.check_image, image, 10)
            self.assertIn(image, error.message)

    def test_without_spares_workers_start_all_the_same(self) -> None:
        self.options = {"spares": 0}
        driver = self.open_driver("without spares")
        handle = driver.start_worker(self.spec(owner="without spares"), 10)
        workerclient.wait_until_ready(handle.address)


def zygotes() -> set[int]:
    """Zygotes that this process started, with all below them."""
    children = pathlib.Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = {int(pid) for path in children for pid in path.read_text().split()}
    return {pid for pid in pids if _name(pid) == "funcplat-zygote"}


def _name(pid: int) -> str:
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
