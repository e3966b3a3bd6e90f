"""The Docker driver against the kit, and what is its own."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import uuid
from collections.abc import Collection
from typing import Any

import testtools

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import driver
from funcplat.testing import orchestrator
from tests import docker_engine


class DockerDriverTest(orchestrator.OrchestratorDriverTests, testtools.TestCase):
    driver_class = driver.DockerDriver
    own: dict[str, Any] = {}  # noqa: RUF012

    def setUp(self) -> None:
        self.url = docker_engine.url()
        self.image = docker_engine.python_image(self.url)
        sum_up = "import sys; print('sum:', sum(map(int, sys.argv[1:]))); sys.exit(7)"
        arguments = ["python3", "-I", "-c", sum_up, "40", "2"]
        self.job = (docker_engine.base_image(self.url), arguments, 7, b"sum: 42")
        self.options = {"url": self.url, **self.own}
        self.owners: set[str] = set()
        super().setUp()

    def make_driver(self, context: base.Context) -> base.OrchestratorDriver:
        self.owners.add(context.owner)
        return super().make_driver(context)

    def census(self) -> Collection[str]:
        """Containers, networks and volumes, and the directories that they share with the platform."""
        found = [each for owner in self.owners for each in docker_engine.census(self.url, owner)]
        return found + [str(path) for path in self.directory.glob("*/docker/*/*")]

    # -- pools --------------------------------------------------------------------------------------------

    def waiting(self) -> list[dict[str, Any]]:
        """Containers of the pool that run."""
        with docker_engine.client(self.url) as engine_:
            found = engine_.containers(filters={"label": f"funcplat.owner={self.owner}"})
        return [each for each in found if ".p." in each["Names"][0]]

    def test_a_start_from_the_pool_asks_the_engine_for_nothing_but_the_name(self) -> None:
        self.driver.check_image(self.image, self.patience)
        self.wait_for_pool()
        self.assertEqual({}, self.listed())  # the reaper's look, by which the driver knows what waits
        asked: list[str] = []
        connected = self.driver._docker
        call = connected.call

        def recorded(method: str, path: str, *arguments: Any, **more: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                asked.append(f"{method} {path.rpartition('/')[2]}")
            return call(method, path, *arguments, **more)

        connected.call = recorded
        handle = self.start()
        shared = self.can(base.Capability.CODE_PATH)
        self.assertEqual(["POST rename", *([] if shared else ["GET json"])], asked)
        self.assertIn(handle.worker_id, self.listed())

    def wait_for_pool(self) -> None:
        end = time.monotonic() + self.patience
        while len(self.waiting()) < int(self.own.get("pool_size", 2)):
            self.assertLess(time.monotonic(), end, "the pool is not filled")
            time.sleep(0.05)

    def test_containers_that_ended_while_they_waited_are_passed_over(self) -> None:
        self.driver.check_image(self.image, self.patience)
        self.wait_for_pool()
        self.listed()
        with docker_engine.client(self.url) as engine_:
            for each in self.waiting():
                engine_.kill(each["Id"])
        self.start()

    def test_one_container_is_taken_by_one_of_many(self) -> None:
        other = self.open_driver(self.owner)
        for each in (self.driver, other):
            each.check_image(self.image, self.patience)
        self.wait_for_pool()
        specs = [self.spec() for _ in range(6)]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            starts = [
                pool.submit(each.start_worker, spec, self.patience)
                for each, spec in zip([self.driver, other] * 3, specs, strict=True)
            ]
            handles = [start.result() for start in starts]
        self.assertEqual(6, len({each.data["container"] for each in handles}))
        self.assertEqual({spec.worker_id for spec in specs}, set(self.listed()))

    def test_an_image_goes_by_another_name_too(self) -> None:
        self.options["images"] = [f"openstackqinling/python*={self.image}"]
        self.driver = self.open_driver(str(uuid.uuid4()))
        self.owner = self.driver.context.owner
        image = "openstackqinling/python3-runtime:0.0.2"
        self.driver.check_image(image, self.patience)
        handle = self.start(image=image)
        self.assertIn(handle.worker_id, self.listed())
        self.assertGreaterEqual(self.driver.pool(image, self.patience).total, 1)
        with self.assertRaises(errors.ImageUnknown):
            self.driver.check_image("openstackqinling/ruby:1", self.patience)

    # -- image functions ------------------------------------------------------------------------------

    def run_shell(self, script: str, timeout: float = 20.0, **changes: Any) -> base.ImageRun:
        """Run a script of busybox as an image function; nothing of it may be left."""
        spec = self.spec(image=docker_engine.BASE, **changes)
        try:
            return self.driver.run_image(spec, ["sh", "-c", script], timeout, timeout + 20.0)
        finally:
            self.assertEqual([], docker_engine.census(self.url, self.owner))

    def test_an_image_function_is_killed_at_its_timeout(self) -> None:
        run = self.run_shell("echo begun; sleep 600", timeout=1.0)
        self.assertTrue(run.timed_out)
        self.assertEqual(b"begun\n", run.log)
        self.assertLess(run.duration, 5.0)

    def test_an_image_function_is_killed_when_its_worker_is_stopped(self) -> None:
        worker_id = str(uuid.uuid4())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.run_shell, "echo begun; sleep 600", 100.0, worker_id=worker_id)
            self.wait_for_run()
            self.driver.stop_worker(base.Handle(worker_id, base.Address()), 0.0, self.patience)
            run = running.result(30.0)
        self.assertEqual((137, False), (run.exit_code, run.timed_out))

    def test_an_image_function_that_is_stopped_before_it_begins_leaves_nothing(self) -> None:
        worker_id = str(uuid.uuid4())
        threads = threading.active_count()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.run_shell, "sleep 600", 100.0, worker_id=worker_id)
            while not running.done():  # whenever it comes, it must come to an end
                self.driver.stop_worker(base.Handle(worker_id, base.Address()), 0.0, self.patience)
            error = running.exception(30.0)
        self.assertTrue(error is None or isinstance(error, errors.DriverError), error)
        self.driver.close()
        end = time.monotonic() + 30.0
        while threading.active_count() > threads and time.monotonic() < end:
            time.sleep(0.02)
        self.assertLessEqual(threading.active_count(), threads, "somebody still reads its output")

    def wait_for_run(self) -> None:
        end = time.monotonic() + 30.0
        with docker_engine.client(self.url) as engine_:
            while not engine_.containers(filters={"label": f"funcplat.owner={self.owner}"}):
                self.assertLess(time.monotonic(), end, "it does not run")
                time.sleep(0.02)

    def test_an_image_function_that_takes_too_much_memory_says_so(self) -> None:
        eat = "python3 -I -c 'x = bytearray(300 << 20); x[:] = b\"x\" * len(x)'"
        run = self.run_shell(f"exec {eat}")
        self.assertTrue(run.out_of_memory)
        self.assertEqual(137, run.exit_code)

    def test_much_output_of_an_image_function_is_cut(self) -> None:
        run = self.run_shell("dd if=/dev/zero bs=65536 count=100 2>/dev/null; echo ended >&2")
        self.assertEqual((0, 1 << 20), (run.exit_code, len(run.log)))
        self.assertEqual(100 * 65536 + len("ended\n") - (1 << 20), run.log_dropped)

    def test_an_image_function_is_confined(self) -> None:
        run = self.run_shell(
            "exec 2>&1; id -u; ls /sys/class/net; echo x > /etc/x; echo y > /tmp/y && cat /tmp/y"
        )
        lines = run.log.decode().splitlines()
        self.assertLessEqual({"64010", "lo", "y"}, set(lines), lines)
        self.assertIn("Read-only file system", run.log.decode())

    def test_a_program_that_is_not_there_ends_as_in_a_shell(self) -> None:
        spec = self.spec(image=docker_engine.BASE)
        run = self.driver.run_image(spec, ["no-such-program"], 5.0, 20.0)
        self.assertEqual(127, run.exit_code)
        self.assertIn(b"no-such-program", run.log)
        self.assertEqual([], docker_engine.census(self.url, self.owner))

    def test_an_image_function_leaves_no_zombies_to_its_program(self) -> None:
        orphans = "for i in 1 2 3; do (sleep 0.1 & exit) ; done; sleep 0.5; cat /proc/[0-9]*/stat"
        run = self.run_shell(orphans)
        states = [line.rpartition(") ")[2][:1] for line in run.log.decode().splitlines()]
        self.assertNotIn("Z", states)
        self.assertGreater(len(states), 1)

    def test_a_run_ends_with_its_driver(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.run_shell, "sleep 600", timeout=100.0)
            end = time.monotonic() + 30.0
            while not docker_engine.census(self.url, self.owner) and time.monotonic() < end:
                time.sleep(0.02)
            self.driver.close()
            self.assertIsInstance(running.exception(30.0), errors.DriverUnavailable)
        self.assertEqual([], docker_engine.census(self.url, self.owner))


class DockerDriverByTcpTest(DockerDriverTest):
    """As with an Engine on another machine: nothing is shared, and workers publish a port."""

    own = {"transport": "tcp", "worker_host": "127.0.0.1", "pool_size": 1}  # noqa: RUF012

    def assert_gone(self, handle: base.Handle) -> None:
        """Whether somebody answers says nothing: its port may be another container's by now."""
        with docker_engine.client(self.url) as engine_:
            found = {each["Id"] for each in engine_.containers(all=True)}
        self.assertNotIn(handle.data["container"], found)
        self.assertNotIn(handle.worker_id, self.listed())
