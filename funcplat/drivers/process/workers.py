"""The workers of this process: born, ended, and cleared away."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
from typing import Any

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.process import cgroups, control, identity, run_dir, scratch

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """Where the workers of an installation leave their traces."""

    run_dir: run_dir.RunDir
    scratch: scratch.Scratch
    groups: cgroups.Cgroups

    def recover(self) -> None:
        """Clear away what belongs to no living process: the server or the zygote was killed.

        A control group or directory is named after the zygote that made it; a socket has a listener as long
        as its worker, or whoever starts it, lives.
        """
        for name in self.groups.names() | self.scratch.names():
            if not identity.is_alive(name):
                LOG.info("clearing away %s of a zygote that was killed", name)
                self._remove(name)
        for files in self.run_dir.workers():
            if not files.alive():
                LOG.info("clearing away worker %s of a server that was killed", files.worker_id)
                files.remove()
        self.run_dir.remove_dead_templates()

    def _remove(self, name: str) -> None:
        self.scratch.remove(name)
        try:
            self.groups.remove(name)
        except OSError as error:
            LOG.warning("cannot remove control group %s: %s", name, error)


class Workers:
    """Those that this process started.  Thread-safe."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._children: dict[str, control.Child] = {}
        self._lock = threading.Lock()

    def running(self) -> set[str]:
        """Ids of workers that serve."""
        with self._lock:
            return {name for name, child in self._children.items() if child.running}

    def known(self) -> set[str]:
        """Ids of workers that serve, are about to, or are being cleared away."""
        with self._lock:
            return set(self._children)

    def start(self, spec: base.WorkerSpec, zygote: control.Zygote, end: float) -> base.Handle:
        """Start a worker, or wait with whoever starts the same one.  ``end``: of time.monotonic()."""
        files = self._ground.run_dir.files(spec.worker_id)
        child, mine = self._claim(spec.worker_id)
        if mine:
            elsewhere = self._bear(child, files, spec, zygote)
            if elsewhere is not None:
                return elsewhere
        if not child.answered.wait(control.remaining(end)):
            child.stop(0.0)
            raise errors.DriverTimeout(f"worker {spec.worker_id} did not start in time")
        if child.failure is not None:
            raise child.failure
        return self._handle(child, files, spec, mine)

    def _claim(self, worker_id: str) -> tuple[control.Child, bool]:
        with self._lock:
            child = self._children.get(worker_id)
            if child is not None:
                return child, False
            child = self._children[worker_id] = control.Child(worker_id)
            return child, True

    def _bear(
        self, child: control.Child, files: run_dir.Files, spec: base.WorkerSpec, zygote: control.Zygote
    ) -> base.Handle | None:
        """Make all that a worker needs and have it forked; the handle of one that another process has."""
        try:
            return self._ask(child, files, spec, zygote)
        except (OSError, errors.DriverError) as error:
            failure = _translated(error)
            child.failure = failure
            raise failure from error
        finally:
            if child.zygote is None:  # it was not handed over: whoever waits for it learns that here
                self._forget(child)
                child.ended.set()
                child.answered.set()

    def _ask(
        self, child: control.Child, files: run_dir.Files, spec: base.WorkerSpec, zygote: control.Zygote
    ) -> base.Handle | None:
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as undo:
            try:
                listener = files.listen()
            except FileExistsError:
                if files.alive():
                    return files.handle()
                files.remove()
                listener = files.listen()
            opened.callback(listener.close)
            undo.callback(files.remove)
            child.log = os.open(files.log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            undo.callback(child.close_log)
            log = os.open(files.log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            opened.callback(os.close, log)
            child.released.append(lambda: self._forget(child))
            zygote.start(child, _message(spec, files), [listener.fileno(), log])
            undo.pop_all()  # from now on the zygote clears up
        return None

    def _handle(
        self, child: control.Child, files: run_dir.Files, spec: base.WorkerSpec, keep: bool
    ) -> base.Handle:
        assert child.pid is not None
        try:
            data = identity.of(child.pid)
        except OSError as error:
            raise errors.DriverError(f"worker {spec.worker_id} ended as soon as it had started") from error
        data |= {"name": child.name, "code": child.code}
        handle = base.Handle(spec.worker_id, base.Address(socket=str(files.socket)), data)
        if keep:
            files.save(handle)
        return handle

    def _forget(self, child: control.Child) -> None:
        with self._lock:
            if self._children.get(child.worker_id) is child:
                del self._children[child.worker_id]

    def stop(self, worker_id: str, grace: float, end: float) -> bool:
        """End a worker and wait until nothing of it is left; False where this process has no such.

        ``end``: of time.monotonic().  Raises DriverTimeout.
        """
        with self._lock:
            child = self._children.get(worker_id)
        if child is None:
            return False
        child.stop(grace)
        if not child.ended.wait(control.remaining(end)):
            raise errors.DriverTimeout(f"worker {worker_id} has not ended yet")
        return True


def _message(spec: base.WorkerSpec, files: run_dir.Files) -> dict[str, Any]:
    return {
        "code": str(spec.code_path) if spec.code_path else None,
        "memory": spec.memory,
        "pids": spec.pids,
        "cpu": spec.cpu,
        "disk": spec.disk,
        "concurrency": spec.concurrency,
        "unlink": [str(path) for path in files.paths()],
    }


def _translated(error: OSError | errors.DriverError) -> errors.DriverError:
    if isinstance(error, errors.DriverError):
        return error
    return control.translate(error.errno or 0, str(error))
