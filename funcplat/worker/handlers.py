"""The supervisor's view of one handler process: its life, deadline, output and verdict."""

from __future__ import annotations

import enum
import math
import os
import time
from typing import TYPE_CHECKING

from funcplat.worker import channel as channels
from funcplat.worker import frames, http, lender, log, loop, tree, verdicts

if TYPE_CHECKING:
    from funcplat.worker import board, connection, pool

LOG_DELAY = lender.SHORT
"""Seconds between looks at the output of a running handler that writes little.

PERF: being woken for every line costs more than the line.  A call that is shorter than this costs one ioctl
for its output; a handler that fills its pipe is read at once whenever it does.
"""

_FULL_PIPE = 16 * 1024
_SEVERED_SECONDS = 1.0
"""Time for a handler whose channel is closed to turn out to be dead, which is what that mostly means."""
_SLACK = frames.MAX_EXPLANATION + frames.MAX_MESSAGE
"""Bytes of a report beyond the largest result: a failure's text may be longer than a small ``max_result``."""


class State(enum.Enum):
    IMPORTING = 1
    IDLE = 2
    BUSY = 3
    DYING = 4  # killed or dead, not reaped yet
    LENT = 5  # it serves a client itself


# PERF: a member of an Enum costs an attribute look-up more than a global.
_IMPORTING, _IDLE, _BUSY, _DYING, _LENT = State


class Handler:
    """One handler process.  Whatever comes from it may be a lie of user code."""

    __slots__ = (
        "_calls", "_channel", "_dead", "_deadline", "_fresh", "_input", "_lender", "_log_at",
        "_pidfd", "_pool", "_sequence", "_severed", "_started_at", "call", "pid", "pipe", "state",
    )  # fmt: skip

    def __init__(
        self, owner: pool.Pool, pid: int, pidfd: int, channel: int, pipe: int, page: board.Board, timer: int
    ) -> None:
        now = time.monotonic()
        self._pool = owner
        self.pid = pid
        self.state = _IMPORTING
        self.call: pool.Call | None = None
        self._channel = channels.Channel(owner.loop, channel)
        self.pipe = log.Pipe(owner.loop, pipe, owner.revision.max_log, self._pipe_ready)
        self._lender = lender.Lender(owner.loop, channel, page, timer, self)
        self._pidfd = pidfd
        self._input = b""  # of a report that is not complete
        self._calls = 0
        self._sequence = frames.IMPORTING  # of the report that is waited for
        self._fresh = True  # its log still holds what the import wrote
        self._severed = False  # its end of the channel is closed
        self._dead = False
        self._started_at = now
        self._deadline = now + owner.revision.import_timeout
        self._log_at = now + LOG_DELAY
        owner.loop.watch(channel, loop.READ, self._channel_ready)
        owner.loop.watch(self._pidfd, loop.READ, self._exited)
        owner.loop.at(self._log_at)

    @property
    def takes_first_call(self) -> bool:
        """Whether it still imports and no call waits for that."""
        return self.state is _IMPORTING and self.call is None

    @property
    def serves_client(self) -> bool:
        """Whether it runs a call of the client that it was lent."""
        return self.state is _LENT and self._lender.running

    @property
    def has_client(self) -> bool:
        """Whether it was lent a connection, and has not given it back."""
        return self.state is _LENT

    def recall(self) -> None:
        """Have the connection back that it was lent, when it has no call."""
        if self.state is _LENT:
            self._lender.recall()

    def begin(self, call: pool.Call) -> None:
        """Run a call; the handler is idle."""
        now = time.monotonic()
        self._pool.sample(now)
        if self._fresh:
            self._fresh = False
        else:
            self.pipe.begin()  # what threads wrote between calls belongs to none
        self.call = call
        self.state = _BUSY
        self._calls += 1
        self._sequence = self._calls
        self._started_at = now
        self._deadline = now + call.timeout
        self._log_at = now + LOG_DELAY
        self._pool.loop.at(min(self._deadline, self._log_at))
        self._channel.send(frames.call(self._sequence, call.execution, call.body))

    def cancel(self) -> None:
        """Kill what it runs."""
        self._kill()
        self._fail(verdicts.cancelled(), time.monotonic() - self._started_at)

    def tick(self, now: float) -> float:
        """Do what is due; return when something is due next."""
        if self.state is _IDLE or self.state is _DYING:
            return math.inf
        if self._deadline <= now:
            self._expire(now)
            return math.inf
        if self._log_at <= now:
            self._log_at = math.inf
            self.pipe.arm()
        return min(self._deadline, self._log_at)

    # -- events -------------------------------------------------------------------------------------

    def _channel_ready(self, events: int) -> None:
        if self.state is _DYING:
            return
        if events & loop.WRITE:
            self._channel.writable()
        if events & ~loop.WRITE:
            self._receive()

    def _receive(self) -> None:
        data = self._channel.read()
        if data:
            self._take_in(self._input + data if self._input else data)
        elif data is not None:
            self._sever()

    def _take_in(self, data: bytes) -> None:
        if self.state is _LENT and data.startswith(frames.TAKEN):
            self._deadline = math.inf
            data = data[len(frames.TAKEN) :]
        self._input = data
        if len(data) < frames.REPORT.size:
            return
        length, sequence, kind, reason, flags, duration, result_length = frames.REPORT.unpack_from(data)
        end = length + frames.LENGTH
        if len(data) > end or length > max(self._pool.revision.max_result, channels.RECEIVE) + _SLACK:
            self.denounce("sent something that is not a report of its execution")
        elif len(data) == end:
            self._input = b""
            self._report(sequence, kind, reason, flags, duration, data[frames.REPORT.size :], result_length)

    def _pipe_ready(self) -> None:
        if self.state is _DYING or self.state is _LENT:  # then the handler reads it
            return
        if self.state is _IDLE:
            # Output outside an execution.  It is thrown away once; the pipe is not watched again before the
            # next call, so that a thread that goes on printing blocks instead of keeping the supervisor busy.
            self.pipe.take()
        elif self.pipe.drain() >= _FULL_PIPE:
            self.pipe.arm()
        else:
            self._log_at = time.monotonic() + LOG_DELAY
            self._pool.loop.at(self._log_at)

    def _exited(self, events: int) -> None:
        end = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if end is None:
            return
        self._dead = True
        if self.state in (_BUSY, _IMPORTING, _LENT):
            self._receive()  # a report may have come right before the end
        self._lender.reclaim()
        if self.state is _BUSY or self.state is _IMPORTING:
            exited = end.si_code == os.CLD_EXITED
            self._died(0 if exited else end.si_status, end.si_status if exited else 0)
        self._close()
        self._pool.gone(self)

    # -- reports ------------------------------------------------------------------------------------

    def _report(
        self, sequence: int, kind: int, reason: int, flags: int, duration: float, rest: bytes, length: int
    ) -> None:
        if self.state is _IMPORTING and sequence == frames.IMPORTING and kind == frames.READY:
            if not self._dead:
                self._ready()
        elif self.state is _IMPORTING and sequence == frames.IMPORTING and kind == frames.FAILURE:
            self._kill()
            self._fail(_reported(reason, rest, length), 0.0)
        elif self.state is _LENT and sequence == frames.DIRECT and kind == frames.RETURNED:
            self._lender.returned(rest[:length])
        elif self.state is _LENT and sequence == frames.DIRECT:
            if self._lender.take_over():
                self._report(sequence, kind, reason, flags, duration, rest, length)
        elif self.state is _BUSY and sequence == self._sequence and kind in (frames.SUCCESS, frames.FAILURE):
            elapsed = time.monotonic() - self._started_at
            if not 0.0 <= duration <= elapsed:
                duration = elapsed
            self._result(kind, reason, flags, duration, rest, length)
        else:
            self.denounce("sent a report that nobody waits for")

    def _ready(self) -> None:
        call = self.call
        self.state = _IDLE
        self._deadline = math.inf
        if call is not None:
            self.begin(call)
        else:
            self.pipe.drain()
            self._pool.free(self)

    def _result(self, kind: int, reason: int, flags: int, duration: float, rest: bytes, length: int) -> None:
        call = self.call
        assert call is not None
        if length > min(len(rest), self._pool.revision.max_result + _SLACK):
            self.denounce("sent something that is not a report of its execution")
            return
        if flags:
            self._kill()
        else:
            self.pipe.drain()
            self.state = _IDLE
        self.call = None
        output = self.pipe.log
        if kind == frames.FAILURE:
            outcome = self._pool.blame(_reported(reason, rest, length))
            self._pool.finish_with(call, outcome, output, duration)
        elif flags or output.dropped:
            outcome = _remarked(rest[:length], flags, output)
            self._pool.finish_with(call, outcome, output, duration)
        else:
            self._pool.finish(call, http.success(rest[:length], bytes(output.data), duration))
        if not flags and not self._dead:
            self._next(call.connection)

    def _next(self, client: connection.Connection) -> None:
        short = time.monotonic() - self._started_at < lender.SHORT
        if short and self._pool.may_lend(client) and self._lender.lend(client):
            self.state = _LENT
            self._deadline = time.monotonic() + lender.TAKING_SECONDS
            self._log_at = math.inf
            self._pool.loop.at(self._deadline)
        else:
            self._pool.free(self)

    # -- called by its lender ------------------------------------------------------------------------

    def free(self) -> None:
        self.state = _IDLE
        self._pool.free(self)

    def take_over(self, client: connection.Connection, posted: board.Posted) -> None:
        self.call = self._pool.taken_over(client, posted)
        self.pipe.begin_before()
        self.state = _BUSY
        self._sequence = frames.DIRECT
        self._started_at = posted.started
        self._deadline = posted.started + posted.timeout
        self._log_at = math.inf
        self.pipe.arm()
        self._pool.loop.at(self._deadline)

    def bereave(self) -> None:
        self.state = _IDLE

    def denounce(self, lie: str) -> None:
        """User code meddled with what its process and the supervisor have in common."""
        self._lender.reclaim()
        running = self.state is _BUSY or self.state is _IMPORTING
        if self.state is _IDLE:
            self._pool.withdraw(self)
        self._kill()
        if running:
            self._fail(verdicts.hijacked(lie), time.monotonic() - self._started_at)

    # -- ends ---------------------------------------------------------------------------------------

    def _sever(self) -> None:
        """The channel is at its end: the handler is dead, which the loop will tell, or closed it."""
        self._pool.loop.forget(self._channel.fd)
        self._severed = True
        self._lender.reclaim()
        if self.state is _IDLE:
            self.denounce("")
        else:
            self._deadline = min(self._deadline, time.monotonic() + _SEVERED_SECONDS)
            self._pool.loop.at(self._deadline)

    def _expire(self, now: float) -> None:
        if self._severed:
            self.denounce("closed the channel on which results are returned")
            return
        if self.state is _LENT:
            self.denounce("")
            return
        revision = self._pool.revision
        if self.state is _IMPORTING:
            outcome = verdicts.import_timed_out(revision.import_timeout, revision.entry)
        else:
            assert self.call is not None
            outcome = verdicts.timed_out(self.call.timeout)
        duration = 0.0 if self.state is _IMPORTING else now - self._started_at
        self._kill()
        self._fail(self._pool.blame(outcome), duration)

    def _died(self, signal: int, exit_code: int) -> None:
        importing = self.state is _IMPORTING
        oom_killed, pids_refused = self._pool.counted()
        outcome = verdicts.died(verdicts.Death(signal, exit_code, importing, oom_killed, pids_refused))
        self.state = _DYING
        self.pipe.drain()
        self._fail(outcome, 0.0 if importing else time.monotonic() - self._started_at)

    def _fail(self, outcome: verdicts.Outcome, duration: float) -> None:
        call = self.call
        self.call = None
        if call is not None:
            self._pool.finish_with(call, outcome, self.pipe.log, duration)
        else:
            self._pool.import_failed(outcome, self.pipe.log)

    def _kill(self) -> None:
        """Kill the process tree and take its last output; `_exited` comes when it is dead."""
        self.state = _DYING
        tree.kill(self.pid)
        self.pipe.drain()
        self._pool.loop.forget(self._channel.fd)

    def _close(self) -> None:
        if self.state is not _DYING:
            self._pool.withdraw(self)
            self.state = _DYING
        self._pool.loop.forget(self._pidfd)
        self._lender.close()
        self._channel.close()
        self.pipe.close()
        os.close(self._pidfd)


def _reported(reason: int, rest: bytes, length: int) -> verdicts.Outcome:
    code = frames.REASONS[reason] if 0 < reason < len(frames.REASONS) else "function_raised"
    return verdicts.Outcome(False, rest[:length], code, rest[length:].decode("utf-8", "replace"))


def _remarked(result: bytes, flags: int, output: log.Log) -> verdicts.Outcome:
    left = bool(flags & frames.LEFT_PROCESSES)
    return verdicts.Outcome(True, result, *verdicts.remark(left, output.dropped, output.cap))
