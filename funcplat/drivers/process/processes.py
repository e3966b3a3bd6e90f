"""The processes below this one.  Standard library only: the zygote imports it."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection


def end_children(kept: Collection[int] = ()) -> None:
    """Kill all children of this process but those ``kept``, with what becomes its child by that.

    It takes a subreaper, or the first process of a pid namespace, to find all that is below.
    """
    while strays := [pid for pid in _children() if pid not in kept]:
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
