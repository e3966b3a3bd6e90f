"""The rest of the life of a process that the zygote has forked.  Standard library only."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import signal
import socket
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from funcplat.drivers.process import cgroups, kernel, nodejs, sandbox
from funcplat.worker import host, supervisor

ORDER_SIZE = 16 * 1024
"""Bytes of an order; paths are what can be long in it."""
GO = b"{}"
"""To a newborn: it was admitted.  From it: it has entered its sandbox."""


@dataclasses.dataclass(frozen=True, slots=True)
class Newborn:
    """A worker before it serves: where it hears from the zygote, and what it got from it."""

    line: socket.socket
    """Brings the permission to go on, then the order; after that its end is the worker's end."""
    user: int
    memory_events: int  # -1: there are none
    pids_events: int
    program: nodejs.Program | None  # None: it serves in this interpreter

    def live(self, box: sandbox.Sandbox) -> NoReturn:
        """Be a worker; never returns."""
        code = 1
        try:
            self._inherit_nothing()
            if self.line.recv(len(GO)) == GO:
                box.settle()
                code = self._serve(box)
        except BaseException:  # the end of this process: its log is where that is told
            traceback.print_exc()
        finally:
            os._exit(code)

    def _inherit_nothing(self) -> None:
        """Close all that is not this worker's own."""
        os.setsid()
        kernel.set_name("funcplat-worker")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        keep = {0, 1, 2, self.line.fileno(), self.memory_events, self.pids_events}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in keep:
                _close(int(name))

    def _serve(self, box: sandbox.Sandbox) -> int:
        """Become what the zygote orders; returns an exit code."""
        data, descriptors, _, _ = socket.recv_fds(self.line, ORDER_SIZE, 2)
        if not data:
            return 0  # the zygote ends, or has no use for this one
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        listener, log = descriptors
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        order = json.loads(data)
        birth = sandbox.Birth(**order["birth"])
        if self.program is not None:
            return self._attend(self.program, box, birth, listener, order["concurrency"])
        with self._telling():
            inside = self._enter(box, birth)
        supervisor.serve(self._host(inside, listener, order["concurrency"]))
        return 0

    def _attend(
        self,
        program: nodejs.Program,
        box: sandbox.Sandbox,
        birth: sandbox.Birth,
        listener: int,
        concurrency: int,
    ) -> int:
        given = nodejs.Given(listener, self.memory_events, self.pids_events, birth.memory, concurrency)
        with self._telling():
            inside = self._enter(box, birth)
            pid = nodejs.start(program, inside, given)
        os.close(listener)
        return nodejs.attend(pid, inside)

    def _enter(self, box: sandbox.Sandbox, birth: sandbox.Birth) -> sandbox.Inside:
        inside = box.enter(birth, self.user)
        os.chdir(inside.scratch)
        return inside

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell the zygote that this process has become a worker, or why not."""
        try:
            yield
        except OSError as error:
            self.line.send(json.dumps(failure(error)).encode())
            raise
        self.line.send(GO)

    def _host(self, inside: sandbox.Inside, listener: int, concurrency: int) -> host.Host:
        return host.Host(
            listener=socket.socket(fileno=listener),
            concurrency=concurrency,
            lifeline=self.line.fileno(),
            confine=inside.confinement.apply,
            oom_kills=functools.partial(cgroups.count, self.memory_events, "oom_kill"),
            pids_hits=functools.partial(cgroups.count, self.pids_events, "max"),
            code_dir=inside.code,
            scratch=inside.scratch,
        )


def failure(error: OSError) -> dict[str, Any]:
    """What the driver is told about an error."""
    return {"errno": error.errno or errno.EIO, "message": str(error.strerror or error)}


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError as error:
        if error.errno != errno.EBADF:  # the one that listed the directory
            raise
