"""Control groups of workers, version 1 or 2: create with limits, attach, kill, remove.

A worker has one directory in every hierarchy that holds a controller it needs; with version 2 that is a
single one.  `hierarchies` finds out where.  Standard library only: the zygote imports it.  Facts:
the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping

MEMORY, PIDS, CPU = "memory", "pids", "cpu"
CONTROLLERS = (MEMORY, PIDS, CPU)

PROBE = "probe-"
"""How the names of groups begin that were made to find out whether that works."""

_PERIOD = 100_000  # microseconds; the kernel's default
_LEAST_QUOTA = 1_000  # microseconds; the kernel refuses less


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may use: bytes, number of tasks, millicores."""

    memory: int
    pids: int
    cpu: int


@dataclasses.dataclass(frozen=True, slots=True)
class Hierarchy:
    """A directory below which this driver makes groups with these controllers."""

    version: int
    path: str
    controllers: frozenset[str]

    def create(self, name: str) -> str:
        """Make a group's directory here.

        Another process of the installation may have removed the one above, when it ended and that was empty.
        """
        path = f"{self.path}/{name}"
        try:
            os.mkdir(path)
        except FileNotFoundError:
            os.makedirs(self.path, exist_ok=True)
            if self.version == 2:
                for controller in sorted(self.controllers):
                    write(f"{self.path}/cgroup.subtree_control", f"+{controller}")
            os.mkdir(path)
        return path


@dataclasses.dataclass(frozen=True, slots=True)
class Cgroups:
    """The hierarchies that this installation may use; none at all is allowed and limits nothing."""

    hierarchies: tuple[Hierarchy, ...]
    missing: Mapping[str, str]
    """Controller that cannot be used: why, and what would help."""

    def controllers(self) -> dict[str, int]:
        """Usable controllers and the version of their hierarchy."""
        return {name: each.version for each in self.hierarchies for name in each.controllers}

    def create(self, name: str) -> None:
        """Make a group, without limits; with an OSError nothing is left behind."""
        made: list[str] = []
        try:
            for hierarchy in self.hierarchies:
                made.append(hierarchy.create(name))
        except OSError:
            for path in made:
                os.rmdir(path)
            raise

    def paths(self, name: str) -> list[str]:
        """The directories of a group, one in each hierarchy, whether they exist or not."""
        return [f"{hierarchy.path}/{name}" for hierarchy in self.hierarchies]

    def limit(self, name: str, limits: Limits) -> None:
        """Set the limits of a group.  Raises OSError."""
        for hierarchy in self.hierarchies:
            _set_limits(hierarchy, f"{hierarchy.path}/{name}", limits)

    def attach(self, name: str, pid: int) -> None:
        """Put a process into a group.

        This can take 10 ms: the kernel waits until no fork is under way on any processor.
        """
        for path in self.paths(name):
            write(f"{path}/cgroup.procs", str(pid))

    def open_events(self, name: str) -> tuple[int, int]:
        """Descriptors of the files that count OOM kills and refused forks, for `count`; -1: there is none."""
        memory = pids = -1
        for hierarchy in self.hierarchies:
            path = f"{hierarchy.path}/{name}"
            if MEMORY in hierarchy.controllers:
                file = "memory.oom_control" if hierarchy.version == 1 else "memory.events"
                memory = os.open(f"{path}/{file}", os.O_RDONLY | os.O_CLOEXEC)
            if PIDS in hierarchy.controllers:
                pids = os.open(f"{path}/pids.events", os.O_RDONLY | os.O_CLOEXEC)
        return memory, pids

    def remove(self, name: str) -> None:
        """Kill what is in a group and remove it.  Idempotent.  Raises OSError where that does not work."""
        for path in self.paths(name):
            remove(path)

    def names(self) -> set[str]:
        """The groups that exist."""
        names = {entry.name for each in self.hierarchies for entry in _subdirectories(each.path)}
        return {name for name in names if not name.startswith(PROBE)}

    def close(self) -> None:
        """Remove the directories of the installation where no worker is left in them."""
        for hierarchy in self.hierarchies:
            with contextlib.suppress(OSError):
                os.rmdir(hierarchy.path)


def _subdirectories(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from (entry for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return


def _set_limits(hierarchy: Hierarchy, path: str, limits: Limits) -> None:
    if MEMORY in hierarchy.controllers:
        _limit_memory(hierarchy.version, path, limits.memory)
    if PIDS in hierarchy.controllers:
        write(f"{path}/pids.max", str(limits.pids))
    if CPU in hierarchy.controllers:
        _limit_cpu(hierarchy.version, path, limits.cpu)


def _limit_memory(version: int, path: str, size: int) -> None:
    """Swap counts as memory where the kernel accounts it: else a limit would only make a function slow."""
    if version == 1:
        write(f"{path}/memory.limit_in_bytes", str(size))
        _write_if_present(f"{path}/memory.memsw.limit_in_bytes", str(size))
    else:
        write(f"{path}/memory.max", str(size))
        _write_if_present(f"{path}/memory.swap.max", "0")


def _limit_cpu(version: int, path: str, millicores: int) -> None:
    """What a worker leaves of one period it may use in the next, so that short calls are not cut in two."""
    quota = max(_LEAST_QUOTA, millicores * _PERIOD // 1000)
    if version == 1:
        write(f"{path}/cpu.cfs_period_us", str(_PERIOD))
        write(f"{path}/cpu.cfs_quota_us", str(quota))
        _write_if_present(f"{path}/cpu.cfs_burst_us", str(quota))
    else:
        write(f"{path}/cpu.max", f"{quota} {_PERIOD}")
        _write_if_present(f"{path}/cpu.max.burst", str(quota))


def write(path: str, value: str) -> None:
    """Write one value into a control file, in a single write(2) as the kernel wants."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _write_if_present(path: str, value: str) -> None:
    try:
        write(path, value)
    except FileNotFoundError:
        return


def remove(path: str, patience: float = 2.0) -> None:
    """Kill what is in a group and remove it.  A missing one: returns.

    Raises OSError (EBUSY) where processes do not go within ``patience`` seconds.
    """
    end = time.monotonic() + patience
    while not _removed(path):
        if time.monotonic() > end:
            raise OSError(errno.EBUSY, f"the processes of {path} do not end")
        _kill(path)
        time.sleep(0.002)  # version 1 has no event for an empty group


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _kill(path: str) -> None:
    """Version 2 kills a group at once; in version 1 no fork is allowed first, so that it gets empty."""
    try:
        write(f"{path}/cgroup.kill", "1")
        return
    except FileNotFoundError:
        _write_if_present(f"{path}/pids.max", "0")
    for pid in processes(path):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def processes(path: str) -> list[int]:
    """The processes in a group, as seen from this pid namespace; a missing group has none."""
    try:
        with open(f"{path}/cgroup.procs") as file:
            return [int(line) for line in file]
    except (FileNotFoundError, ProcessLookupError):
        return []


def count(descriptor: int, key: str) -> int:
    """The number after ``key`` in an open flat-keyed file such as memory.events; 0 where there is none."""
    if descriptor < 0:
        return 0
    for line in os.pread(descriptor, 4096, 0).decode().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
