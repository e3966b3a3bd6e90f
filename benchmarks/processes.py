"""What processes cost: processor time and memory, as the kernel counts them."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator

PROC = pathlib.Path("/proc")


def tree(root: int) -> list[int]:
    """A process and all its descendants, parents first."""
    found = [root]
    for pid in found:
        found.extend(children(pid))
    return found


def children(pid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in (PROC / str(pid) / "task").iterdir():
            yield from map(int, (thread / "children").read_text().split())


def cpu_seconds(root: int) -> float:
    """Seconds of processor time that a process and its descendants have used so far."""
    return sum(map(_cpu_seconds, tree(root)))


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # utime and stime come in ticks of 10 ms: too coarse where there are many short-lived pieces.
        threads = (PROC / str(pid) / "task").iterdir()
        return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9
    return 0.0


def pss(pid: int) -> int:
    """Bytes of memory: private, and its share of what it shares with others."""
    text = (PROC / str(pid) / "smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def pss_of_tree(root: int) -> int:
    return sum(map(pss, tree(root)))


def name(pid: int) -> str:
    return (PROC / str(pid) / "comm").read_text().strip()
