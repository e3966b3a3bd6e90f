"""What a worker sees as its file system.  Standard library only: the zygote imports it.

The zygote builds a *template* once, in a mount namespace of its own: a read-only root with the system's
programs and libraries, the interpreter, a minimal /etc and /dev, and empty mount points.  A worker gets a
copy of the zygote's mounts by its fork, adds what is its own (code, scratch space, /proc) and moves into it.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil

from funcplat.drivers.process import kernel

USER = 1000
"""The user and group that a function sees itself as."""
WORKER = "/worker"
"""Where the files of a worker are that is executed."""

COVERED = ("/code/", "/dev/", "/etc/", "/function/", "/proc/", "/tmp/", f"{WORKER}/")
"""Where a worker has something else than this machine."""

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/false\nfunction:x:{user}:{user}::/tmp:/bin/sh\n"
    "nobody:x:65534:65534::/:/bin/false\n",
    "group": "root:x:0:\nfunction:x:{user}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_ETC_SHOWN = (
    "ld.so.cache",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "mime.types",
)
_READ_ONLY = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV
_TEMPLATE_SIZE = "size=1m,nr_inodes=512,mode=0755"


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """What the template is made of."""

    root: str  # an empty directory: where the template is mounted
    prefixes: tuple[str, ...]  # directories and files of the interpreter, shown at their own paths
    hidden: tuple[str, ...]  # directories of the platform: emptied where they lie in a shown one
    host_network: bool  # name resolution as on the host
    worker: str | None = None  # directory of a worker that is executed: copied to WORKER


def build(layout: Layout) -> None:
    """Mount the template.  The calling process has a mount namespace of its own and may mount in it."""
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("tmpfs", layout.root, "tmpfs", kernel.MS_NOSUID, _TEMPLATE_SIZE)
    for name in ("code", "dev", "dev/shm", "etc", "function", "proc", "tmp"):
        os.makedirs(f"{layout.root}/{name}", exist_ok=True)
    for name in _SYSTEM:
        _show_system(layout.root, f"/{name}")
    for prefix in layout.prefixes:
        _show_prefix(layout.root, prefix)
    for path in layout.hidden:
        _hide(layout.root, path)
    if layout.worker:
        _copy(layout.worker, layout.root + WORKER)
    _make_devices(layout.root)
    _make_etc(layout.root, layout.host_network)
    kernel.set_mount_attributes(layout.root, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID)


def _show_system(root: str, path: str) -> None:
    if os.path.islink(path):
        os.symlink(os.readlink(path), root + path)
    elif os.path.isdir(path):
        _show(root, path)


def _show_prefix(root: str, prefix: str) -> None:
    """Bind an interpreter's directory unless it is there already, as it is below /usr."""
    if not os.path.exists(root + prefix) or not os.path.samefile(root + prefix, prefix):
        _show(root, prefix)


def _show(root: str, path: str) -> None:
    """Bind a directory or file of the host, read-only, at its own path."""
    target = root + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    kernel.mount(path, target, flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.set_mount_attributes(target, _READ_ONLY)


def _hide(root: str, path: str) -> None:
    """Cover a directory that a shown one happens to contain with an empty one."""
    if os.path.isdir(root + path):
        kernel.mount("tmpfs", root + path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k,mode=0555")


def _copy(source: str, target: str) -> None:
    """Copy the scripts of a directory, by content.

    So it makes no difference that other users cannot read an installation, or that it is replaced meanwhile.
    """
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir():
                _copy(entry.path, f"{target}/{entry.name}")
            elif entry.name.endswith((".js", ".json")):
                shutil.copyfile(entry.path, f"{target}/{entry.name}")


def _make_devices(root: str) -> None:
    for name in _DEVICES:
        target = f"{root}/dev/{name}"
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        kernel.mount(f"/dev/{name}", target, flags=kernel.MS_BIND)
        kernel.set_mount_attributes(target, kernel.ATTR_NOSUID | kernel.ATTR_NOEXEC)
    for name, destination in _DEVICE_LINKS.items():
        os.symlink(destination, f"{root}/dev/{name}")


def _make_etc(root: str, host_network: bool) -> None:
    for name, text in _ETC.items():
        with open(f"{root}/etc/{name}", "w") as file:
            file.write(text.format(user=USER))
    shown = [*_ETC_SHOWN, "resolv.conf"] if host_network else _ETC_SHOWN
    for name in shown:
        if os.path.exists(f"/etc/{name}"):
            _show(root, f"/etc/{name}")
    if os.path.islink("/etc/localtime"):
        os.symlink(os.path.realpath("/etc/localtime"), f"{root}/etc/localtime")


def settle(root: str) -> None:
    """In a worker: make the template its own and go there.

    The copy of the zygote's mounts is locked against changes; a bind mount of the template is not.
    The rest works from the current directory: the worker's user may not be able to reach it by name.
    """
    kernel.mount(root, root, flags=kernel.MS_BIND | kernel.MS_REC)
    os.chdir(root)


def add_code(code: str) -> None:
    """In a worker that still has the user of the zygote, who can reach it: show its code at /code."""
    kernel.mount(code, "code", flags=kernel.MS_BIND)
    kernel.set_mount_attributes("code", _READ_ONLY)


def add_scratch(size: int, code: bool, owner: int) -> None:
    """In a worker: one tmpfs of ``size`` bytes for /tmp and /dev/shm, and for a pushed package.

    An inode costs the kernel about a page's worth of memory, so that as many are allowed as pages.
    """
    inodes = max(1024, size // 4096)
    options = f"size={size},nr_inodes={inodes},mode=0755"
    kernel.mount("tmpfs", "tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    _bind_part("shm", "dev/shm", 0o1777, owner)
    if not code:
        _bind_part("function", "function", 0o755, owner)
    _bind_part("tmp", "tmp", 0o1777, owner)  # last: it covers the parts


def _bind_part(part: str, target: str, mode: int, owner: int) -> None:
    source = f"tmp/{part}"
    os.mkdir(source)
    os.chmod(source, mode)
    os.chown(source, owner, owner)
    kernel.mount(source, target, flags=kernel.MS_BIND)


def add_proc() -> None:
    """In a worker: its own /proc.

    Where a container hides parts of /proc the kernel allows only one that shows processes alone.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    try:
        kernel.mount("proc", "proc", "proc", flags)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        kernel.mount("proc", "proc", "proc", flags, "subset=pid")


def enter() -> None:
    """In a worker: make the template, the current directory, the root and let go of everything else."""
    kernel.pivot_root(".", ".")  # the old root now lies on top of the new one
    kernel.umount(".", kernel.MNT_DETACH)
    os.chdir("/")
