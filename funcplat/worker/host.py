"""What whoever starts a worker gives to it."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable

from funcplat.worker import load


def nothing() -> None:
    """Confine a handler not at all: the container, or nobody, does it."""


def zero() -> int:
    """Count nothing: the kernel keeps no such count here."""
    return 0


CODE_DIR = "/function/code"
SCRATCH = "/tmp"  # noqa: S108  private to the worker


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """The surroundings of one worker: what it listens on, and what the driver does for it.

    ``confine`` is called in every new handler process before any code of the user: it drops privileges
    and sets rlimits and seccomp filters.  An exception of it ends the handler; no user code runs then.
    A change of the user takes the dumpable flag away, without which a process does not own its /proc/self:
    ``confine`` gives it back (`kernel.set_dumpable`).  Of prctl(2) only PR_SET_PDEATHSIG is asked after it.
    The counters are called rarely (a failed execution, or once in `pool.SAMPLE_SECONDS`) and must not block.
    """

    listener: socket.socket  # listening
    concurrency: int  # executions at once, where /load does not say
    lifeline: int | None = None  # fd; readable or hung up: the worker ends at once
    confine: Callable[[], None] = nothing
    oom_kills: Callable[[], int] = zero  # the kernel's count of OOM kills in this worker so far
    pids_hits: Callable[[], int] = zero  # the kernel's count of refused forks in this worker so far
    carried: load.Carried | None = None  # the function that is here without being loaded
    code_dir: str = CODE_DIR  # where a pushed package is unpacked; its parent takes the upload
    scratch: str = SCRATCH  # the working directory of handlers
    raise_oom_score: bool = True  # the kernel shall kill handlers before the supervisor
