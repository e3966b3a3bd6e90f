"""Images for tests, of what this machine has: Python, Node.js and busybox.  No registry is asked."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import os
import pathlib
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator

CACHE = pathlib.Path(tempfile.gettempdir() if os.geteuid() else "/var/tmp") / "funcplat-test-images"
LEFT_OUT = {
    "__pycache__", "distutils", "ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages", "test",
    "tests", "tkinter", "turtledemo",
}  # fmt: skip


def python_base() -> pathlib.Path:
    """A tar file of a root file system with this interpreter, made once for each version of it."""
    return _kept("python", platform.python_version(), _write_python)


def node_base(node: str) -> pathlib.Path:
    """The same with Node.js beside it, for functions that call Python: ``node`` is its program."""
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return _kept("node", version, functools.partial(_write_node, pathlib.Path(node).resolve()))


def _kept(name: str, version: str, write: Callable[[tarfile.TarFile], object]) -> pathlib.Path:
    digest = hashlib.sha256(pathlib.Path(__file__).read_bytes() + version.encode()).hexdigest()
    CACHE.mkdir(mode=0o700, exist_ok=True)
    path = CACHE / f"{name}-{digest[:16]}.tar"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(".new")
            with tarfile.open(unfinished, "w") as tar:
                _write_system(tar)
                write(tar)
            unfinished.rename(path)
    return path


def _write_system(tar: tarfile.TarFile) -> None:
    """What both have: a shell and its like."""
    busybox = pathlib.Path("/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/busybox")
    for name in ("bin", "etc", "tmp", "usr", "usr/bin", "usr/local", "usr/local/bin", "usr/local/lib"):
        _add_directory(tar, name)
    _add(tar, busybox, "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in sorted(set(applets) - {"busybox"}):
        _add_link(tar, f"bin/{applet}", "busybox")
    _add_text(tar, "etc/passwd", "root:x:0:0::/:/bin/sh\n")
    _add_text(tar, "etc/group", "root:x:0:\n")


def _write_python(tar: tarfile.TarFile) -> set[str]:
    """Names of the shared libraries that are there."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = pathlib.Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    _add(tar, interpreter, f"usr/local/bin/{version}")
    _add_link(tar, "usr/local/bin/python3", version)
    _add_link(tar, "usr/bin/python3", f"/usr/local/bin/{version}")
    shared = [interpreter]
    for source in _library(pathlib.Path(sysconfig.get_path("stdlib"))):
        relative = source.relative_to(sysconfig.get_path("stdlib"))
        _add(tar, source, f"usr/local/lib/{version}/{relative}")
        shared += [source] if ".so" in source.name else []
    needed = _needed(shared)
    for source, name in needed.items():
        _add(tar, source, name)
    return set(needed.values())


def _write_node(node: pathlib.Path, tar: tarfile.TarFile) -> None:
    shared = _write_python(tar)
    _add(tar, node, "usr/local/bin/node")
    for source, name in _needed([node]).items():
        if name not in shared:
            _add(tar, source, name)


def _library(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    for root, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if name not in LEFT_OUT and not name.startswith("config-"))
        for file in sorted(files):
            if file.endswith((".py", ".so")) and not file.startswith(("_tkinter", "_test", "_ctypes_test")):
                yield pathlib.Path(root) / file


def _needed(binaries: list[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Shared libraries by path, with where the dynamic linker of the image finds them."""
    listed = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=True).stdout
    found = {pathlib.Path(path) for path in re.findall(r"=> (/\S+)", listed)}
    library = next(path.parent for path in sorted(found) if path.name.startswith("libc.so"))
    needed = {path: f"{str(library)[1:]}/{path.name}" for path in sorted(found)}
    linkers = {pathlib.Path(path) for path in re.findall(r"^\s+(/\S*ld-\S+)", listed, re.MULTILINE)}
    return needed | {path: str(path)[1:] for path in linkers}


def _info(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # of root, and of no time: equal files make equal layers
    info.mode, info.type = mode, kind
    return info


def _add_directory(tar: tarfile.TarFile, name: str) -> None:
    tar.addfile(_info(name, 0o1777 if name == "tmp" else 0o755, tarfile.DIRTYPE))


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = _info(name, 0o777, tarfile.SYMTYPE)
    info.linkname = target
    tar.addfile(info)


def _add(tar: tarfile.TarFile, source: pathlib.Path, name: str) -> None:
    data = source.read_bytes()
    info = _info(name, 0o755 if os.access(source, os.X_OK) else 0o644, tarfile.REGTYPE)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    info = _info(name, 0o644, tarfile.REGTYPE)
    info.size = len(text)
    tar.addfile(info, io.BytesIO(text.encode()))
