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
import contextlib
import datetime
import json
import pathlib
import shutil
import tempfile
import time
import unittest
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.base import Capability, Isolation
from funcplat.testing import workerclient

MIB = 1 << 20

FUNCTION = '''
"""What the kit runs in workers."""
import os, subprocess, sys, threading, time


def main(action, context=None, **arguments):
    return globals()[action](**arguments)


def echo(value=None):
    print("echo of", value)
    return value


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def eat_memory(size):
    return len(bytearray(b"x") * size)


def fill_disk(size):
    with open("big", "wb") as file:
        try:
            for _ in range(size // 65536):
                file.write(b"x" * 65536)
        finally:
            os.unlink("big")
    return size


def start_processes(count):
    children = []
    try:
        for _ in range(count):
            children.append(subprocess.Popen([sys.executable or "sleep", "60"], executable="/bin/sleep"))
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
    return len(children)


def burn(seconds):
    """CPU seconds that were to be had in that many seconds."""
    begin, end = time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return time.process_time() - begin


def write_code():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "planted.py"), "w") as file:
        file.write("x = 1")
'''


class OrchestratorDriverTests:
    """Mix it into a TestCase; what a subclass gives:"""

    driver_class: ClassVar[type[base.OrchestratorDriver]]
    image: ClassVar[str]
    """An image of a Python runtime that the driver can start."""
    unknown_image: ClassVar[str] = "no-such-image.example.org/cobol:1959"
    options: ClassVar[Mapping[str, Any]] = {}
    """Values of the driver's options."""
    patience: ClassVar[float] = 30.0
    """Seconds that a start or a stop may take."""
    memory: ClassVar[int] = 64 * MIB
    disk: ClassVar[int] = 16 * MIB
    pids: ClassVar[int] = 24
    job: ClassVar[tuple[str, Sequence[str], int, bytes] | None] = None
    """With Capability.RUN_IMAGE: image, arguments, the exit code and a part of the log to expect."""

    def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
        """Construct a driver as the platform does.  Override it where that is not enough."""
        conf = cfg.ConfigOpts()
        conf([], project="funcplat", default_config_files=[], default_config_dirs=[])
        conf.register_opts(list(self.driver_class.opts), group="orchestrator_test")
        for name, value in self.options.items():
            conf.set_override(name, value, group="orchestrator_test")
        return self.driver_class(conf.orchestrator_test, context)

    def census(self) -> Collection[str]:
        """Names of everything on this machine that workers can leave behind; nothing may be new after a test.

        Override it with what your driver makes: containers, networks, control groups, files.
        """
        return ()

    # -- scaffolding ----------------------------------------------------------------------------

    def setUp(self) -> None:
        """Construct a driver; afterwards stop what its workers are and look for leaks."""
        super().setUp()  # type: ignore[misc]
        self.test = _as_test_case(self)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="kit-"))
        self.test.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        before = set(self.census())
        self.test.addCleanup(self._expect_no_leak, before)
        self.owner = str(uuid.uuid4())
        self.driver = self.open_driver(self.owner)

    def open_driver(self, owner: str) -> base.OrchestratorDriver:
        """A driver of the installation ``owner``; after the test its workers are stopped and it is closed."""
        context = base.Context(
            owner=owner,
            state_dir=self.directory / owner[:8],
            exposed=False,
            clock=lambda: datetime.datetime.now(datetime.UTC),
        )
        context.state_dir.mkdir(exist_ok=True)
        driver = self.make_driver(context)
        self.test.addCleanup(self._close, driver)
        driver.check()
        return driver

    def _close(self, driver: base.OrchestratorDriver) -> None:
        for state in driver.list_workers(self.patience):
            driver.stop_worker(state.handle, 0.0, self.patience)
        driver.close()

    def _expect_no_leak(self, before: set[str]) -> None:
        end = time.monotonic() + min(5.0, self.patience)
        while (left := set(self.census()) - before) and time.monotonic() < end:
            time.sleep(0.05)
        self.test.assertEqual(set(), left, "left behind by workers that were stopped")

    def spec(self, **changes: Any) -> base.WorkerSpec:
        """A worker to start, with the kit's function."""
        values: dict[str, Any] = {
            "worker_id": str(uuid.uuid4()),
            "owner": self.owner,
            "image": self.image,
            "cpu": 1000,
            "memory": self.memory,
            "pids": self.pids,
            "disk": self.disk,
            "concurrency": 3,
            "code_path": self._code() if self.can(Capability.CODE_PATH) else None,
            "labels": {"function_id": "of-the-kit"},
        }
        return base.WorkerSpec(**(values | changes))

    def _code(self) -> pathlib.Path:
        path = self.directory / "code"
        if not path.exists():
            path.mkdir()
            (path / "main.py").write_text(FUNCTION)
        return path

    def can(self, capability: Capability) -> bool:
        return capability in self.driver.capabilities

    def start(self, **changes: Any) -> base.Handle:
        """Start a worker and wait until it is ready."""
        handle = self.driver.start_worker(self.spec(**changes), self.patience)
        workerclient.wait_until_ready(handle.address, self.patience)
        return handle

    @contextlib.contextmanager
    def loaded(self, **changes: Any) -> Iterator[workerclient.WorkerClient]:
        """A connection to a new worker that has the kit's function."""
        handle = self.start(**changes)
        with workerclient.WorkerClient(handle.address, self.patience) as client:
            self.test.assertEqual(200, self.load(client, handle).status)
            yield client

    def load(self, client: workerclient.WorkerClient, handle: base.Handle) -> workerclient.Answer:
        """Give a worker the kit's function, as the driver's capabilities say."""
        if self.can(Capability.CODE_PATH):
            return client.load(path=handle.data.get("code", "/code"))
        return client.load(workerclient.package({"main.py": FUNCTION}))

    def listed(self, driver: base.OrchestratorDriver | None = None) -> dict[str, base.WorkerState]:
        """The workers that a driver says are there, by id."""
        return {each.worker_id: each for each in (driver or self.driver).list_workers(self.patience)}

    def enforced(self, name: str) -> bool:
        """Whether the driver says that it enforces this here; if it does not, it must say why."""
        feature = {each.name: each for each in self.driver.features()}[name]
        self.test.assertNotEqual("", feature.detail, f"{name}: neither enforced nor explained")
        return feature.isolation is Isolation.ENFORCED

    def assert_gone(self, handle: base.Handle) -> None:
        """Nobody answers at a worker's address any more, and it is not listed."""
        with self.test.assertRaises((OSError, EOFError)):
            workerclient.WorkerClient(handle.address, 2.0).ask("GET", "/ready")
        self.test.assertNotIn(handle.worker_id, self.listed())

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

    # -- the worker protocol --------------------------------------------------------------------

    def test_a_function_runs_and_its_output_is_kept(self) -> None:
        with self.loaded() as client:
            execution = client.invoke({"action": "echo", "value": [1, "zwei"]})
        self.test.assertEqual(("success", [1, "zwei"]), (execution.status, execution.output))
        self.test.assertIn(b"echo of [1, 'zwei']", execution.log)

    def test_a_pushed_package_runs(self) -> None:
        handle = self.start(code_path=None)
        with workerclient.WorkerClient(handle.address) as client:
            text = "def main(**_):\n    return 'pushed'\n"
            self.test.assertEqual(200, client.load(workerclient.package({"main.py": text})).status)
            self.test.assertEqual("pushed", client.invoke({}).output)

    def test_code_cannot_be_changed_by_the_function(self) -> None:
        if not self.can(Capability.CODE_PATH):
            return  # pushed code belongs to the worker: its runtime decides
        with self.loaded() as client:
            execution = client.invoke({"action": "write_code"})
        if self.enforced("mounts"):
            self.test.assertEqual("failed", execution.status)
            self.test.assertEqual(["main.py"], [path.name for path in self._code().glob("*.py")])

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
        with self.loaded(cpu=300) as client:
            used = client.invoke({"action": "burn", "seconds": 2}).output
        self.test.assertLess(used / 2, 0.3 * 1.5, "more than cpu allows")
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
            return
        assert self.job is not None, "RUN_IMAGE needs the attribute job"
        image, arguments, exit_code, log = self.job
        run = self.driver.run_image(self.spec(image=image), arguments, 10.0, self.patience)
        self.test.assertEqual(exit_code, run.exit_code)
        self.test.assertIn(log, run.log)
        self.test.assertEqual({}, self.listed())


def _as_test_case(mixed: object) -> unittest.TestCase:
    assert isinstance(mixed, unittest.TestCase), "mix OrchestratorDriverTests into a TestCase"
    return mixed


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
