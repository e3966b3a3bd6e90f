"""The process that workers are forked from.  Standard library only.

It is an interpreter of Python also where what it forks executes something else, see `nodejs`.

A driver starts one per interpreter of functions, with an empty environment, and talks to it over a
socket (AF_UNIX, SOCK_SEQPACKET): a JSON object a message, descriptors beside it.  When that socket closes,
the zygote kills every worker, clears up after them and ends; so nothing outlives a server that is killed.

Messages to the zygote::

    {"op": "hello", "modes": [...], "root": path, "hidden": [...], "host_network": bool, "user": n,
     "scratch": path, "hierarchies": [...], "spares": n,
     "program": null or {"node": path, "files": [...], "worker": path}}          answered once
    {"op": "start", "worker": ID, "code": path or null, "memory": n, "pids": n, "cpu": n, "disk": n,
     "concurrency": n, "unlink": [paths]}                                        with listener and log
    {"op": "stop", "worker": ID, "grace": seconds}                               answered by "ended"

and from it::

    {"op": "hello", "mode": MODE or null, "failures": [[mode, why], ...]}
    {"op": "started", "worker": ID, "pid": n, "name": group, "code": path}   shut in and about to serve
    {"op": "failed", "worker": ID, "errno": n, "message": "..."}             "ended" follows
    {"op": "ended", "worker": ID, "status": wait status, "oom_kills": n}     nothing of it is left
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from funcplat.drivers.process import (
    cgroups,
    kernel,
    newborn,
    nodejs,
    nursery,
    rehearsal,
    rootfs,
    sandbox,
    scratch,
    users,
)
from funcplat.worker import preload

_MESSAGE = 64 * 1024  # bytes
_REFILL_DELAY = 0.05  # seconds without a request, so that a new spare does not compete with a cold start


class Zygote:
    """Serves a driver: one thread, one poll."""

    def __init__(self, control: socket.socket, nursery: nursery.Nursery) -> None:
        self._control = control
        self._nursery = nursery
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._watch(control.fileno(), self._receive)
        self._refill_at: float | None = time.monotonic()
        self._open = True

    def run(self) -> None:
        """Serve the driver until it goes away; nothing is left then."""
        while self._open:
            for descriptor, _ in self._poll.poll(self._patience()):
                if descriptor in self._actions:  # an earlier one of this round may have closed it
                    self._actions[descriptor]()
            self._do_overdue()
        self._end()

    def _end(self) -> None:
        for worker in self._nursery.workers.values():
            worker.kill()
        for worker in list(self._nursery.workers.values()):
            self._reap(worker)
        self._nursery.close()

    # -- events ---------------------------------------------------------------------------------

    def _watch(self, descriptor: int, action: Callable[[], None]) -> None:
        self._actions[descriptor] = action
        self._poll.register(descriptor, select.POLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._actions.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def _patience(self) -> int | None:
        """Milliseconds until something is to be done unasked."""
        moments = [worker.kill_at for worker in self._nursery.workers.values()] + [self._refill_at]
        due = [moment for moment in moments if moment is not None]
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1) if due else None

    def _do_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._nursery.workers.values():
            if worker.kill_at is not None and worker.kill_at <= now:
                worker.kill()
        if self._refill_at is not None and self._refill_at <= now:
            self._refill()

    def _refill(self) -> None:
        """Fork a spare if one is missing, one at a time, so that requests do not wait."""
        self._refill_at = None
        if not self._nursery.lacks_spares:
            return
        try:
            self._fork()
        except OSError as error:
            nursery.say(f"cannot fork a spare: {error}")  # the next start tries again and tells the driver
            return
        self._refill_at = time.monotonic()

    def _fork(self) -> nursery.Worker:
        worker = self._nursery.fork()
        self._watch(worker.pidfd, functools.partial(self._reap, worker))
        self._watch(worker.line.fileno(), functools.partial(self._hear, worker))
        return worker

    # -- requests -------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 2)
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            self._open = False
            return
        message = json.loads(data)
        try:
            if message["op"] == "start":
                self._start(message, descriptors)
            elif message["op"] == "stop":
                self._stop(message["worker"], message["grace"])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _stop(self, worker_id: str, grace: float) -> None:
        worker = self._nursery.find(worker_id)
        if worker is None:
            return  # "ended" is under way
        if grace <= 0 or not worker.entered:
            worker.kill()
            return
        signal.pidfd_send_signal(worker.pidfd, signal.SIGTERM)
        kill_at = time.monotonic() + grace
        worker.kill_at = min(kill_at, worker.kill_at) if worker.kill_at is not None else kill_at

    def _start(self, message: Mapping[str, Any], descriptors: list[int]) -> None:
        spares = self._nursery.spares()
        try:
            worker = spares[0] if spares else self._fork()
        except OSError as error:
            nursery.remove_files(message["unlink"])
            self._send("failed", message["worker"], **newborn.failure(error))
            self._send("ended", message["worker"], status=0, oom_kills=0)
            return
        worker.worker_id, worker.unlink = message["worker"], message["unlink"]
        try:
            self._nursery.order(worker, message, descriptors)
        except OSError as error:
            worker.fail(error)
        self._refill_at = time.monotonic() + _REFILL_DELAY

    # -- what becomes of workers ----------------------------------------------------------------

    def _hear(self, worker: nursery.Worker) -> None:
        """A worker says that it has entered its sandbox, or why it could not; its pidfd tells its end."""
        try:
            data = worker.line.recv(_MESSAGE)
        except ConnectionError:
            data = b""
        if not data:
            self._unwatch(worker.line.fileno())
        elif data == newborn.GO:
            worker.entered = True
            self._send("started", worker.worker_id, pid=worker.pid, name=worker.name, code=worker.code)
        else:
            worker.failure = worker.failure or json.loads(data)

    def _reap(self, worker: nursery.Worker) -> None:
        if worker.line.fileno() in self._actions and not worker.entered and not worker.failure:
            self._hear(worker)
        self._unwatch(worker.pidfd)
        self._unwatch(worker.line.fileno())
        status, oom_kills = self._nursery.bury(worker)
        if not worker.worker_id:
            if worker.failure:
                nursery.say(f"a spare could not be made: {worker.failure['message']}")
            return
        if worker.failure:
            self._send("failed", worker.worker_id, **worker.failure)
        self._send("ended", worker.worker_id, status=status, oom_kills=oom_kills)

    def _send(self, op: str, worker_id: str, **fields: object) -> None:
        send(self._control, {"op": op, "worker": worker_id, **fields})


def send(control: socket.socket, message: Mapping[str, object]) -> None:
    """Send one message; that a driver is gone shows when the next one is received."""
    try:
        control.send(json.dumps(message).encode())
    except (BrokenPipeError, ConnectionResetError):
        return


def preload_modules() -> None:
    """Import what workers share, as long as the platform's package can be found."""
    for name in preload.MODULES:
        importlib.import_module(name)


def main(control: socket.socket) -> None:
    """Be a zygote: agree with the driver at the other end of the socket, then serve it."""
    kernel.set_name("funcplat-zygote")
    kernel.set_parent_death_signal(signal.SIGTERM)
    control.set_inheritable(False)
    os.umask(0o022)  # functions, as other users, read what it makes
    greeting = json.loads(control.recv(_MESSAGE))
    program = _program(greeting)
    modes = [sandbox.Mode(value) for value in greeting["modes"]]
    layout = _layout(greeting, program)
    box, failures = rehearsal.choose(modes, layout, program, greeting["user"])
    send(control, {"op": "hello", "mode": box.mode.value if box else None, "failures": failures})
    if box is None:
        return
    # The end of the thread that started this process counts as the end of the conversation.
    signal.signal(signal.SIGTERM, lambda *_: control.shutdown(socket.SHUT_RD))
    gc.collect()
    gc.freeze()  # so that the collectors of workers do not write to what they share
    Zygote(control, nursery.Nursery(_means(greeting, box, program))).run()


def _program(greeting: Mapping[str, Any]) -> nodejs.Program | None:
    given = greeting["program"]
    return nodejs.Program(given["node"], tuple(given["files"]), given["worker"]) if given else None


def _means(
    greeting: Mapping[str, Any], box: sandbox.Sandbox, program: nodejs.Program | None
) -> nursery.Means:
    hierarchies = [
        cgroups.Hierarchy(each["version"], each["path"], frozenset(each["controllers"]))
        for each in greeting["hierarchies"]
    ]
    return nursery.Means(
        box=box,
        program=program,
        groups=cgroups.Cgroups(tuple(hierarchies), {}),
        users=users.Users(greeting["user"]),
        scratch=scratch.Scratch(greeting["scratch"]),
        spares=greeting["spares"],
    )


def _layout(greeting: Mapping[str, Any], program: nodejs.Program | None) -> rootfs.Layout:
    root, hidden, host_network = greeting["root"], tuple(greeting["hidden"]), greeting["host_network"]
    if program is not None:
        return rootfs.Layout(root, program.files, hidden, host_network, program.worker)
    named = [sys.base_prefix, sys.base_exec_prefix]
    prefixes = dict.fromkeys([*named, *map(os.path.realpath, named)])
    if "/" in prefixes:
        raise SystemExit("the interpreter's prefix is /, which would show the whole machine to functions")
    return rootfs.Layout(root, tuple(prefixes), hidden, host_network)
