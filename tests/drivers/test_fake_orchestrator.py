"""The fake orchestrator against the kit, and the kit against drivers that are broken on purpose."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import tempfile
import unittest
from collections.abc import Collection, Iterable
from typing import Any

import testtools

from funcplat import errors
from funcplat.drivers import base
from funcplat.testing import (
    fakeimages,
    fakes,
    orchestrator,
    orchestrator_case,
    orchestrator_contract,
    workerclient,
)
from tests.functional import platform


class FakeOrchestratorTest(orchestrator.OrchestratorDriverTests, testtools.TestCase):
    driver_class = fakes.FakeOrchestrator
    image = "funcplat/python3"

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="fake-")
        self.addCleanup(directory.cleanup)
        self.engine = fakes.FakeEngine(pathlib.Path(directory.name))
        self.addCleanup(self.engine.close)
        super().setUp()

    def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
        return self.driver_class(fakes.options(), context, self.engine)

    def census(self) -> Collection[str]:
        return [str(worker.pid) for worker in self.engine.workers()]

    def test_a_failure_happens_at_its_stage_and_once(self) -> None:
        self.engine.fail(fakes.Stage.STARTED, errors.DriverUnavailable("gone"))
        spec = self.spec()
        with self.assertRaises(errors.DriverUnavailable):
            self.driver.start_worker(spec, 10)
        self.assertEqual({spec.worker_id}, set(self.listed()))  # it exists, and nobody was told
        self.assertEqual(spec.worker_id, self.driver.start_worker(spec, 10).worker_id)

    def test_a_killed_worker_is_listed_as_not_running(self) -> None:
        handle = self.start()
        self.engine.kill(handle.worker_id)
        self.assertFalse(self.listed()[handle.worker_id].running)
        self.driver.stop_worker(handle, 1, 10)
        self.assertEqual({}, self.listed())

    def test_a_delayed_stage_takes_longer(self) -> None:
        self.engine.delay(fakes.Stage.START, 0.3)
        self.assertRaises(errors.DriverTimeout, self.driver.start_worker, self.spec(), 0.0)

    def test_a_driver_without_an_engine_has_one_of_its_own(self) -> None:
        driver = fakes.FakeOrchestrator(fakes.options(), self.driver.context)
        handle = driver.start_worker(self.spec(), 10)
        workerclient.wait_until_ready(handle.address)
        driver.close()
        self.assertFalse(os.path.exists(handle.address.socket or ""))


class Empty(base.OrchestratorDriver):
    """Has every method and does nothing."""

    def check_image(self, image: str, deadline: float) -> None:
        return None

    def start_worker(self, spec: base.WorkerSpec, deadline: float) -> Any:
        return None

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        return None

    def list_workers(self, deadline: float) -> Iterable[base.WorkerState]:
        return ()


class FakeImagesTest(orchestrator_case.OrchestratorCase, testtools.TestCase):
    """What the image fake has beyond the other one, which the whole kit is run against."""

    image = "funcplat/python3"
    job = ("greeter:1", ["world"], 3, b"hello world")

    driver_class = fakeimages.FakeImageOrchestrator
    test_an_image_runs_once = orchestrator_contract.WorkerContract.test_an_image_runs_once_or_is_not_supported

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="fake-")
        self.addCleanup(directory.cleanup)
        self.engine = fakes.FakeEngine(pathlib.Path(directory.name))
        self.addCleanup(self.engine.close)
        super().setUp()

    def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
        driver = fakeimages.FakeImageOrchestrator(fakes.options(), context, self.engine)
        program = ["/bin/sh", "-c", 'echo "hello $0"; exit 3']
        driver.images["greeter:1"] = fakeimages.FakeImage("sha256:" + 64 * "a", program)
        driver.images["slow:1"] = fakeimages.FakeImage("sha256:" + 64 * "b", ["/bin/sleep", "60"])
        return driver

    def run_slow(self, timeout: float) -> base.ImageRun:
        return self.driver.run_image(self.spec(image="slow:1"), [], timeout, 30.0)

    def test_a_run_is_ended_at_its_timeout(self) -> None:
        run = self.run_slow(0.2)
        self.assertTrue(run.timed_out)
        self.assertEqual(137, run.exit_code)
        self.assertEqual(0, self.driver.running())

    def test_a_run_under_way_ends_with_the_driver(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            run = pool.submit(self.run_slow, 30.0)
            platform.until(self.driver.running, "it runs")
            self.driver.close()
            self.assertRaises(errors.DriverUnavailable, run.result)
        self.assertRaises(errors.DriverUnavailable, self.run_slow, 1.0)

    def test_an_image_that_nobody_made_is_missing(self) -> None:
        self.assertRaises(errors.ImageMissing, self.driver.inspect_image, "nothing:1", 1.0)


class StopsNothing(fakes.FakeOrchestrator):
    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        return None


class ForgetsGrace(fakes.FakeOrchestrator):
    """Lets a worker finish what it does, however long that takes."""

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        worker = self.engine.find(handle.worker_id)
        if worker is not None and grace > 0:
            worker.ended.wait(grace + 6)
        super().stop_worker(handle, grace, deadline)


class StartsTwice(fakes.FakeOrchestrator):
    """Starts another worker each time that it is asked for one."""

    def start_worker(self, spec: base.WorkerSpec, deadline: float) -> base.Handle:
        handle = super().start_worker(spec, deadline)
        return base.Handle(spec.worker_id, handle.address, {"count": os.urandom(4).hex(), **handle.data})


class ListsEverybodys(fakes.FakeOrchestrator):
    def list_workers(self, deadline: float) -> Iterable[base.WorkerState]:
        return [base.WorkerState(each.spec.worker_id, each.handle, True) for each in self.engine.workers()]


class TakesAnyImage(fakes.FakeOrchestrator):
    def check_image(self, image: str, deadline: float) -> None:
        return None


class LeaksForeignErrors(fakes.FakeOrchestrator):
    def start_worker(self, spec: base.WorkerSpec, deadline: float) -> base.Handle:
        if "/" in spec.worker_id:
            raise KeyError(spec.worker_id)
        return super().start_worker(spec, deadline)


class KeepsRemnants(fakes.FakeOrchestrator):
    """Stops a worker, whose directory stays."""

    remnants: list[str] = []  # noqa: RUF012

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        self.remnants.append(handle.worker_id)
        super().stop_worker(handle, grace, deadline)


class Boasts(fakes.FakeOrchestrator):
    """Says that it enforces what it does not."""

    def features(self) -> Iterable[base.Feature]:
        return [base.Feature(each.name, base.Isolation.ENFORCED, "trust me") for each in super().features()]


class KitTest(testtools.TestCase):
    """A kit that passes everybody is worth nothing."""

    def failures(self, driver_class: type[base.OrchestratorDriver], *tests: str) -> set[str]:
        """The tests of the kit that a driver fails."""

        class Subject(FakeOrchestratorTest):
            def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
                if issubclass(driver_class, fakes.FakeOrchestrator):
                    return driver_class(fakes.options(), context, self.engine)
                return driver_class(fakes.options(), context)

            def census(self) -> Collection[str]:
                return [*super().census(), *KeepsRemnants.remnants]

        Subject.driver_class = driver_class  # type: ignore[assignment]
        Subject.patience = 2.0
        names = tests or unittest.TestLoader().getTestCaseNames(orchestrator.OrchestratorDriverTests)  # type: ignore[arg-type]
        result = unittest.TestResult()
        for name in names:
            Subject(name).run(result)
        return {test.id().rpartition(".")[2] for test, _ in result.failures + result.errors}

    def test_an_empty_driver_fails_nearly_all(self) -> None:
        names = set(unittest.TestLoader().getTestCaseNames(orchestrator.OrchestratorDriverTests))  # type: ignore[arg-type]
        harmless = {
            "test_the_interface_version_is_the_platforms",
            "test_close_is_idempotent",
            "test_a_known_image_is_accepted",
            "test_pool_is_counted_or_not_supported",
            "test_an_image_runs_once_or_is_not_supported",
            "test_code_cannot_be_changed_by_the_function",  # it has no CODE_PATH
            "test_a_start_that_cannot_make_its_deadline_leaves_nothing",
        }
        self.assertEqual(set(), (names - self.failures(Empty)) - harmless)

    def test_a_stop_that_does_not_stop_is_caught(self) -> None:
        name = "test_a_stopped_worker_is_gone_when_stop_returns"
        self.assertEqual({name}, self.failures(StopsNothing, name))

    def test_a_stop_that_waits_for_executions_is_caught(self) -> None:
        name = "test_stop_ends_a_running_execution_after_the_grace"
        self.assertEqual({name}, self.failures(ForgetsGrace, name))

    def test_a_start_that_is_not_idempotent_is_caught(self) -> None:
        name = "test_a_second_start_returns_the_same_worker"
        self.assertEqual({name}, self.failures(StartsTwice, name))

    def test_a_list_of_everybodys_workers_is_caught(self) -> None:
        name = "test_workers_of_another_installation_are_not_listed"
        self.assertEqual({name}, self.failures(ListsEverybodys, name))

    def test_a_driver_that_takes_any_image_is_caught(self) -> None:
        name = "test_an_unknown_image_is_refused_with_a_reason"
        self.assertEqual({name}, self.failures(TakesAnyImage, name))

    def test_an_error_of_another_kind_is_caught(self) -> None:
        name = "test_only_driver_errors_leave_a_driver"
        self.assertEqual({name}, self.failures(LeaksForeignErrors, name))

    def test_a_limit_that_is_claimed_and_not_enforced_is_caught(self) -> None:
        names = (
            "test_too_much_memory_fails_the_execution_and_not_the_worker",
            "test_too_many_processes_fail_the_execution_and_not_the_worker",
            "test_a_full_disk_fails_the_execution_and_not_the_worker",
            "test_processor_time_is_what_was_asked_for",
        )
        self.assertEqual(set(names), self.failures(Boasts, *names))

    def test_a_leak_is_caught(self) -> None:
        self.addCleanup(KeepsRemnants.remnants.clear)
        name = "test_second_stop_is_a_no_op"
        self.assertEqual({name}, self.failures(KeepsRemnants, name))
