"""What the standard library cannot ask of the kernel, or not cheaply."""

from __future__ import annotations

import ctypes
import os
import signal


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children."""
    _prctl(36, 1)


def set_dumpable(dumpable: bool) -> None:
    """Whether processes of the same user may trace this one and read its memory."""
    _prctl(4, int(dumpable))


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends.  A change of the uid clears this: call it after that."""
    _prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


def reap_children() -> bool:
    """Reap the children that have ended; return whether there are others."""
    # PERF: after every call.  os.waitpid() raises where there are none, which costs 4 us instead of 1.
    ended = _libc_waitpid(-1, None, _REAP)
    while ended > 0:
        ended = _libc_waitpid(-1, None, _REAP)
    return bool(ended == 0)


def new_timer() -> int:
    """The descriptor of a timer: `EXPIRATIONS` bytes can be read from it once it has expired."""
    fd: int = _libc_timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"timerfd_create: {os.strerror(number)}")
    return fd


def once(seconds: float) -> object:
    """For `start_timer`: expire once, in less than a second."""
    return _Times(0, 0, 0, int(seconds * 1e9))


def start_timer(fd: int, times: object) -> None:
    """Have a timer expire ``once``."""
    _libc_timerfd_settime(fd, 0, times, None)


def stop_timer(fd: int) -> bool:
    """Return whether it was stopped before it expired."""
    return _libc_timerfd_settime(fd, 0, _NEVER, _before) == 0 and bool(_before[2] or _before[3])


EXPIRATIONS = 8

_REAP = os.WNOHANG | 0x40000000  # __WALL: those made by clone() without SIGCHLD, too

# PERF: made once, in the process that all workers share: making them costs 200 KiB of every fork.
_libc = ctypes.CDLL(None, use_errno=True)
_libc_prctl = _libc.prctl
_libc_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc_waitpid = _libc.waitpid
_libc_waitpid.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_libc_timerfd_create = _libc.timerfd_create
_libc_timerfd_settime = _libc.timerfd_settime
# struct itimerspec: seconds and nanoseconds of the interval, then of the value
_Times = ctypes.c_long * 4
_NEVER = _Times()
_before = _Times()  # what timerfd_settime() tells; a handler has one thread of its own
_libc_timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def _prctl(option: int, value: int) -> None:
    if _libc_prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
