"""What the contract of workers stands on: a worker at an address, and functions that take steps."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import pathlib
import shutil
import tempfile
import time
import unittest
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from funcplat.drivers.base import Address
from funcplat.testing import workerclient
from funcplat.testing.workerclient import Answer, Execution, WorkerClient

if TYPE_CHECKING:
    _Case = unittest.TestCase
else:
    _Case = object  # so that a test runner that finds the kit itself does not run it

Step = list[Any]
"""The name of a step and its arguments; see `funcplat.testing.worker_functions`."""

GONE = (EOFError, ConnectionError)
"""What a client meets whose connection the worker has closed."""


class WorkerCase(_Case):
    """Mix it into a TestCase.  Tests know a worker by its address alone, and by what its functions see."""

    module: ClassVar[str]
    """The name of the file of the functions' module, such as ``main.py``; its entry is ``main.main``."""
    source: ClassVar[str | bytes]
    """What is in it: the steps of `funcplat.testing.worker_functions`, in the worker's language."""
    concurrency: ClassVar[int] = 3
    """Executions at once, as the worker is told when it is started."""
    max_connections: ClassVar[int] = 512
    """Connections for which the worker has room."""
    patience: ClassVar[float] = 30.0
    """Seconds until a test gives up on something that should take milliseconds."""

    # -- what an author writes ----------------------------------------------------------------------

    def start_worker(self) -> Address:
        """Start a blank worker, and return where it will listen.  A test may start several."""
        raise NotImplementedError("a worker's tests need start_worker()")

    def stop_worker(self, address: Address) -> None:
        """Stop a worker and all that it has left; called once for each, at the end of its test."""
        raise NotImplementedError("a worker's tests need stop_worker()")

    def place(self, files: Mapping[str, str | bytes]) -> str | None:
        """Write an unpacked package, and return its directory as the worker sees it.

        As it is here, it serves workers that see the files of this machine.  None: this worker sees none that
        are not pushed to it; tests of ``path`` are skipped then.
        """
        directory = tempfile.mkdtemp(prefix="worker-package-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        pathlib.Path(directory).chmod(0o755)
        for name, content in files.items():
            path = pathlib.Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return directory

    # -- workers and connections --------------------------------------------------------------------

    def start(self) -> WorkerClient:
        """A connection to a new, blank worker, which is at `self.address`."""
        self.address = self.start_worker()
        self.addCleanup(self.stop_worker, self.address)
        workerclient.wait_until_ready(self.address, self.patience)
        return self.connect()

    def connect(self) -> WorkerClient:
        """Another connection to the worker."""
        client = WorkerClient(self.address, self.patience)
        self.addCleanup(client.close)
        return client

    def loaded(self, *on_import: Step, **fields: Any) -> WorkerClient:
        """A connection to a new worker that has the functions; their import takes the steps ``on_import``."""
        client = self.start()
        environment = {"ON_IMPORT": json.dumps(on_import)} if on_import else {}
        environment |= fields.pop("environment", {})
        answer = client.load(self.package(), environment=environment, **fields)
        self.assertEqual(200, answer.status, answer)
        return client

    def package(self, **files: str | bytes) -> bytes:
        """The functions as a ZIP file, and other files."""
        return workerclient.package({self.module: self.source, **files})

    # -- executions ---------------------------------------------------------------------------------

    def act(self, client: WorkerClient, *steps: Step, timeout: float = 20.0) -> Execution:
        """An execution of these steps."""
        return client.invoke({"steps": steps}, timeout)

    def begin(
        self, client: WorkerClient, *steps: Step, timeout: float = 20.0, execution: str = "e1"
    ) -> WorkerClient:
        """Begin an execution of these steps; returns another connection to its worker, once it runs."""
        client.send_invoke({"steps": steps}, timeout, execution=execution)
        other = self.connect()
        self.wait_for(lambda: other.ready()["busy"] > 0, "the execution")
        return other

    def value(self, client: WorkerClient, *steps: Step, timeout: float = 20.0) -> Any:
        """What an execution of these steps returns; fails where it fails."""
        execution = self.act(client, *steps, timeout=timeout)
        self.assertEqual("success", execution.status, execution)
        return execution.output

    def state_of(self, client: WorkerClient, pid: int) -> str:
        """R, S, T, ... of a process of the worker, as a function sees it; nothing where it is gone."""
        stat = self.value(client, ["ask", "cat", f"/proc/{pid}/stat"])
        state: str = stat.rpartition(") ")[2][:1]
        return "" if state in ("Z", "X") else state

    # -- expectations -------------------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds that nobody tells of."""
        end = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > end:
                self.fail(f"waited in vain for: {what}")
            time.sleep(0.005)

    def assert_failed(self, execution: Execution, reason: str, output: str | None = None) -> None:
        self.assertEqual(("failed", reason), execution.outcome, execution)
        if output is not None:
            self.assertEqual(output, execution.output)

    def assert_refused(self, status: int, answer: Answer) -> None:
        """An answer to /load that says why in an object of JSON."""
        self.assertEqual(status, answer.status, answer)
        self.assertTrue(answer.json()["message"])

    def assert_cut_off(self, client: WorkerClient) -> None:
        """The worker closes the connection without another answer."""
        with self.assertRaises(GONE):
            answer = client.receive()
            self.fail(f"an answer instead of the end of the connection: {answer}")

    def assert_gone(self, client: WorkerClient, *pids: int) -> None:
        """Processes of the worker end."""
        for pid in pids:
            self.wait_for(lambda pid=pid: not self.state_of(client, pid), f"the end of process {pid}")  # type: ignore[misc]

    def assert_serves(self, *clients: WorkerClient) -> None:
        """The worker runs functions on a new connection, and on these."""
        for client in (*clients, self.connect()):
            self.assertEqual("served", self.value(client, ["value", "served"]))

    def in_background(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Run in a thread; the value returned waits for it and gives its result, or raises what it raised."""
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        return functools.partial(pool.submit(function).result, 10 * self.patience)
