"""What names a process, or what it made, beyond the reuse of its pid."""

from __future__ import annotations

import errno
import functools
import pathlib
from typing import Any


def of(pid: int) -> dict[str, Any]:
    """What names a process beyond the reuse of its pid, as JSON.  Raises OSError where it is gone or dead."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    if (
        stat.rpartition(")")[2].split()[0] in "ZX"
    ):  # nobody waits for it: the first process of some containers
        raise ProcessLookupError(errno.ESRCH, f"process {pid} is dead")
    return {"pid": pid, "started": int(stat.rpartition(")")[2].split()[19]), "boot": _boot()}


@functools.cache
def _boot() -> str:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(name: str) -> bool:
    """Whether the zygote that made a control group or directory of this name still exists."""
    pid, _, rest = name.partition("-")
    try:
        return bool(of(int(pid))["started"] == int(rest.partition("-")[0]))
    except (OSError, ValueError):
        return False
