"""The orchestrator driver against the kit."""

import unittest

from funcplat_echo.orchestrator import EchoDriver

from funcplat.testing import OrchestratorDriverTests
from funcplat.testing.workerclient import WorkerClient, package


class EchoDriverTests(OrchestratorDriverTests, unittest.TestCase):
    driver_class = EchoDriver
    image = "echo"

    def census(self) -> list[str]:
        return [str(path) for path in self.directory.rglob("*") if path.is_file()]

    # An echo worker runs no code, so where the kit looks at a function's result, these look at the echo.

    def test_a_function_runs_and_its_output_is_kept(self) -> None:
        with self.loaded() as client:
            execution = client.invoke({"value": [1, "zwei"]})
        self.assertEqual(("success", {"value": [1, "zwei"]}), (execution.status, execution.output))
        self.assertIn(b"echo of", execution.log)

    def test_a_pushed_package_runs(self) -> None:
        with WorkerClient(self.start().address) as client:
            self.assertEqual(200, client.load(package({"main.py": ""})).status)
            self.assertEqual({"pushed": True}, client.invoke({"pushed": True}).output)

    def test_a_second_load_is_refused(self) -> None:
        handle = self.start()
        with WorkerClient(handle.address) as client:
            self.assertEqual([200, 409], [self.load(client, handle).status for _ in range(2)])
            self.assertEqual("still here", client.invoke("still here").output)

    def test_one_call_more_than_its_concurrency_is_refused(self) -> None:
        handle = self.start(concurrency=1)
        with WorkerClient(handle.address) as one, WorkerClient(handle.address) as other:
            self.load(one, handle)
            one.send_invoke({"seconds": 1})
            while b'"busy": 1' not in other.ask("GET", "/ready").body:
                pass
            other.send_invoke({})
            self.assertEqual(429, other.receive().status)
            self.assertEqual({"seconds": 1}, one.receive_execution().output)

    def test_an_execution_ends_at_its_timeout(self) -> None:
        with self.loaded() as client:
            execution = client.invoke({"seconds": 60}, timeout=0.1)
        self.assertEqual(("failed", "timeout"), (execution.status, execution.reason))
