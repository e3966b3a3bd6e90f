"""What the kit of orchestrator drivers stands on: drivers, specs, workers, the function that they run."""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import shutil
import tempfile
import time
import unittest
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from oslo_config import cfg

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

NODEJS_FUNCTION = """\
// What the kit runs in workers.
'use strict';
const fs = require('fs');
const { spawn } = require('child_process');

const actions = {
  echo({ value }) {
    console.log('echo of', value);
    return value;
  },
  async sleep({ seconds }) {
    await new Promise((done) => setTimeout(done, seconds * 1000));
    return seconds;
  },
  eat_memory: ({ size }) => Buffer.alloc(size, 'x').length,
  fill_disk({ size }) {
    const file = fs.openSync('big', 'w');
    try {
      for (let written = 0; written < size; written += 65536) fs.writeSync(file, Buffer.alloc(65536, 'x'));
    } finally {
      fs.closeSync(file);
      fs.unlinkSync('big');
    }
    return size;
  },
  async start_processes({ count }) {
    const children = Array.from({ length: count }, () => spawn('/bin/sleep', ['60'], { stdio: 'ignore' }));
    const ends = children.map((child) => {
      const end = new Promise((resolve, reject) => child.once('exit', resolve).once('error', reject));
      child.kill();
      return end;
    });
    await Promise.all(ends);
    return count;
  },
  burn({ seconds }) {
    const begin = process.cpuUsage();
    for (const end = performance.now() + seconds * 1000; performance.now() < end; );
    const { user, system } = process.cpuUsage(begin);
    return (user + system) / 1e6;
  },
  write_code: () => fs.writeFileSync(`${__dirname}/planted.js`, 'x = 1'),
};

exports.main = (context, { action, ...given }) => actions[action](given);
"""


class OrchestratorCase:
    """Mix it into a TestCase; what a subclass gives:"""

    driver_class: ClassVar[type[base.OrchestratorDriver]]
    image: ClassVar[str]
    """An image of a runtime that the driver can start, by default one of Python."""
    modules: ClassVar[Mapping[str, str]] = {"main.py": FUNCTION}
    """The function that the tests call as ``main.main``, in the language of the image; for Node.js it is
    ``{"main.js": orchestrator_case.NODEJS_FUNCTION}``.
    """
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
        conf.register_group(cfg.OptGroup("orchestrator_test"))
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
        self._code = self.directory / "code"
        self._code.mkdir()
        for name, text in self.modules.items():
            (self._code / name).write_text(text)
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
            "code_path": self._code if self.can(Capability.CODE_PATH) else None,
            "labels": {"function_id": "of-the-kit"},
        }
        return base.WorkerSpec(**(values | changes))

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
        return client.load(workerclient.package(self.modules))

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


def _as_test_case(mixed: object) -> unittest.TestCase:
    assert isinstance(mixed, unittest.TestCase), "mix OrchestratorDriverTests into a TestCase"
    return mixed
