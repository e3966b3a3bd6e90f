"""A process that forks workers without any isolation, for the fake orchestrator; it dies with its starter.

Over a socket (AF_UNIX, SOCK_SEQPACKET) come JSON objects
``{"worker": ID, "concurrency": n, "directory": path}`` with the listening socket; back comes
``{"worker": ID, "pid": n}``, and when a worker has ended ``{"worker": ID, "ended": wait status}``.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from funcplat.worker import host, supervisor

_MESSAGE = 64 * 1024


class ForkServer:
    """One thread, one poll."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._workers: dict[int, tuple[str, int, int]] = {}  # pidfd: id, pid, lifeline

    def run(self) -> None:
        """Serve until the other end of the socket closes."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._workers:
                    self._reap(descriptor)
                elif not self._receive():
                    return

    def _receive(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 1)
        if not data:
            return False
        order = json.loads(data)
        lifeline, alive = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._become_worker(order, descriptors[0], lifeline)
        for descriptor in (*descriptors, lifeline):
            os.close(descriptor)
        pidfd = os.pidfd_open(pid)
        self._workers[pidfd] = order["worker"], pid, alive
        self._poll.register(pidfd, select.POLLIN)
        self._send(worker=order["worker"], pid=pid)
        return True

    def _become_worker(self, order: dict[str, Any], listener: int, lifeline: int) -> NoReturn:
        code = 1
        try:
            self._control.close()
            for pidfd, (_, _, alive) in self._workers.items():
                os.close(pidfd)
                os.close(alive)
            os.chdir(order["directory"])
            supervisor.serve(
                host.Host(
                    listener=socket.socket(fileno=listener),
                    concurrency=order["concurrency"],
                    lifeline=lifeline,
                    code_dir=f"{order['directory']}/pushed/code",
                    scratch=order["directory"],
                )
            )
            code = 0
        finally:
            os._exit(code)

    def _reap(self, pidfd: int) -> None:
        worker_id, pid, alive = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        os.close(alive)
        self._send(worker=worker_id, ended=status)

    def _send(self, **message: Any) -> None:
        self._control.send(json.dumps(message).encode())


def main(descriptor: int) -> None:
    """Be a fork server on an inherited socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = [path for path in sys.path if path]
    gc.freeze()
    ForkServer(socket.socket(fileno=descriptor)).run()
