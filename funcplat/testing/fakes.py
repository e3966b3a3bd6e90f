"""A fake orchestrator for tests: real workers that speak the worker protocol, without isolation, and fast.

`FakeEngine` stands for what a driver talks to, such as a container engine: workers belong to it and outlive
the driver objects.  `FakeOrchestrator` is a driver of it and passes `OrchestratorDriverTests`.  Failures are
injected at named stages::

    engine = FakeEngine(directory)
    driver = FakeOrchestrator(options, context, engine)
    engine.fail(Stage.STARTED, errors.DriverUnavailable("lost its connection"))
    engine.delay(Stage.START, 0.5)
    engine.kill(worker_id)
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import fnmatch
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.base import Capability, Feature, Isolation

_MESSAGE = 64 * 1024
_FORK_SERVER = "import sys; from funcplat.testing import forkserver; forkserver.main(int(sys.argv[1]))"
_CONNECTION_BACKLOG = 128


class Stage(enum.Enum):
    """Where a fake can be made to fail or to dawdle."""

    CHECK = "check"
    CHECK_IMAGE = "check_image"
    START = "start"  # before anything is made
    STARTED = "started"  # the worker exists, and the driver cannot tell
    STOP = "stop"  # before the worker is asked to end
    STOPPED = "stopped"  # it is gone, and the driver cannot tell
    LIST = "list"


@dataclasses.dataclass(slots=True, eq=False)
class _Worker:
    """A worker of the engine."""

    spec: base.WorkerSpec
    directory: pathlib.Path
    pid: int | None = None
    started: threading.Event = dataclasses.field(default_factory=threading.Event)
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def socket(self) -> str:
        return str(self.directory / "socket")

    @property
    def handle(self) -> base.Handle:
        code = str(self.spec.code_path) if self.spec.code_path else None
        data = {"code": code} if code else {}
        return base.Handle(self.spec.worker_id, base.Address(socket=self.socket), data)

    def signal(self, number: int) -> None:
        if self.pid is not None and not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class FakeEngine:
    """Runs workers in ``directory``, a short path, until it is closed.  Thread-safe."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._workers: dict[str, _Worker] = {}
        self._failures: dict[Stage, list[Exception]] = {}
        self._delays: dict[Stage, float] = {}
        self._control, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far_end:
            self._process = self._spawn(far_end.fileno())
        self._thread = threading.Thread(target=self._listen, name="fake-engine", daemon=True)
        self._thread.start()

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        house = pathlib.Path(errors.__file__).parent.parent
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _FORK_SERVER, str(descriptor)],
            env={"PYTHONPATH": str(house)},
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,
        )

    def close(self) -> None:
        """End every worker.  Idempotent."""
        for worker in self.workers():
            self.stop(worker, 0.0)
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._thread.join()
        self._control.close()

    # -- for tests ------------------------------------------------------------------------------

    def fail(self, stage: Stage, error: Exception, times: int = 1) -> None:
        """Have the next ``times`` passages of a stage raise ``error``."""
        with self._lock:
            self._failures.setdefault(stage, []).extend([error] * times)

    def delay(self, stage: Stage, seconds: float) -> None:
        """Have every passage of a stage take that long."""
        with self._lock:
            self._delays[stage] = seconds

    def kill(self, worker_id: str) -> None:
        """Let a worker die as if by itself, and return when it is dead; it stays listed as not running."""
        worker = self.find(worker_id)
        assert worker is not None, f"no worker {worker_id}"
        worker.signal(signal.SIGKILL)
        worker.ended.wait()

    # -- for drivers ----------------------------------------------------------------------------

    def reach(self, stage: Stage) -> None:
        """Pass a stage: raises what was injected there."""
        with self._lock:
            failures = self._failures.get(stage)
            failure = failures.pop(0) if failures else None
            delay = self._delays.get(stage, 0.0)
        if delay:
            time.sleep(delay)
        if failure is not None:
            raise failure

    def workers(self) -> list[_Worker]:
        with self._lock:
            return list(self._workers.values())

    def find(self, worker_id: str) -> _Worker | None:
        with self._lock:
            return self._workers.get(worker_id)

    def start(self, spec: base.WorkerSpec) -> _Worker:
        """Start a worker, or return the one of that id.  Raises OSError."""
        directory = self._directory / spec.worker_id
        with self._lock:
            found = self._workers.get(spec.worker_id)
            if found is not None:
                return found
            worker = self._workers[spec.worker_id] = _Worker(spec, directory)
        try:
            directory.mkdir(parents=True)
            (directory / "pushed").mkdir()
            self._order(worker)
        except OSError:
            self._forget(worker)
            raise
        return worker

    def _order(self, worker: _Worker) -> None:
        order = {
            "worker": worker.spec.worker_id,
            "concurrency": worker.spec.concurrency,
            "directory": str(worker.directory),
        }
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(worker.socket)
            listener.listen(_CONNECTION_BACKLOG)
            socket.send_fds(self._control, [json.dumps(order).encode()], [listener.fileno()])

    def stop(self, worker: _Worker, grace: float) -> None:
        """End a worker and return when nothing of it is left."""
        worker.started.wait()
        if grace > 0:
            worker.signal(signal.SIGTERM)
            worker.ended.wait(grace)
        worker.signal(signal.SIGKILL)
        worker.ended.wait()
        self._forget(worker)

    def _forget(self, worker: _Worker) -> None:
        shutil.rmtree(worker.directory, ignore_errors=True)
        with self._lock:
            self._workers.pop(worker.spec.worker_id, None)

    def _listen(self) -> None:
        """Hear what becomes of workers."""
        while data := self._control.recv(_MESSAGE):
            message = json.loads(data)
            worker = self.find(message["worker"])
            if worker is None:
                continue
            if "pid" in message:
                worker.pid = message["pid"]
                worker.started.set()
            else:
                worker.ended.set()


class FakeOrchestrator(base.OrchestratorDriver):
    """A driver of a `FakeEngine`; without one, of one of its own, which ends with it."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.CODE_PATH, Capability.SURVIVES})
    opts: ClassVar[tuple[cfg.Opt, ...]] = (
        cfg.ListOpt("images", default=["*python*"], help="Patterns of the images that it can run."),
    )

    def __init__(
        self, options: cfg.ConfigOpts.GroupAttr, context: base.Context, engine: FakeEngine | None = None
    ) -> None:
        super().__init__(options, context)
        self._own = engine is None
        self.engine = engine or FakeEngine(context.state_dir / "fake")

    def close(self) -> None:
        if self._own:
            self.engine.close()

    def check(self) -> None:
        self.engine.reach(Stage.CHECK)

    def features(self) -> Iterable[Feature]:
        names = ("user", "mounts", "pids", "network", "seccomp", "cpu", "memory", "processes", "disk")
        return [Feature(name, Isolation.NONE, "a fake isolates nothing") for name in names]

    def check_image(self, image: str, deadline: float) -> None:
        with _deadline(deadline):
            self.engine.reach(Stage.CHECK_IMAGE)
            if not any(fnmatch.fnmatchcase(image, pattern) for pattern in self.options.images):
                raise errors.ImageUnknown(f"no fake runs {image!r}, only {', '.join(self.options.images)}")

    def start_worker(self, spec: base.WorkerSpec, deadline: float) -> base.Handle:
        with _deadline(deadline) as end:
            self.check_image(spec.image, deadline)
            if not spec.worker_id.replace("-", "").isalnum():
                raise errors.DriverError(f"{spec.worker_id!r} cannot be the id of a worker")
            self.engine.reach(Stage.START)
            worker = self.engine.start(spec)
            if not worker.started.wait(max(0.0, end - time.monotonic())):
                self.engine.stop(worker, 0.0)
                raise errors.DriverTimeout
            self.engine.reach(Stage.STARTED)
            return worker.handle

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        with _deadline(deadline):
            self.engine.reach(Stage.STOP)
            worker = self.engine.find(handle.worker_id)
            if worker is not None:
                self.engine.stop(worker, grace)
            self.engine.reach(Stage.STOPPED)

    def list_workers(self, deadline: float) -> Iterable[base.WorkerState]:
        with _deadline(deadline):
            self.engine.reach(Stage.LIST)
            return [
                base.WorkerState(
                    worker.spec.worker_id,
                    worker.handle,
                    running=not worker.ended.is_set(),
                    detail="killed" if worker.ended.is_set() else "",
                )
                for worker in self.engine.workers()
                if worker.spec.owner == self.context.owner
            ]


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[float]:
    """The moment until which there is time; the machine's errors become a driver's."""
    try:
        yield time.monotonic() + seconds
    except OSError as error:
        raise errors.DriverUnavailable(f"the fake engine: {error}") from error


def options(values: Mapping[str, Any] | None = None) -> Any:
    """Options for a FakeOrchestrator that is made without configuration files."""
    conf = cfg.ConfigOpts()
    conf([], project="funcplat", default_config_files=[], default_config_dirs=[])
    conf.register_opts(list(FakeOrchestrator.opts), group="orchestrator_fake")
    for name, value in (values or {}).items():
        conf.set_override(name, value, group="orchestrator_fake")
    return conf.orchestrator_fake
