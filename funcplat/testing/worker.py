"""The contract of workers: the page "The worker protocol", as tests.

A worker's author writes::

    class MyWorkerTests(WorkerTests, unittest.TestCase):
        module = "main.rb"
        source = pathlib.Path("steps.rb").read_text()

        def start_worker(self):
            ...  # a process, a container; some tests start several
            return Address(socket="/run/worker.sock")

        def stop_worker(self, address):
            ...

and gets a test for each sentence of that page.  ``source`` is a module that takes steps, which
`funcplat.testing.worker_functions` lists and has in Python and JavaScript.  What else may be given is in
`funcplat.testing.worker_case.WorkerCase`.

A worker may run anywhere: the tests know its address and what its functions see, and nothing of its process.
Where it runs must be ``sh``, ``sleep``, ``setsid``, ``sha256sum`` and what else every system has.
"""

from __future__ import annotations

from funcplat.testing.worker_failures import FailureTests, ImportTests
from funcplat.testing.worker_http import HttpTests
from funcplat.testing.worker_invoke import AccessTests, CallTests, TimeoutTests
from funcplat.testing.worker_load import LoadTests, PackageTests, ReadyTests, WorkerCarriedTests
from funcplat.testing.worker_output import LiveLogTests, OutputTests
from funcplat.testing.worker_processes import ProcessTests, WorkerLimitTests

__all__ = ["HttpTests", "WorkerCarriedTests", "WorkerLimitTests", "WorkerTests"]


class WorkerTests(
    HttpTests,
    ReadyTests,
    LoadTests,
    PackageTests,
    CallTests,
    AccessTests,
    TimeoutTests,
    FailureTests,
    ImportTests,
    OutputTests,
    LiveLogTests,
    ProcessTests,
):
    """Everything that the protocol asks of every worker.

    How a worker bears limits is in `WorkerLimitTests`; `WorkerCarriedTests` is for one that carries its
    function.
    """
