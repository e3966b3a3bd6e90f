"""The process driver against the kit, with a runtime of Node.js."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

from funcplat import errors
from funcplat.testing import orchestrator_case, workerclient
from tests.drivers import test_process
from tests.integration import nodejs_harness

MIB = 1 << 20


class NodeDriverTest(test_process.ProcessDriverTest):
    """All that is tested of runtimes of Python, and what is Node.js's own."""

    image = "openstackqinling/nodejs-runtime:0.0.1"
    modules = {"main.js": orchestrator_case.NODEJS_FUNCTION}  # noqa: RUF012
    memory = 96 * MIB
    pids = 64

    def setUp(self) -> None:
        node = nodejs_harness.node()
        if node is None:
            self.skipTest("node is not installed; Debian has it in nodejs")
        self.options: dict[str, Any] = {"images": [f"*node*={node}"]}
        super().setUp()

    def refusal(self, *images: str) -> str:
        self.options = {"images": [*images, "*python*=default"]}
        driver = self.make_driver(self.driver.context)
        self.addCleanup(driver.close)
        return self.assertRaises(errors.ImageUnknown, driver.check_image, "nodejs", 10).message

    def test_too_little_memory_is_refused_with_what_it_takes(self) -> None:
        spec = self.spec(memory=24 * MIB)
        error = self.assertRaises(errors.DriverError, self.driver.start_worker, spec, 10)
        self.assertIn("32 MiB of memory at least, and the function has 24", error.message)
        self.assertEqual({}, self.listed())

    def test_a_program_that_is_not_in_path_is_named(self) -> None:
        message = self.refusal("*node*=node-of-nobody")
        self.assertIn("'node-of-nobody'", message)
        self.assertIn("no such program in PATH", message)

    def test_a_stranger_is_refused_with_what_it_says(self) -> None:
        self.assertIn("neither Python nor Node.js", self.refusal("*node*=/bin/true"))

    def test_a_node_that_is_too_old_is_refused(self) -> None:
        old = self._program("echo v16.20.2")
        self.assertIn(f"{old} is Node.js 16.20.2; 18 is the oldest", self.refusal(f"*node*={old}"))

    def test_a_node_that_functions_could_not_see_is_refused(self) -> None:
        hidden = self._program("""case $1 in --version) echo v20.1.0;; *) echo '["/tmp/bin/node"]';; esac""")
        self.assertIn("/tmp/bin/node cannot be shown", self.refusal(f"*node*={hidden}"))

    def test_a_broken_node_is_refused_with_what_it_says(self) -> None:
        broken = self._program(
            "case $1 in --version) echo v20.1.0;; *) echo no such library >&2; exit 3;; esac"
        )
        self.assertIn("ended with 3: no such library", self.refusal(f"*node*={broken}"))

    def _program(self, text: str) -> pathlib.Path:
        with tempfile.NamedTemporaryFile("w", dir=self.directory, delete=False) as file:
            file.write(f"#!/bin/sh\n{text}\n")
        path = pathlib.Path(file.name)
        path.chmod(0o755)
        return path

    def test_without_spares_workers_start_all_the_same(self) -> None:
        self.options["spares"] = 0
        driver = self.open_driver("without spares")
        handle = driver.start_worker(self.spec(owner="without spares"), 10)
        workerclient.wait_until_ready(handle.address)
