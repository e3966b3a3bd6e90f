"""What a starter of a real server offers.

A service keeps everything in the directory that it is given, and that directory is enough to stop it:
a process that never saw the server start can stop it and remove what it left.
"""

from __future__ import annotations

import abc
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any, ClassVar

from tests import packages
from tests.services import processes

Settings = dict[str, Any]
SHARED_MEMORY = pathlib.Path("/dev/shm")
SHARED_MEMORY_LEAST = 1 << 30  # containers often have 64 MiB, which one database fills


class Service(abc.ABC):
    """One kind of real server."""

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()  # of Debian
    one_a_machine: ClassVar[bool] = False  # started by tools/test for all tests, never by a single test

    @property
    def requires(self) -> tuple[str, ...]:
        """The services whose settings `start` needs."""
        return ()

    @abc.abstractmethod
    def missing(self) -> str | None:
        """Why the server cannot run here, and what to do about it; None when it can."""

    def install(self) -> None:
        """Install what `missing` complains about.  Needs root.  Idempotent.  Raises packages.InstallError."""
        packages.install(self.packages)

    @abc.abstractmethod
    def start(self, directory: pathlib.Path, running: Mapping[str, Settings]) -> Settings:
        """Start a server in ``directory``, wait until it serves, and return what its clients need (JSON).

        ``running`` holds the settings of the services in `requires`.  Raises processes.StartError.
        """

    def stop(self, directory: pathlib.Path) -> None:
        """Stop the server of ``directory`` and remove what it left.  Idempotent; works from any process."""
        processes.stop_all(directory)
        unmount_below(directory)
        remove(directory)

    def lacking(self, *programs: str) -> str | None:
        """The sentence for `missing` when one of ``programs`` is not installed."""
        for program in programs:
            if find_program(program) is None:
                return f"{program} is not installed; apt-get install {' '.join(self.packages)}"
        return None


def find_program(name: str) -> str | None:
    """The path of a program, also where an ordinary user's PATH does not look."""
    return shutil.which(
        name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    )


def program(name: str) -> str:
    """The path of a program that `missing` has found before."""
    path = find_program(name)
    if path is None:
        raise processes.StartError(f"{name} is not installed")
    return path


def data_directory(directory: pathlib.Path) -> pathlib.Path:
    """A new directory for a server's data, ``data`` in its directory, in memory where there is enough."""
    data = directory / "data"
    if _memory_is_ample():
        # the link is what `remove` follows
        data.symlink_to(tempfile.mkdtemp(prefix="funcplat-test-", dir=SHARED_MEMORY))
    else:
        data.mkdir()
    return data


def _memory_is_ample() -> bool:
    if not os.access(SHARED_MEMORY, os.W_OK):
        return False
    space = os.statvfs(SHARED_MEMORY)
    return space.f_bavail * space.f_frsize > SHARED_MEMORY_LEAST


def remove(directory: pathlib.Path) -> None:
    """Remove a service directory and its data in memory.  Idempotent."""
    data = directory / "data"
    if data.is_symlink() and data.resolve().parent == SHARED_MEMORY:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(data.resolve())
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


def unmount_below(directory: pathlib.Path) -> None:
    """Unmount what a server left mounted in its directory, the innermost first."""
    mounts = pathlib.Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in mounts]
    for point in sorted(points, reverse=True):
        if point.startswith(f"{directory}/"):
            subprocess.run([program("umount"), "--lazy", point], check=True)
