"""The contract of workers, run by the images of runtimes as ``funcplat runtime build`` makes them.

The containers are those of the driver: read-only, without network and capabilities, limited.
"""

from __future__ import annotations

import datetime
import functools
import pathlib
import tempfile
import uuid
from collections.abc import Mapping
from typing import ClassVar

import testtools

from funcplat.drivers import base
from funcplat.drivers.base import Address
from funcplat.drivers.docker import driver
from funcplat.testing import WorkerLimitTests, WorkerTests, worker_functions
from funcplat.testing.worker_case import WorkerCase
from tests import docker_engine

MIB = 1 << 20
DEADLINE = 60.0


class ContainerWorker(WorkerCase, testtools.TestCase):
    """Starts workers by the driver; its pool makes the next test's worker while a test runs."""

    memory: ClassVar[int] = 512 * MIB
    processes: ClassVar[int] = 150
    disk: ClassVar[int] = 192 * MIB
    image: ClassVar[str]
    driver: ClassVar[driver.DockerDriver]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        url = docker_engine.url()
        cls.image = cls.find_image(url)
        directory = tempfile.TemporaryDirectory(prefix="contract-")
        cls.addClassCleanup(directory.cleanup)
        clock = functools.partial(datetime.datetime.now, datetime.UTC)
        context = base.Context(str(uuid.uuid4()), pathlib.Path(directory.name), False, clock)
        cls.driver = driver.DockerDriver(docker_engine.group(url=url, pool_size=1), context)
        cls.addClassCleanup(cls._expect_nothing_left, url, context.owner)
        cls.addClassCleanup(cls.driver.close)

    @classmethod
    def _expect_nothing_left(cls, url: str, owner: str) -> None:
        left = docker_engine.census(url, owner)
        assert not left, left

    @classmethod
    def find_image(cls, url: str) -> str:
        """The name of the image to test."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self._code: pathlib.Path | None = None
        self._handles: dict[Address, base.Handle] = {}

    def start_worker(self) -> Address:
        spec = base.WorkerSpec(
            worker_id=str(uuid.uuid4()),
            owner=self.driver.context.owner,
            image=self.image,
            cpu=2000,
            memory=self.memory,
            pids=self.processes,
            disk=self.disk,
            concurrency=self.concurrency,
            code_path=self._code,
        )
        handle = self.driver.start_worker(spec, DEADLINE)
        self._handles[handle.address] = handle
        return handle.address

    def stop_worker(self, address: Address) -> None:
        self.driver.stop_worker(self._handles.pop(address), 0.0, DEADLINE)

    def place(self, files: Mapping[str, str | bytes]) -> str | None:
        """The driver shows the worker that is started next this package."""
        self._code = pathlib.Path(str(super().place(files)))
        return "/code"


class PythonImage(ContainerWorker):
    module = "main.py"
    source = worker_functions.PYTHON

    @classmethod
    def find_image(cls, url: str) -> str:
        return docker_engine.python_image(url)


class NodeImage(ContainerWorker):
    module = "main.js"
    source = worker_functions.NODEJS

    @classmethod
    def find_image(cls, url: str) -> str:
        return docker_engine.node_image(url)


class PythonTest(WorkerTests, PythonImage):
    pass


class NodeTest(WorkerTests, NodeImage):
    pass


class PythonLimitTest(WorkerLimitTests, PythonImage):
    pass


class NodeLimitTest(WorkerLimitTests, NodeImage):
    pass
