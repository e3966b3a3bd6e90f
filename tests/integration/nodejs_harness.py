"""Node.js workers in processes of this machine."""

from __future__ import annotations

import os
import shutil

from funcplat.testing import worker_functions
from tests import environments
from tests.integration import worker_harness

WORKER = environments.ROOT / "runtimes" / "nodejs" / "worker.js"
NODE_VARIABLE = "FUNCPLAT_TEST_NODE"
"""Names another node than the first on PATH."""
_COUNTERS = {"oom_kills": "low 0\noom_kill {:09}\n", "pids_hits": "max {:09}\n"}


def node() -> str | None:
    """The interpreter that runs the worker, if there is one."""
    return os.environ.get(NODE_VARIABLE) or shutil.which("node")


class NodeWorker(worker_harness.LocalWorker):
    module = "main.js"
    source = worker_functions.NODEJS
    suffix = ".js"
    options: tuple[str, ...] = ()
    """More of the command line."""

    def setUp(self) -> None:
        found = node()
        if found is None:
            self.skipTest("node is not installed; Debian has it in nodejs")
        self.node = found
        super().setUp()

    def argv(self, listener: int) -> list[str]:
        given = [f"--listen=fd:{listener}", *self.options]
        if self.carried is not None:
            given += ["--entry=main.main", f"--function={self.carried}"]
        if self.lifeline is not None:
            given.append(f"--lifeline={self.lifeline}")
        return [*self.command(), *given]

    def command(self) -> list[str]:
        os.chmod(self.directory, 0o755)
        os.chmod(self.scratch, 0o777)
        return [
            self.node,
            str(WORKER),
            "--concurrency=3",
            f"--code-dir={self.directory}/pushed/code",
            f"--scratch={self.scratch}",
            f"--oom-kills={self.directory}/oom_kills",
            f"--pids-hits={self.directory}/pids_hits",
        ]

    def count_text(self, name: str, value: int) -> str:
        return _COUNTERS[name].format(value)
