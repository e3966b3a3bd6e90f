"""The embedded orchestrator driver: workers are processes of this machine."""

from __future__ import annotations

import logging
import os
import pathlib
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable
from typing import ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.process import (
    control,
    features,
    foreign,
    hierarchies,
    interpreters,
    kernel,
    nodejs,
    options,
    run_dir,
    sandbox,
    scratch,
    users,
    workers,
)

LOG = logging.getLogger(__name__)


class ProcessDriver(base.OrchestratorDriver):
    """Forks each worker from a *zygote*, an interpreter that is already warm, into namespaces of its own.

    One of Node.js is executed there, since it cannot be forked warm; see `nodejs`.

    Workers end with the process that started them.  Files and control groups that a crash left behind are
    cleared away by the first call in the next process; those of a process that lives are left alone.
    ``WorkerSpec.trusted`` makes no difference yet: every worker is treated as hostile.
    ``Handle.data["code"]`` is the path under which the worker sees ``WorkerSpec.code_path``.
    """

    capabilities: ClassVar[frozenset[base.Capability]] = frozenset(
        {base.Capability.CODE_PATH, base.Capability.LOGS}
    )
    opts: ClassVar[tuple[cfg.Opt, ...]] = tuple(options.OPTS)

    def __init__(self, options: cfg.ConfigOpts.GroupAttr, context: base.Context) -> None:
        super().__init__(options, context)
        short = run_dir.short_name(context.owner)
        self._group_name = f"funcplat-{short}"
        self._run_dir = run_dir.RunDir(pathlib.Path(options.run_dir or context.state_dir / "process") / short)
        self._scratch = scratch.Scratch(str(pathlib.Path(tempfile.gettempdir()) / f"funcplat-{short}"))
        self._lock = threading.Lock()  # of what follows
        self._template = pathlib.Path()
        self._ground: workers.Ground | None = None
        self._workers: workers.Workers | None = None
        self._zygotes: dict[pathlib.Path, control.Zygote] = {}
        self._opened = 0  # zygotes so far

    # -- the machine ----------------------------------------------------------------------------

    def check(self) -> None:
        """Start an interpreter and rehearse a worker with it; raise what goes wrong."""
        self._zygote(options.first_interpreter(self.options.images))

    def close(self) -> None:
        with self._lock:
            for zygote in self._zygotes.values():
                zygote.close()
            self._zygotes.clear()
            if self._ground is not None:
                self._scratch.close()
                self._template.rmdir()
                self._run_dir.remove()
                self._ground.groups.close()
                self._ground = self._workers = None

    def features(self) -> Iterable[base.Feature]:
        zygote = self._zygote(options.first_interpreter(self.options.images))
        ground, _ = self._prepared()
        mode = sandbox.Mode(zygote.mode)
        return list(features.describe(mode, zygote.failures, ground.groups, self._host_network))

    @property
    def _host_network(self) -> bool:
        return bool(self.options.network == "host")

    def _prepared(self) -> tuple[workers.Ground, workers.Workers]:
        with self._lock:
            return self._prepare()

    def _prepare(self) -> tuple[workers.Ground, workers.Workers]:
        """Once: find what this machine has, and clear away what a crash left.  Under the lock."""
        if self._ground is None or self._workers is None:
            if not kernel.supported():
                raise errors.DriverError("The process driver needs 64-bit Linux on x86_64 or aarch64")
            self._run_dir.make()
            self._template = self._run_dir.make_template()
            groups = hierarchies.detect(self._group_name, self.options.cgroup_parent)
            self._ground = workers.Ground(self._run_dir, self._scratch, groups)
            self._workers = workers.Workers(self._ground)
            self._ground.recover()
        return self._ground, self._workers

    def _zygote(self, path: pathlib.Path) -> control.Zygote:
        """The zygote of an interpreter, started anew where there is none.  Raises DriverError."""
        with self._lock:
            ground, _ = self._prepare()
            zygote = self._zygotes.get(path)
            if zygote is None or not zygote.alive:
                interpreter = interpreters.identify(path)
                zygote = self._made(interpreter, ground)
                zygote.open()
                LOG.info("zygote of %s: %s", interpreter, zygote.mode)
                self._zygotes[path] = zygote
            self._judge(zygote)
            return zygote

    def _made(self, interpreter: interpreters.Interpreter, ground: workers.Ground) -> control.Zygote:
        program = interpreter.program() if isinstance(interpreter, interpreters.Node) else None
        python = interpreters.own() if program else interpreter.path
        return control.Zygote(str(python), self._greeting(ground, program), ground.recover)

    def _greeting(self, ground: workers.Ground, program: nodejs.Program | None) -> control.Greeting:
        modes = sandbox.ladder(os.geteuid() == 0, self.options.namespaces)
        return control.Greeting(
            modes=[mode.value for mode in modes],
            root=self._template,
            hidden=[self.context.state_dir, self._run_dir.path],
            host_network=self._host_network,
            user=self._next_user(),
            scratch=pathlib.Path(self._scratch.path),
            groups=ground.groups,
            spares=self.options.spares,
            program=program,
        )

    def _next_user(self) -> int:
        """The first user id of the next zygote's share.

        Where to begin depends on the installation, so that two on one machine seldom use the same.
        """
        begin = zlib.crc32(self.context.owner.encode())
        share = (begin + self._opened) % (users.COUNT // users.SHARE)
        self._opened += 1
        return int(self.options.uid_base) + share * users.SHARE

    def _judge(self, zygote: control.Zygote) -> None:
        """Refuse isolation that is weaker than demanded.  Raises DriverError."""
        demand = self.options.isolation or ("required" if self.context.exposed else "preferred")
        if demand != "required":
            return
        why = "isolation = required" if self.options.isolation else "the API listens beyond loopback"
        if self._host_network:
            raise errors.DriverError(f"{why}, but network = host gives functions the network of this machine")
        if not sandbox.Mode(zygote.mode).namespaces:
            reasons = "; ".join(f"{mode}: {reason}" for mode, reason in zygote.failures)
            raise errors.DriverError(
                f"{why}, but workers cannot have mounts, pids and network of their own here "
                f"({reasons or 'namespaces = false'}). What would help: {features.HELP}; "
                "or allow less with [orchestrator_process] isolation = preferred."
            )

    # -- workers --------------------------------------------------------------------------------

    def check_image(self, image: str, deadline: float) -> None:
        path = options.interpreter(self.options.images, image)
        try:
            self._zygote(path)
        except errors.DriverUnavailable:
            raise
        except errors.DriverError as error:
            raise errors.ImageUnknown(f"The image {image!r} cannot be run: {error.message}") from error

    def start_worker(self, spec: base.WorkerSpec, deadline: float) -> base.Handle:
        end = time.monotonic() + deadline
        if spec.owner != self.context.owner:
            raise errors.DriverError(f"worker {spec.worker_id} is of another installation: {spec.owner}")
        zygote = self._zygote(options.interpreter(self.options.images, spec.image))
        zygote.check_memory(spec.memory)
        _, mine = self._prepared()
        return mine.start(spec, zygote, end)

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        end = time.monotonic() + deadline
        ground, mine = self._prepared()
        if mine.stop(handle.worker_id, grace, end):
            return
        files = ground.run_dir.files(handle.worker_id)
        foreign.stop(files, grace, end)
        files.remove()

    def list_workers(self, deadline: float) -> Iterable[base.WorkerState]:
        ground, mine = self._prepared()
        running, known = mine.running(), mine.known()
        return [
            base.WorkerState(files.worker_id, files.handle(), running=True)
            for files in ground.run_dir.workers()
            if files.worker_id in running or (files.worker_id not in known and files.alive())
        ]

    def worker_logs(self, handle: base.Handle, limit: int, deadline: float) -> bytes:
        files = self._prepared()[0].run_dir.files(handle.worker_id)
        try:
            with files.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
                return file.read(limit)
        except FileNotFoundError:
            return b""
