"""The process attributes that the standard library cannot set: prctl(2)."""

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


# PERF: made once, in the process that all workers share: making it costs 200 KiB of every fork.
_libc_prctl = ctypes.CDLL(None, use_errno=True).prctl
_libc_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def _prctl(option: int, value: int) -> None:
    if _libc_prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
