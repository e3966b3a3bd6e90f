"""The handlers of a loaded worker, and which of them runs which call."""

from __future__ import annotations

import _socket
import collections
import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable

from funcplat.worker import (
    board,
    connection,
    guest,
    handler,
    handlers,
    host,
    http,
    kernel,
    load,
    log,
    loop,
    tree,
    verdicts,
)

SAMPLE_SECONDS = 0.05
"""Age at which the kernel's counters are read again when a call begins.

What the counters show at a failure is held against the last reading, so this is how far back a
refused fork or a kill may lie that a failure is blamed on.  Reading them for every call would cost as much as
a fifth of the call."""

SWEEP_SECONDS = 0.01
"""Pause before another try to kill what did not die at once."""


@dataclasses.dataclass(slots=True)
class Call:
    """One execution, from its request to its answer."""

    connection: connection.Connection
    execution: bytes
    timeout: float  # seconds
    body: bytes  # the input, JSON


class Pool:
    """Keeps at most ``concurrency`` handlers; makes one only when a call finds none idle."""

    def __init__(
        self,
        surroundings: host.Host,
        events: loop.Loop,
        revision: load.Revision,
        may_lend: Callable[[], bool],
    ) -> None:
        """``may_lend`` says whether connections may be lent to handlers."""
        self.loop = events
        self.revision = revision
        self.busy = 0  # calls that run or wait for a handler
        self._host = surroundings
        self._may_lend = may_lend
        self._handlers: dict[int, handlers.Handler] = {}  # by pid, the dying ones too
        self._idle: list[handlers.Handler] = []  # the last used is last, and taken first: its caches are warm
        self._waiting: collections.deque[Call] = collections.deque()  # for a handler to be gone
        self._import_failure: tuple[verdicts.Outcome, log.Log] | None = None
        self._sampled_at = -math.inf
        self._oom_kills = 0
        self._pids_hits = 0
        self._sweep_at = math.inf
        events.ticker = self._tick
        self.sample(time.monotonic())

    @property
    def occupied(self) -> int:
        """Calls that run or wait, those with clients that handlers serve themselves too."""
        return self.busy + sum(one.serves_client for one in self._handlers.values())

    @property
    def held(self) -> int:
        """Calls that run or wait, and clients from whom handlers may take one at any moment."""
        return self.busy + sum(one.has_client for one in self._handlers.values())

    def start(self) -> None:
        """Make the first handler, so that the import is under way before the first call."""
        try:
            self._spawn()
        except OSError:
            # Nobody waits for it yet: the first call tries again and gets the reason.
            return

    def run(self, connection: connection.Connection, execution: bytes, timeout: float, body: bytes) -> None:
        """Run the function and answer on the connection."""
        self.busy += 1
        call = Call(connection, execution, timeout, body)
        if self._idle:
            self._idle.pop().begin(call)
        else:
            self._place(call)

    def finish(self, call: Call, answer: bytes) -> None:
        """A call has its answer."""
        self.busy -= 1
        call.connection.answer(answer)

    def finish_with(self, call: Call, outcome: verdicts.Outcome, output: log.Log, duration: float) -> None:
        """A call ended in a way that is to be explained."""
        status = b"success" if outcome.success else b"failed"
        self.finish(
            call,
            http.remarked(
                status,
                outcome.result,
                bytes(output.data),
                duration,
                outcome.reason,
                outcome.message,
                output.dropped,
            ),
        )

    def output_of(self, execution: bytes) -> log.Log | None:
        """The output so far of an execution that runs here."""
        for candidate in self._handlers.values():
            if candidate.call is not None and candidate.call.execution == execution:
                candidate.pipe.drain()
                return candidate.pipe.log
        waits = any(call.execution == execution for call in self._waiting)
        return log.Log(0) if waits else None

    def cancel(self, execution: bytes) -> bool:
        """Kill an execution that runs here, and answer its call; False where there is none."""
        for call in self._waiting:
            if call.execution == execution:
                self._waiting.remove(call)
                self.finish_with(call, verdicts.cancelled(), log.Log(0), 0.0)
                return True
        for one in self._handlers.values():
            if one.call is not None and one.call.execution == execution:
                self._cancel(one, one.call)
                return True
        return False

    def _cancel(self, one: handlers.Handler, call: Call) -> None:
        if one.state is handlers.State.BUSY:
            one.cancel()
        else:  # it waits for an import, which goes on: others will need it
            one.call = None
            self.finish_with(call, verdicts.cancelled(), log.Log(0), 0.0)

    def recall(self) -> None:
        """Have every connection back that was lent, as soon as its handler has no call."""
        for one in self._handlers.values():
            one.recall()

    def end(self) -> None:
        """Kill every handler and all that they started."""
        for pid in self._handlers:
            tree.kill(pid)
        tree.sweep(())

    # -- called by handlers -------------------------------------------------------------------------

    def free(self, free: handlers.Handler) -> None:
        """A handler can take a call."""
        if self._waiting:
            free.begin(self._waiting.popleft())
        else:
            self._idle.append(free)

    def may_lend(self, client: connection.Connection) -> bool:
        """Whether a handler may keep the client that it has just served."""
        return not self._waiting and client.can_be_lent and self._may_lend()

    def taken_over(self, client: connection.Connection, posted: board.Posted) -> Call:
        """A call that a handler took from its client, and that is not a short one."""
        self.busy += 1
        return Call(client, posted.execution, posted.timeout, b"")

    def withdraw(self, handler: handlers.Handler) -> None:
        """A handler is to take no further call."""
        if handler in self._idle:
            self._idle.remove(handler)

    def import_failed(self, outcome: verdicts.Outcome, output: log.Log) -> None:
        """An import failed for which no call waited: the next call gets to know."""
        self._import_failure = outcome, output

    def gone(self, handler: handlers.Handler) -> None:
        """A handler is dead and reaped."""
        del self._handlers[handler.pid]
        self._sweep()
        if self._waiting:
            self._place(self._waiting.popleft())

    def sample(self, now: float) -> None:
        """Remember what the kernel has counted so far, unless it was asked just now."""
        if now - self._sampled_at > SAMPLE_SECONDS:
            self._sampled_at = now
            self._oom_kills = self._host.oom_kills()
            self._pids_hits = self._host.pids_hits()

    def blame(self, outcome: verdicts.Outcome) -> verdicts.Outcome:
        """The outcome, with what the kernel counted meanwhile as its reason where that explains it."""
        if outcome.reason not in ("function_raised", "import_failed", "timeout"):
            return outcome
        oom_killed, pids_refused = self.counted()
        if pids_refused:
            return verdicts.with_pids_refused(outcome)
        if oom_killed and outcome.reason != "timeout":
            return verdicts.with_oom_kill(outcome)
        return outcome

    def counted(self) -> tuple[bool, bool]:
        """Whether the kernel killed for memory, and whether it refused forks, since the last sample."""
        return self._host.oom_kills() > self._oom_kills, self._host.pids_hits() > self._pids_hits

    # -- own ----------------------------------------------------------------------------------------

    def _place(self, call: Call) -> None:
        if self._import_failure is not None:
            outcome, output = self._import_failure
            self._import_failure = None
            self.finish_with(call, outcome, output, 0.0)
            return
        importing = next((one for one in self._handlers.values() if one.takes_first_call), None)
        if importing is not None:
            importing.call = call
        elif len(self._handlers) < self.revision.concurrency:
            self._spawn_for(call)
        else:  # one of them is dying, or has a client of its own
            self._waiting.append(call)
            self.recall()

    def _spawn_for(self, call: Call) -> None:
        try:
            self._spawn().call = call
        except OSError as error:
            _oom, pids_refused = self.counted()
            self.finish_with(call, verdicts.not_started(error, pids_refused), log.Log(0), 0.0)

    def _spawn(self) -> handlers.Handler:
        fds: list[int] = []
        try:
            # PERF: `_socket`, since `socket` makes enumeration members, which copies shared memory.
            fds += (end.detach() for end in _socket.socketpair())
            fds += os.pipe()
            fds.append(kernel.new_timer())
            ours, theirs, reader, writer, timer = fds
            page = board.Board()
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                surface = guest.Surface(page, timer, reader)
                raise handler.Birth(parent, theirs, writer, surface, self._host, self.revision)
            pidfd = _open_child(pid)
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        os.close(theirs)
        os.close(writer)
        made = handlers.Handler(self, pid, pidfd, ours, reader, page, timer)
        self._handlers[pid] = made
        return made

    def _sweep(self) -> None:
        clean = tree.sweep(self._handlers)
        self._sweep_at = math.inf if clean else time.monotonic() + SWEEP_SECONDS
        self.loop.at(self._sweep_at)

    def _tick(self, now: float) -> float:
        if self._sweep_at <= now:
            self._sweep()
        # A copy: a handler that expires may make room for another one.
        times = [one.tick(now) for one in list(self._handlers.values())]
        return min(self._sweep_at, *times) if times else self._sweep_at


def _open_child(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
