"""The supervisor's view of one handler process: its life, deadline, output and verdict."""

from __future__ import annotations

import array
import enum
import fcntl
import math
import os
import termios
import time
from typing import TYPE_CHECKING

from funcplat.worker import frames, http, log, loop, tree, verdicts

if TYPE_CHECKING:
    from funcplat.worker import pool

LOG_DELAY = 0.005
"""Seconds between looks at the output of a running handler that writes little.

PERF: being woken for every line costs more than the line.  A call that is shorter than this costs one ioctl
for its output; a handler that fills its pipe is read at once whenever it does.
"""

_RECEIVE = 64 * 1024
_FULL_PIPE = 16 * 1024
_SEVERED_SECONDS = 1.0
"""Time for a handler whose channel is closed to turn out to be dead, which is what that mostly means."""
_SLACK = frames.MAX_MESSAGE + 4096
"""Bytes of a report beyond the largest result: a failure's text may be longer than a small ``max_result``."""


class State(enum.Enum):
    IMPORTING = 1
    IDLE = 2
    BUSY = 3
    DYING = 4  # killed or dead, not reaped yet


# PERF: a member of an Enum costs an attribute look-up more than a global.
_IMPORTING, _IDLE, _BUSY, _DYING = State


class Handler:
    """One handler process.  Whatever comes from it may be a lie of user code."""

    __slots__ = (
        "_armed", "_channel", "_count", "_dead", "_deadline", "_fresh", "_input", "_log_at", "_output",
        "_pidfd", "_pipe", "_pool", "_sequence", "_severed", "_started_at", "call", "log", "pid", "state",
    )  # fmt: skip

    def __init__(self, owner: pool.Pool, pid: int, pidfd: int, channel: int, pipe: int) -> None:
        now = time.monotonic()
        self._pool = owner
        self.pid = pid
        self.state = _IMPORTING
        self.call: pool.Call | None = None
        self.log = log.Log(owner.revision.max_log)
        self._channel = channel
        os.set_blocking(channel, False)
        self._pipe = pipe
        os.set_blocking(pipe, False)
        self._count = array.array("i", (0,))  # takes answers of the kernel
        self._pidfd = pidfd
        self._input = b""  # of a report that is not complete
        self._output: memoryview | None = None  # of a call that the handler did not take yet
        self._sequence = frames.IMPORTING
        self._fresh = True  # its log still holds what the import wrote
        self._armed = False  # the loop watches the pipe
        self._severed = False  # its end of the channel is closed
        self._dead = False
        self._started_at = now
        self._deadline = now + owner.revision.import_timeout
        self._log_at = now + LOG_DELAY
        owner.loop.watch(channel, loop.READ, self._channel_ready)
        owner.loop.watch(pipe, loop.ONCE, self._pipe_ready)
        owner.loop.watch(self._pidfd, loop.READ, self._exited)
        owner.loop.at(self._log_at)

    @property
    def takes_first_call(self) -> bool:
        """Whether it still imports and no call waits for that."""
        return self.state is _IMPORTING and self.call is None

    def begin(self, call: pool.Call) -> None:
        """Run a call; the handler is idle."""
        now = time.monotonic()
        self._pool.sample(now)
        if self._fresh:
            self._fresh = False
        else:
            self._take()  # what threads wrote between calls belongs to none
            self.log = log.Log(self._pool.revision.max_log)
        self.call = call
        self.state = _BUSY
        self._sequence += 1
        self._started_at = now
        self._deadline = now + call.timeout
        self._log_at = now + LOG_DELAY
        self._pool.loop.at(min(self._deadline, self._log_at))
        self._send(frames.call(self._sequence, call.execution, call.body))

    def drain(self) -> int:
        """Move what the pipe holds now to the log; return how many bytes that were."""
        data = self._take()
        if data:
            self.log.write(data)
        return len(data)

    def tick(self, now: float) -> float:
        """Do what is due; return when something is due next."""
        if self.state is _IDLE or self.state is _DYING:
            return math.inf
        if self._deadline <= now:
            self._expire(now)
            return math.inf
        if self._log_at <= now:
            self._log_at = math.inf
            self._arm()
        return min(self._deadline, self._log_at)

    # -- events -------------------------------------------------------------------------------------

    def _channel_ready(self, events: int) -> None:
        if self.state is _DYING:
            return
        if self._output is not None and events & loop.WRITE:
            self._send_rest(self._output)
        if events & ~loop.WRITE:
            self._receive()

    def _receive(self) -> None:
        try:
            data = os.read(self._channel, _RECEIVE)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._sever()
            return
        if self._input:
            data = self._input + data
        if len(data) < frames.REPORT.size:
            self._input = data
            return
        length, sequence, kind, reason, flags, duration, result_length = frames.REPORT.unpack_from(data)
        end = length + frames.LENGTH
        if len(data) > end or length > self._pool.revision.max_result + _SLACK:
            self._break("sent something that is not a report of its execution")
        elif len(data) < end:
            self._input = data
        else:
            self._input = b""
            self._report(sequence, kind, reason, flags, duration, data[frames.REPORT.size :], result_length)

    def _pipe_ready(self, events: int) -> None:
        self._armed = False
        if self.state is _DYING:
            return
        if self.state is _IDLE:
            # Output outside an execution.  It is thrown away once; the pipe is not watched again before the
            # next call, so that a thread that goes on printing blocks instead of keeping the supervisor busy.
            self._take()
        elif self.drain() >= _FULL_PIPE:
            self._arm()
        else:
            self._log_at = time.monotonic() + LOG_DELAY
            self._pool.loop.at(self._log_at)

    def _exited(self, events: int) -> None:
        end = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if end is None:
            return
        self._dead = True
        if self.state is _BUSY or self.state is _IMPORTING:
            self._receive()  # a report may have come right before the end
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
            self._fail(self._reported(reason, rest, length), 0.0)
        elif self.state is _BUSY and sequence == self._sequence and kind in (frames.SUCCESS, frames.FAILURE):
            elapsed = time.monotonic() - self._started_at
            if not 0.0 <= duration <= elapsed:
                duration = elapsed
            self._result(kind, reason, flags, duration, rest, length)
        else:
            self._break("sent a report that nobody waits for")

    def _ready(self) -> None:
        call = self.call
        self.state = _IDLE
        self._deadline = math.inf
        if call is not None:
            self.begin(call)
        else:
            self.drain()
            self._pool.free(self)

    def _result(self, kind: int, reason: int, flags: int, duration: float, rest: bytes, length: int) -> None:
        call = self.call
        assert call is not None
        if length > min(len(rest), self._pool.revision.max_result + _SLACK):
            self._break("sent something that is not a report of its execution")
            return
        if flags:
            self._kill()
        else:
            self.drain()
            self.state = _IDLE
        self.call = None
        output = self.log
        if kind == frames.FAILURE:
            outcome = self._blame(self._reported(reason, rest, length))
            self._pool.finish_with(call, outcome, output, duration)
        elif flags or output.dropped:
            self._finish_remarked(call, rest[:length], flags, duration)
        else:
            self._pool.finish(call, http.success(rest[:length], bytes(output.data), duration))
        if not flags and not self._dead:
            self._pool.free(self)

    def _finish_remarked(self, call: pool.Call, result: bytes, flags: int, duration: float) -> None:
        left = bool(flags & frames.LEFT_PROCESSES)
        reason, message = verdicts.remark(left, self.log.dropped, self.log.cap)
        self._pool.finish_with(call, verdicts.Outcome(True, result, reason, message), self.log, duration)

    def _reported(self, reason: int, rest: bytes, length: int) -> verdicts.Outcome:
        code = frames.REASONS[reason] if 0 < reason < len(frames.REASONS) else "function_raised"
        return verdicts.Outcome(False, rest[:length], code, rest[length:].decode("utf-8", "replace"))

    def _blame(self, outcome: verdicts.Outcome) -> verdicts.Outcome:
        """The outcome, with what the kernel counted meanwhile as its reason where that explains it."""
        if outcome.reason not in ("function_raised", "import_failed", "timeout"):
            return outcome
        oom_killed, pids_refused = self._pool.counted()
        if pids_refused:
            return verdicts.with_pids_refused(outcome)
        if oom_killed and outcome.reason != "timeout":
            return verdicts.with_oom_kill(outcome)
        return outcome

    # -- ends ---------------------------------------------------------------------------------------

    def _sever(self) -> None:
        """The channel is at its end: the handler is dead, which the loop will tell, or closed it."""
        self._pool.loop.forget(self._channel)
        self._severed = True
        if self.state is _IDLE:
            self._break("")
        else:
            self._deadline = min(self._deadline, time.monotonic() + _SEVERED_SECONDS)
            self._pool.loop.at(self._deadline)

    def _expire(self, now: float) -> None:
        if self._severed:
            self._break("closed the channel on which results are returned")
            return
        revision = self._pool.revision
        if self.state is _IMPORTING:
            outcome = verdicts.import_timed_out(revision.import_timeout, revision.entry)
        else:
            assert self.call is not None
            outcome = verdicts.timed_out(self.call.timeout)
        duration = 0.0 if self.state is _IMPORTING else now - self._started_at
        self._kill()
        self._fail(self._blame(outcome), duration)

    def _died(self, signal: int, exit_code: int) -> None:
        importing = self.state is _IMPORTING
        oom_killed, pids_refused = self._pool.counted()
        outcome = verdicts.died(verdicts.Death(signal, exit_code, importing, oom_killed, pids_refused))
        self.state = _DYING
        self.drain()
        self._fail(outcome, 0.0 if importing else time.monotonic() - self._started_at)

    def _break(self, what: str) -> None:
        """User code meddled with the channel."""
        running = self.state is _BUSY or self.state is _IMPORTING
        if self.state is _IDLE:
            self._pool.withdraw(self)
        self._kill()
        if running:
            self._fail(verdicts.hijacked(what), time.monotonic() - self._started_at)

    def _fail(self, outcome: verdicts.Outcome, duration: float) -> None:
        call = self.call
        self.call = None
        if call is not None:
            self._pool.finish_with(call, outcome, self.log, duration)
        else:
            self._pool.import_failed(outcome, self.log)

    def _kill(self) -> None:
        """Kill the process tree and take its last output; `_exited` comes when it is dead."""
        self.state = _DYING
        tree.kill(self.pid)
        self.drain()
        self._pool.loop.forget(self._channel)

    def _close(self) -> None:
        if self.state is not _DYING:
            self._pool.withdraw(self)
            self.state = _DYING
        for fd in (self._channel, self._pipe, self._pidfd):
            self._pool.loop.forget(fd)
        os.close(self._channel)
        os.close(self._pipe)
        os.close(self._pidfd)

    def _take(self) -> bytes:
        # PERF: asking is 0.5 us; a read that finds nothing raises and costs 3 us.
        fcntl.ioctl(self._pipe, termios.FIONREAD, self._count)
        if not self._count[0]:
            return b""
        try:
            return os.read(self._pipe, self._count[0])
        except BlockingIOError:  # the function opened the pipe for itself, and was quicker
            return b""

    # -- sending ------------------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        try:
            sent = os.write(self._channel, frame)
        except BlockingIOError:
            sent = 0
        except ConnectionError:  # it is dead or closed its end: the loop tells about that
            return
        if sent < len(frame):
            self._output = memoryview(frame)[sent:]
            self._pool.loop.change(self._channel, loop.READ | loop.WRITE)

    def _send_rest(self, rest: memoryview) -> None:
        try:
            sent = os.write(self._channel, rest)
        except BlockingIOError:
            return
        except ConnectionError:
            sent = len(rest)
        self._output = rest[sent:] if sent < len(rest) else None
        if self._output is None:
            self._pool.loop.change(self._channel, loop.READ)

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._pool.loop.change(self._pipe, loop.READ | loop.ONCE)
