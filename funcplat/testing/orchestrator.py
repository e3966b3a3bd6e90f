"""The kit for authors of orchestrator drivers: what every driver must do, as tests.

::

    class TestMyDriver(OrchestratorDriverTests, testtools.TestCase):
        driver_class = MyDriver
        image = "registry.example.org/python:3.12"
        options = {"url": "http://localhost:1234"}

The tests start real workers and run real functions in them through the worker protocol.  They look at what a
driver *does*; what it declares, capabilities and `Feature` lines, it is held to.
"""

from __future__ import annotations

import concurrent.futures
import json
import time
import uuid
from typing import Any

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.base import Capability, Isolation
from funcplat.testing import orchestrator_contract, workerclient


class OrchestratorDriverTests(orchestrator_contract.WorkerContract):
    """Mix it into a TestCase; what a subclass gives is listed in `OrchestratorCase`."""

    # -- what a driver says of itself -----------------------------------------------------------

    def test_the_interface_version_is_the_platforms(self) -> None:
        self.test.assertIsInstance(self.driver, base.OrchestratorDriver)
        self.test.assertEqual(base.API_VERSION, self.driver.api_version)

    def test_every_limit_is_enforced_or_explained(self) -> None:
        features = list(self.driver.features())
        names = [feature.name for feature in features]
        self.test.assertEqual(len(names), len(set(names)), "two lines for one feature")
        self.test.assertLessEqual({"cpu", "memory", "processes", "disk", "network"}, set(names))
        for feature in features:
            self.test.assertIsInstance(feature.isolation, Isolation)
            self.test.assertNotEqual("", feature.detail)

    def test_close_is_idempotent(self) -> None:
        driver = self.open_driver(str(uuid.uuid4()))
        driver.close()
        driver.close()

    # -- images ---------------------------------------------------------------------------------

    def test_a_known_image_is_accepted(self) -> None:
        self.driver.check_image(self.image, self.patience)

    def test_an_unknown_image_is_refused_with_a_reason(self) -> None:
        with self.test.assertRaises(errors.ImageUnknown) as caught:
            self.driver.check_image(self.unknown_image, self.patience)
        self.test.assertIn(self.unknown_image, caught.exception.message)

    def test_a_worker_of_an_unknown_image_is_not_started(self) -> None:
        spec = self.spec(image=self.unknown_image)
        with self.test.assertRaises(errors.ImageUnknown):
            self.driver.start_worker(spec, self.patience)
        self.test.assertEqual({}, self.listed())

    # -- start ----------------------------------------------------------------------------------

    def test_a_started_worker_answers_at_its_address(self) -> None:
        spec = self.spec()
        handle = self.driver.start_worker(spec, self.patience)
        self.test.assertEqual(spec.worker_id, handle.worker_id)
        workerclient.wait_until_ready(handle.address, self.patience)

    def test_a_second_start_returns_the_same_worker(self) -> None:
        spec = self.spec()
        first = self.driver.start_worker(spec, self.patience)
        second = self.driver.start_worker(spec, self.patience)
        self.test.assertEqual(first.to_json(), second.to_json())
        self.test.assertEqual({spec.worker_id}, set(self.listed()))

    def test_starts_of_one_worker_at_once_give_one_worker(self) -> None:
        spec = self.spec()
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            starts = [pool.submit(self.driver.start_worker, spec, self.patience) for _ in range(5)]
            handles = [start.result().to_json() for start in starts]
        self.test.assertEqual([handles[0]] * 5, handles)
        self.test.assertEqual({spec.worker_id}, set(self.listed()))

    def test_ten_workers_start_at_once(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            handles = list(pool.map(lambda _: self.start(), range(10)))
        self.test.assertEqual({handle.worker_id for handle in handles}, set(self.listed()))
        self.test.assertEqual(10, len({str(handle.address) for handle in handles}))
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda each: self.driver.stop_worker(each, 0.0, self.patience), handles))
        self.test.assertEqual({}, self.listed())

    def test_a_start_that_cannot_make_its_deadline_leaves_nothing(self) -> None:
        spec = self.spec()
        began = time.monotonic()
        try:
            handle = self.driver.start_worker(spec, 0.0005)
        except errors.DriverError:
            self.wait_until_gone(spec.worker_id)
        else:
            workerclient.wait_until_ready(handle.address, self.patience)  # it was that fast
        self.test.assertLess(time.monotonic() - began, self.patience)

    def wait_until_gone(self, worker_id: str) -> None:
        """Wait for a worker that is being cleared away not to be listed any more."""
        end = time.monotonic() + self.patience
        while worker_id in self.listed():
            self.test.assertLess(time.monotonic(), end, "a worker whose start failed is still there")
            time.sleep(0.05)

    def test_only_driver_errors_leave_a_driver(self) -> None:
        for worker_id in ("../../escape", "", "a\0b", "x" * 300):
            spec = self.spec(worker_id=worker_id)
            with self.test.assertRaises(errors.DriverError):
                self.driver.start_worker(spec, self.patience)
        self.test.assertEqual({}, self.listed())

    # -- handles and lists ----------------------------------------------------------------------

    def test_a_handle_that_went_through_json_stops_its_worker(self) -> None:
        handle = self.start()
        copy = base.Handle.from_json(_through_json(handle.to_json()))
        self.test.assertEqual(handle, copy)
        self.driver.stop_worker(copy, 0.0, self.patience)
        self.assert_gone(handle)

    def test_a_listed_worker_runs_and_its_handle_stops_it(self) -> None:
        handle = self.start()
        state = self.listed()[handle.worker_id]
        self.test.assertTrue(state.running)
        self.test.assertEqual(handle.address, state.handle.address)
        self.driver.stop_worker(state.handle, 0.0, self.patience)
        self.assert_gone(handle)

    def test_workers_of_another_installation_are_not_listed(self) -> None:
        handle = self.start()
        other = self.open_driver(str(uuid.uuid4()))
        self.test.assertEqual({}, self.listed(other))
        self.test.assertIn(handle.worker_id, self.listed())
        workerclient.wait_until_ready(handle.address, self.patience)

    def test_workers_outlive_their_driver_only_where_that_is_declared(self) -> None:
        handle = self.start()
        self.driver.close()
        successor = self.open_driver(self.owner)
        if not self.can(Capability.SURVIVES):
            self.test.assertEqual({}, self.listed(successor))
            with self.test.assertRaises((OSError, EOFError)):
                workerclient.WorkerClient(handle.address, 2.0).ask("GET", "/ready")
            return
        self.test.assertIn(handle.worker_id, self.listed(successor))
        workerclient.wait_until_ready(handle.address, self.patience)
        successor.stop_worker(base.Handle.from_json(_through_json(handle.to_json())), 0.0, self.patience)
        self.test.assertEqual({}, self.listed(successor))

    # -- stop -----------------------------------------------------------------------------------

    def test_a_stopped_worker_is_gone_when_stop_returns(self) -> None:
        handle = self.start()
        self.driver.stop_worker(handle, 1.0, self.patience)
        self.assert_gone(handle)

    def test_second_stop_is_a_no_op(self) -> None:
        handle = self.start()
        self.driver.stop_worker(handle, 0.0, self.patience)
        self.driver.stop_worker(handle, 0.0, self.patience)

    def test_stop_of_an_unknown_worker_returns(self) -> None:
        handle = self.start()
        self.driver.stop_worker(handle, 0.0, self.patience)
        unknown = base.Handle(str(uuid.uuid4()), handle.address, handle.data, handle.version)
        self.driver.stop_worker(unknown, 0.0, self.patience)

    def test_stops_of_one_worker_at_once_all_return(self) -> None:
        handle = self.start()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            stops = [pool.submit(self.driver.stop_worker, handle, 0.2, self.patience) for _ in range(4)]
            self.test.assertEqual([None] * 4, [stop.result() for stop in stops])
        self.assert_gone(handle)

    def test_stop_ends_a_running_execution_after_the_grace(self) -> None:
        handle = self.start()
        with workerclient.WorkerClient(handle.address) as client:
            self.load(client, handle)
            client.send_invoke({"action": "sleep", "seconds": 3600}, 3600)
            began = time.monotonic()
            self.driver.stop_worker(handle, 0.5, self.patience)
            self.test.assertLess(time.monotonic() - began, 0.5 + 5.0)
            self._expect_no_success(client)
        self.assert_gone(handle)

    def _expect_no_success(self, client: workerclient.WorkerClient) -> None:
        try:
            status = client.receive_execution().status
        except (OSError, EOFError, errors.WorkerError):
            return
        self.test.assertEqual("failed", status)

    def test_stop_of_one_worker_leaves_the_others(self) -> None:
        one, other = self.start(), self.start()
        self.driver.stop_worker(one, 0.0, self.patience)
        workerclient.wait_until_ready(other.address, self.patience)
        self.test.assertEqual({other.worker_id}, set(self.listed()))

    def test_a_worker_id_can_be_used_again(self) -> None:
        handle = self.start()
        self.driver.stop_worker(handle, 0.0, self.patience)
        again = self.start(worker_id=handle.worker_id)
        self.test.assertIn(again.worker_id, self.listed())


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
