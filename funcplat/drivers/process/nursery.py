"""How the zygote makes workers and clears up after them.  Standard library only.

A *spare* is a worker-to-be: forked, in its namespaces and control groups, waiting for what it is to be.
Creating namespaces and moving a process between control groups takes the kernel 2 to 20 ms, what is left 2.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from funcplat.drivers.process import cgroups, kernel, newborn, nodejs, processes, sandbox, scratch, users


@dataclasses.dataclass(slots=True, eq=False)
class Worker:
    """A child of the zygote."""

    name: str  # of its control group and scratch directory
    user: int
    pid: int
    pidfd: int
    line: socket.socket
    memory_events: int
    worker_id: str = ""  # empty: a spare
    unlink: list[str] = dataclasses.field(default_factory=list)
    code: str | None = None
    scratch: bool = False
    entered: bool = False
    kill_at: float | None = None  # of time.monotonic()
    failure: Mapping[str, Any] | None = None

    def kill(self) -> None:
        self.kill_at = None
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def fail(self, error: OSError) -> None:
        self.failure = self.failure or newborn.failure(error)
        self.kill()


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What workers are made with, alike for all."""

    box: sandbox.Sandbox
    program: nodejs.Program | None
    groups: cgroups.Cgroups
    users: users.Users
    scratch: scratch.Scratch
    spares: int


class Nursery:
    """Makes spares, and makes workers of them."""

    def __init__(self, means: Means) -> None:
        self.workers: dict[int, Worker] = {}  # by pid, spares included
        self._means = means
        self._forked = 0
        self._prefix = f"{os.getpid()}-{_start_time()}"

    def spares(self) -> list[Worker]:
        return [each for each in self.workers.values() if not each.worker_id and not each.failure]

    @property
    def lacks_spares(self) -> bool:
        return len(self.spares()) < self._means.spares

    def find(self, worker_id: str) -> Worker | None:
        return next((each for each in self.workers.values() if each.worker_id == worker_id), None)

    def fork(self) -> Worker:
        """Fork a spare.  Raises OSError; then nothing is left."""
        means = self._means
        name = f"{self._prefix}-{self._forked}"
        self._forked += 1
        user = means.users.take()
        try:
            means.groups.create(name)
            worker = self._fork_into(name, user)
        except OSError:
            means.users.give(user)
            self._remove_group(name)
            raise
        self.workers[worker.pid] = worker
        try:
            means.groups.attach(name, worker.pid)
            means.box.admit(worker.pid, user)
            worker.line.send(newborn.GO)
        except OSError as error:
            worker.fail(error)
        return worker

    def _fork_into(self, name: str, user: int) -> Worker:
        memory_events, pids_events = self._means.groups.open_events(name)
        line, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = kernel.clone(self._means.box.namespaces)
            if pid == 0:
                child = newborn.Newborn(far_end, user, memory_events, pids_events, self._means.program)
                child.live(self._means.box)
        except OSError:
            line.close()
            _close(memory_events)
            raise
        finally:
            far_end.close()
            _close(pids_events)
        return Worker(name, user, pid, os.pidfd_open(pid), line, memory_events)

    def order(self, worker: Worker, message: Mapping[str, Any], descriptors: list[int]) -> None:
        """Tell a spare what it is to be.  Raises OSError."""
        means = self._means
        limits = cgroups.Limits(message["memory"], message["pids"], message["cpu"])
        means.groups.limit(worker.name, limits)
        controllers = means.groups.controllers()
        place, code = self._place(worker, message["code"])
        birth = sandbox.Birth(
            code=code,
            scratch=place,
            memory=limits.memory,
            memory_limited=cgroups.MEMORY in controllers,
            pids=limits.pids,
            pids_limited=cgroups.PIDS in controllers,
            disk=message["disk"],
        )
        order = {"birth": dataclasses.asdict(birth), "concurrency": message["concurrency"]}
        socket.send_fds(worker.line, [json.dumps(order).encode()], descriptors)
        worker.code = sandbox.CODE if code and means.box.mode.namespaces else code

    def _place(self, worker: Worker, code: str | None) -> tuple[str | None, str | None]:
        """Without a mount namespace: a directory, and code that the worker's user can read."""
        mode = self._means.box.mode
        if mode.namespaces:
            return None, code
        worker.scratch = True
        if not mode.changes_user:
            return self._means.scratch.make(worker.name, None, None), code
        place = self._means.scratch.make(worker.name, worker.user, code)
        return place, code and f"{place}/code"

    def bury(self, worker: Worker) -> tuple[int, int]:
        """Wait for a worker that has ended and remove all that belonged to it.

        Returns its wait status and how often the kernel ran out of its memory.
        """
        _, status = os.waitpid(worker.pid, 0)
        del self.workers[worker.pid]
        oom_kills = cgroups.count(worker.memory_events, "oom_kill")
        worker.line.close()
        _close(worker.pidfd)
        _close(worker.memory_events)
        if not self._means.box.mode.namespaces:
            processes.end_children(self.workers)  # what a worker left behind has come to the zygote
        self._remove_group(worker.name)
        if worker.scratch:
            self._means.scratch.remove(worker.name)
        remove_files(worker.unlink)
        self._means.users.give(worker.user)
        return status, oom_kills

    def _remove_group(self, name: str) -> None:
        try:
            self._means.groups.remove(name)
        except OSError as error:
            say(f"cannot remove control group {name}: {error}")  # the next start of a server tries again

    def close(self) -> None:
        """Remove what is left when there are no workers any more."""
        self._means.groups.close()
        self._means.scratch.close()


def remove_files(paths: list[str]) -> None:
    """Remove files that may be gone already."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def say(text: str) -> None:
    """Tell the operator: the driver logs what a zygote wrote."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _start_time() -> str:
    """With the pid, the name of this process that no later one has."""
    with open("/proc/self/stat") as file:
        return file.read().rpartition(")")[2].split()[19]
