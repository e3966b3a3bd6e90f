"""What every driver's workers owe: the worker protocol, the limits, what the driver declares."""

from __future__ import annotations

import time

from funcplat import errors
from funcplat.drivers.base import Capability, ImageKind
from funcplat.testing import orchestrator_case, workerclient


class WorkerContract(orchestrator_case.OrchestratorCase):
    """The tests; see `funcplat.testing.orchestrator`."""

    # -- the worker protocol --------------------------------------------------------------------

    def test_a_function_runs_and_its_output_is_kept(self) -> None:
        with self.loaded() as client:
            execution = client.invoke({"action": "echo", "value": [1, "zwei"]})
        self.test.assertEqual(("success", [1, "zwei"]), (execution.status, execution.output))
        self.test.assertRegex(execution.log, rb"echo of \[ ?1, 'zwei' ?\]")

    def test_a_pushed_package_runs(self) -> None:
        handle = self.start(code_path=None)
        with workerclient.WorkerClient(handle.address) as client:
            self.test.assertEqual(200, client.load(workerclient.package(self.modules)).status)
            self.test.assertEqual("pushed", client.invoke({"action": "echo", "value": "pushed"}).output)

    def test_code_cannot_be_changed_by_the_function(self) -> None:
        if not self.can(Capability.CODE_PATH):
            return  # pushed code belongs to the worker: its runtime decides
        with self.loaded() as client:
            execution = client.invoke({"action": "write_code"})
        if self.enforced("mounts"):
            self.test.assertEqual("failed", execution.status)
            self.test.assertEqual(set(self.modules), {path.name for path in self._code.glob("*.*")})

    def test_a_second_load_is_refused(self) -> None:
        handle = self.start()
        with workerclient.WorkerClient(handle.address) as client:
            self.test.assertEqual(200, self.load(client, handle).status)
            self.test.assertEqual(409, self.load(client, handle).status)
            self.test.assertEqual(
                "still here", client.invoke({"action": "echo", "value": "still here"}).output
            )

    def test_a_wrong_secret_is_refused(self) -> None:
        with self.loaded() as client:
            client.send_invoke({"action": "echo"}, secret="wrong")  # noqa: S106
            self.test.assertEqual(403, client.receive().status)

    def test_a_blank_worker_runs_nothing(self) -> None:
        handle = self.start()
        with workerclient.WorkerClient(handle.address) as client:
            client.send_invoke({"action": "echo"})
            self.test.assertEqual(409, client.receive().status)

    def test_one_call_more_than_its_concurrency_is_refused(self) -> None:
        handle = self.start(concurrency=3)
        clients = [workerclient.WorkerClient(handle.address) for _ in range(4)]
        for client in clients:
            self.test.addCleanup(client.close)
        self.load(clients[0], handle)
        for client in clients[:3]:
            client.send_invoke({"action": "sleep", "seconds": 2}, 10)
        end = time.monotonic() + 1.5
        while b'"busy": 3' not in clients[3].ask("GET", "/ready").body and time.monotonic() < end:
            time.sleep(0.02)
        clients[3].send_invoke({"action": "echo"})
        self.test.assertEqual(429, clients[3].receive().status)
        self.test.assertEqual([2, 2, 2], [client.receive_execution().output for client in clients[:3]])

    def test_a_draining_worker_takes_no_calls(self) -> None:
        with self.loaded() as client:
            answer = client.ask("POST", "/drain", x_secret=workerclient.SECRET)
            self.test.assertEqual(200, answer.status)
            client.send_invoke({"action": "echo"})
            self.test.assertEqual(503, client.receive().status)

    # -- limits, as far as the driver says that it enforces them --------------------------------

    def test_too_much_memory_fails_the_execution_and_not_the_worker(self) -> None:
        if not self.enforced("memory"):
            return
        with self.loaded() as client:
            execution = client.invoke({"action": "eat_memory", "size": 4 * self.memory})
            self.test.assertEqual(("failed", "memory_exceeded"), (execution.status, execution.reason))
            self.test.assertEqual("on", client.invoke({"action": "echo", "value": "on"}).output)

    def test_too_many_processes_fail_the_execution_and_not_the_worker(self) -> None:
        if not self.enforced("processes"):
            return
        with self.loaded() as client:
            execution = client.invoke({"action": "start_processes", "count": 4 * self.pids})
            self.test.assertEqual(("failed", "pids_exceeded"), (execution.status, execution.reason))
            self.test.assertEqual("on", client.invoke({"action": "echo", "value": "on"}).output)

    def test_a_full_disk_fails_the_execution_and_not_the_worker(self) -> None:
        if not self.enforced("disk"):
            return
        with self.loaded() as client:
            execution = client.invoke({"action": "fill_disk", "size": 4 * self.disk})
            self.test.assertEqual(("failed", "disk_full"), (execution.status, execution.reason))
            self.test.assertEqual("on", client.invoke({"action": "echo", "value": "on"}).output)

    def test_processor_time_is_what_was_asked_for(self) -> None:
        if not self.enforced("cpu"):
            return
        with self.loaded(cpu=200) as client:
            used = client.invoke({"action": "burn", "seconds": 2}).output
        self.test.assertLess(used / 2, 0.2 * 1.5, "more than cpu allows")
        self.test.assertGreater(used, 0.0)

    # -- capabilities ---------------------------------------------------------------------------

    def test_logs_are_bytes_or_not_supported(self) -> None:
        handle = self.start()
        if self.can(Capability.LOGS):
            log = self.driver.worker_logs(handle, 100, self.patience)
            self.test.assertIsInstance(log, bytes)
            self.test.assertLessEqual(len(log), 100)
            return
        with self.test.assertRaises(errors.NotSupported):
            self.driver.worker_logs(handle, 100, self.patience)

    def test_pool_is_counted_or_not_supported(self) -> None:
        if self.can(Capability.POOL):
            state = self.driver.pool(self.image, self.patience)
            self.test.assertTrue(0 <= state.available <= state.total)
            return
        with self.test.assertRaises(errors.NotSupported):
            self.driver.pool(self.image, self.patience)

    def test_an_image_runs_once_or_is_not_supported(self) -> None:
        if not self.can(Capability.RUN_IMAGE):
            with self.test.assertRaises(errors.NotSupported):
                self.driver.run_image(self.spec(), ["true"], 10.0, self.patience)
            with self.test.assertRaises(errors.NotSupported):
                self.driver.inspect_image(self.image, self.patience)
            return
        assert self.job is not None, "RUN_IMAGE needs the attribute job"
        image, arguments, exit_code, log = self.job
        info = self.driver.inspect_image(image, self.patience)
        self.test.assertEqual(ImageKind.ONE_SHOT, info.kind)
        self.test.assertEqual(info, self.driver.inspect_image(info.pin, self.patience), "a pin is for ever")
        run = self.driver.run_image(self.spec(image=info.pin), arguments, 10.0, self.patience)
        self.test.assertEqual(exit_code, run.exit_code)
        self.test.assertIn(log, run.log)
        self.test.assertEqual({}, self.listed())
