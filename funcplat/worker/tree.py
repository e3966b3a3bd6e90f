"""Killing whole process trees, whatever the processes in them do.

The supervisor is subreaper (or pid 1) and every handler is one too, leads a process group and has no
privilege over the supervisor.  So everything that a handler started is its descendant while it lives, and a
descendant of the supervisor afterwards: nothing can get away.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Collection, Iterable, Iterator

PASSES = 200
"""Rounds of scanning and killing at most, in one go.  A fork bomb takes a few: every round kills all that it
sees, and what was born meanwhile is fewer each time."""


def kill(root: int) -> None:
    """Kill a handler with all its descendants, so far as they are still below it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # One system call, atomic against fork: an ordinary fork bomb never left the group.
        os.killpg(root, signal.SIGKILL)
    _kill_until_gone(root, frozenset())
    _signal(root)


def sweep(known: Collection[int]) -> bool:
    """Kill every descendant of this process that is not below a known child, and reap the dead.

    Returns whether nothing was left; else call it again a moment later.
    """
    clean = _kill_until_gone(os.getpid(), known)
    for child in children(os.getpid()):
        if child not in known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG | _WALL)
    return clean and not any(child not in known for child in children(os.getpid()))


_WALL = 0x40000000  # children made by clone() without SIGCHLD, too


def _kill_until_gone(root: int, spared: Collection[int]) -> bool:
    for _ in range(PASSES):
        living = [pid for pid in descendants(root, spared) if _lives(pid)]
        if not living:
            return True
        for pid in living:
            _signal(pid)
        os.sched_yield()
    return False


def _signal(pid: int) -> None:
    # PermissionError: it changed its user and this supervisor is not root; then only the driver,
    # which ends the container or the namespace, can do more.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def descendants(root: int, spared: Collection[int] = frozenset()) -> Iterator[int]:
    """All processes below ``root``, without the subtrees of ``spared``."""
    pending = [root]
    seen = {root, *spared}
    while pending:
        for child in children(pending.pop()):
            if child not in seen:
                seen.add(child)
                pending.append(child)
                yield child


def children(pid: int) -> list[int]:
    """The children of all threads of a process; none for a process that is gone."""
    if not _HAS_CHILDREN:
        return children_in(_all_stats(), pid)
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  a tight loop
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def children_in(stats: Iterable[bytes], parent: int) -> list[int]:
    """The processes whose ``/proc/<pid>/stat`` names this parent."""
    found = []
    for stat in stats:
        # The name, in parentheses, may hold anything, also parentheses.
        fields = stat[stat.rindex(b")") + 2 :].split(b" ", 2)
        if int(fields[1]) == parent:
            found.append(int(stat[: stat.index(b" ")]))
    return found


def _all_stats() -> Iterator[bytes]:
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield _read(f"/proc/{name}/stat")


def _lives(pid: int) -> bool:
    try:
        stat = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2] not in b"ZX"


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while chunk := os.read(fd, 65536):
            data += chunk
        return data
    finally:
        os.close(fd)


_HAS_CHILDREN = pathlib.Path("/proc/thread-self/children").exists()  # CONFIG_PROC_CHILDREN
