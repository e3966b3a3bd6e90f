"""The workers of the platform against their contract, and what they have in common beyond it."""

from __future__ import annotations

import resource
from typing import ClassVar

from funcplat.testing import WorkerCarriedTests, WorkerLimitTests, WorkerTests
from funcplat.testing.worker import HttpTests
from tests.integration import nodejs_harness, worker_harness, worker_local

MIB = 1 << 20


class PythonTest(WorkerTests, worker_harness.PythonProgram):
    """Over a Unix socket."""


class PythonTcpTest(HttpTests, worker_harness.PythonProgram):
    over_tcp = True


class PythonLimitTest(WorkerLimitTests, worker_harness.PythonWorker):
    memory: ClassVar[int] = 256 * MIB
    processes: ClassVar[int] = 100

    def setUp(self) -> None:
        super().setUp()
        user = self.new_user()
        self.confine = (
            "import resource; "
            f"resource.setrlimit(resource.RLIMIT_AS, ({self.memory}, {self.memory})); "
            f"resource.setrlimit(resource.RLIMIT_NPROC, ({self.processes}, {self.processes})); "
            f"os.setgid({user}); os.setuid({user}); "
            "from funcplat.worker import kernel; kernel.set_dumpable(True)"
        )


class PythonCarriedTest(WorkerCarriedTests, worker_harness.PythonWorker):
    def setUp(self) -> None:
        super().setUp()
        self.carried = self.place({self.module: self.source})


class PythonLocalTest(worker_local.LocalTests, worker_harness.PythonWorker):
    peak: ClassVar[int] = 64 * MIB


class PythonCommandLineTest(worker_local.CommandLineTests, worker_harness.PythonProgram):
    pass


class NodeTest(WorkerTests, nodejs_harness.NodeWorker):
    """Over a Unix socket."""


class NodeTcpTest(HttpTests, nodejs_harness.NodeWorker):
    over_tcp = True


class NodeLimitTest(WorkerLimitTests, nodejs_harness.NodeWorker):
    memory: ClassVar[int] = 100 * MIB
    processes: ClassVar[int] = 100

    def setUp(self) -> None:
        super().setUp()
        user = self.new_user()
        self.options = (f"--user={user}:{user}", f"--memory={self.memory}")
        limit = (self.processes, self.processes)
        self.before = lambda: resource.setrlimit(resource.RLIMIT_NPROC, limit)


class NodeCarriedTest(WorkerCarriedTests, nodejs_harness.NodeWorker):
    def setUp(self) -> None:
        super().setUp()
        self.carried = self.place({self.module: self.source})


class NodeLocalTest(worker_local.LocalTests, nodejs_harness.NodeWorker):
    peak: ClassVar[int] = 128 * MIB


class NodeCommandLineTest(worker_local.CommandLineTests, nodejs_harness.NodeWorker):
    pass
