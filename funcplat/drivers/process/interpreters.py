"""The interpreters of functions on this machine: found, and asked what they are."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
from typing import ClassVar

from funcplat import errors, runtimes
from funcplat.drivers.process import nodejs, rootfs

OWN = "default"
"""Stands for the interpreter that runs the platform."""

_PATIENCE = 20.0  # seconds to answer; the first start on a cold machine reads 100 MB from disk
_SHOWN = 200  # characters of what a stranger says
_VERSION = re.compile(r"(?P<python>Python |v)(?P<version>\d+\.\d+\S*)\s*")
_PARTS = """
const libraries = process.report.getReport().sharedObjects.filter((name) => name.startsWith('/'));
process.stdout.write(JSON.stringify([process.execPath, ...libraries]));
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Interpreter:
    """A program that runs functions."""

    language: ClassVar[str]
    oldest: ClassVar[tuple[int, int]]

    path: pathlib.Path
    version: str

    def __str__(self) -> str:
        return f"{self.language} {self.version} ({self.path})"

    def check(self) -> None:
        """Raise DriverError where it is older than what functions are tested with."""
        if tuple(map(int, self.version.split(".")[:2])) < self.oldest:
            oldest = ".".join(map(str, self.oldest)).removesuffix(".0")
            raise errors.DriverError(
                f"{self.path} is {self.language} {self.version}; {oldest} is the oldest that works"
            )


class Python(Interpreter):
    """One of Python: a zygote runs in it."""

    language = "Python"
    oldest = (3, 11)


class Node(Interpreter):
    """One of Node.js: workers execute it."""

    language = "Node.js"
    oldest = (18, 0)

    def program(self) -> nodejs.Program:
        """What is executed, and the files that it takes.  Raises DriverError."""
        paths = [_located(path) for path in json.loads(_ask(self.path, "-e", _PARTS))]
        if covered := [path for path in paths if path.startswith(rootfs.COVERED)]:
            top = "/" + covered[0].split("/")[1]
            raise errors.DriverError(
                f"{covered[0]} cannot be shown to functions, which have a {top} of their own; "
                "install Node.js elsewhere"
            )
        worker = runtimes.directory("nodejs")
        return nodejs.Program(paths[0], tuple(dict.fromkeys(paths)), str(worker))


def locate(name: str) -> pathlib.Path | None:
    """The program that an operator means by `OWN`, a path, or a name that is looked up in PATH."""
    if name == OWN:
        return own()
    if "/" in name:
        return pathlib.Path(name)
    found = shutil.which(name)
    return pathlib.Path(found) if found else None


def own() -> pathlib.Path:
    """The interpreter below the virtual environment that the platform may run in.

    Functions do not see the platform's packages.
    """
    return pathlib.Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def identify(path: pathlib.Path) -> Python | Node:
    """Ask a program what it is.  Raises DriverError where it is no interpreter that functions can use."""
    if path == own():
        return Python(path, platform.python_version())
    said = _ask(path, "--version")
    match = _VERSION.fullmatch(said)
    if match is None:
        raise errors.DriverError(f"{path} is neither Python nor Node.js: its --version is {said[:_SHOWN]!r}")
    found = (Python if match["python"] == "Python " else Node)(path, match["version"])
    found.check()
    return found


def _ask(path: pathlib.Path, *arguments: str) -> str:
    """What a program writes when it is started with the same empty environment as a worker."""
    try:
        done = subprocess.run(  # noqa: S603
            [str(path), *arguments],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise errors.DriverUnavailable(f"{path} did not answer in {_PATIENCE:.0f} s") from error
    except OSError as error:
        raise errors.DriverError(f"{path} cannot be started: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-_SHOWN:]
        raise errors.DriverError(f"{path} {arguments[0]} ended with {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")


def _located(path: str) -> str:
    """A path without links to directories; the last part, by which it is looked for, stays."""
    directory, name = os.path.split(path)
    return f"{os.path.realpath(directory)}/{name}"
