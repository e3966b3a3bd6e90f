"""The Docker driver against the kit, and what is its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import testtools

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import driver
from funcplat.testing import orchestrator
from tests import docker_engine


class DockerDriverTest(orchestrator.OrchestratorDriverTests, testtools.TestCase):
    driver_class = driver.DockerDriver
    own: dict[str, Any] = {}  # noqa: RUF012

    def setUp(self) -> None:
        self.url = docker_engine.url()
        self.image = docker_engine.python_image(self.url)
        sum_up = "import sys; print('sum:', sum(map(int, sys.argv[1:]))); sys.exit(7)"
        arguments = ["python3", "-I", "-c", sum_up, "40", "2"]
        self.job = (docker_engine.base_image(self.url), arguments, 7, b"sum: 42")
        self.options = {"url": self.url, **self.own}
        self.owners: set[str] = set()
        super().setUp()

    def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
        self.owners.add(context.owner)
        return super().make_driver(context)

    def census(self) -> Collection[str]:
        """Containers, networks and volumes, and the directories that they share with the platform."""
        found = [each for owner in self.owners for each in docker_engine.census(self.url, owner)]
        return found + [str(path) for path in self.directory.glob("*/docker/*/*")]

    # -- image functions ------------------------------------------------------------------------------

    def run_shell(self, script: str, timeout: float = 20.0, **changes: Any) -> base.ImageRun:
        """Run a script of busybox as an image function; nothing of it may be left."""
        spec = self.spec(image=docker_engine.BASE, **changes)
        try:
            return self.driver.run_image(spec, ["sh", "-c", script], timeout, timeout + 20.0)
        finally:
            self.assertEqual([], docker_engine.census(self.url, self.owner))

    def test_an_image_function_is_killed_at_its_timeout(self) -> None:
        run = self.run_shell("echo begun; sleep 600", timeout=1.0)
        self.assertTrue(run.timed_out)
        self.assertEqual(b"begun\n", run.log)
        self.assertLess(run.duration, 5.0)

    def test_an_image_function_that_takes_too_much_memory_says_so(self) -> None:
        eat = "python3 -I -c 'x = bytearray(300 << 20); x[:] = b\"x\" * len(x)'"
        run = self.run_shell(f"exec {eat}")
        self.assertTrue(run.out_of_memory)
        self.assertEqual(137, run.exit_code)

    def test_much_output_of_an_image_function_is_cut(self) -> None:
        run = self.run_shell("dd if=/dev/zero bs=65536 count=100 2>/dev/null; echo ended >&2")
        self.assertEqual((0, 1 << 20), (run.exit_code, len(run.log)))

    def test_an_image_function_is_confined(self) -> None:
        run = self.run_shell(
            "exec 2>&1; id -u; ls /sys/class/net; echo x > /etc/x; echo y > /tmp/y && cat /tmp/y"
        )
        lines = run.log.decode().splitlines()
        self.assertLessEqual({"64010", "lo", "y"}, set(lines), lines)
        self.assertIn("Read-only file system", run.log.decode())

    def test_an_image_function_that_cannot_start_says_why(self) -> None:
        spec = self.spec(image=docker_engine.BASE)
        error = self.assertRaises(
            errors.DriverError, self.driver.run_image, spec, ["no-such-program"], 5.0, 20.0
        )
        self.assertIn("no-such-program", error.message)
        self.assertEqual([], docker_engine.census(self.url, self.owner))


class DockerDriverByTcpTest(DockerDriverTest):
    """As with an Engine on another machine: nothing is shared, and workers publish a port."""

    own = {"transport": "tcp", "worker_host": "127.0.0.1", "pool_size": 1}  # noqa: RUF012
