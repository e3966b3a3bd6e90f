"""Where this process may make control groups: found by trying.

Version 1 has a hierarchy per controller; groups go below the group of this process there.  Version 2 has one,
with two rules of its own: a controller is there for a group only if its parent hands it down
(``cgroup.subtree_control``), and a group other than the root that hands down resource controllers holds no
processes ("no internal processes").  So a delegated subtree must be free of processes at its top:

1. the directory that the operator names;
2. the parent of this process's group, where that was emptied at an earlier start, or systemd marked it as
   delegated (``Delegate=yes`` with ``DelegateSubgroup=``);
3. this process's own group, which is then emptied into a leaf, where no foreign process is in it or it
   is the root that a container sees;
4. the top of the hierarchy, which takes root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping

from funcplat.drivers.process import cgroups

LOG = logging.getLogger(__name__)

_LEAF = "funcplat-server"
_HELP = (
    "run as root, or in a systemd unit with Delegate=yes (systemd-run --user --scope -p Delegate=yes), "
    "or name a writable group with cgroup_parent"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy."""

    version: int
    point: pathlib.Path
    root: str  # the group that is seen at `point`
    controllers: frozenset[str]  # of version 1; version 2 says them in cgroup.controllers


def detect(name: str, parent: str | None, proc: pathlib.Path = pathlib.Path("/proc/self")) -> cgroups.Cgroups:
    """Find, and make, directories called ``name`` in which groups with limits can be made.

    ``parent``: path of a group below each mount point, instead of that of this process.
    ``proc``: where to read ``mountinfo`` and ``cgroup``.  Raises nothing: what is missing is in the result.
    """
    found: dict[pathlib.Path, cgroups.Hierarchy] = {}
    missing: dict[str, str] = {}
    membership = _membership(proc)
    mounts = list(_mounts(proc))
    for controller in cgroups.CONTROLLERS:
        try:
            point, hierarchy = _place(controller, name, parent, mounts, membership)
        except OSError as error:
            missing[controller] = f"{error.strerror or error}: {error.filename or 'cgroup'}; {_HELP}"
            continue
        before = found.get(point)
        names = hierarchy.controllers | (before.controllers if before else frozenset())
        found[point] = dataclasses.replace(hierarchy, controllers=names)
    return cgroups.Cgroups(tuple(found.values()), missing)


def _mounts(proc: pathlib.Path) -> Iterator[Mount]:
    for line in (proc / "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        fields = left.split(" ")
        root, point = _unescape(fields[3]), pathlib.Path(_unescape(fields[4]))
        if kind == "cgroup":
            yield Mount(1, point, root, frozenset(options.split(",")))
        elif kind == "cgroup2":
            yield Mount(2, point, root, frozenset())


def _unescape(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _membership(proc: pathlib.Path) -> Mapping[str, str]:
    """Controller (of version 1; '' for version 2): path of this process's group."""
    result = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        result.update(dict.fromkeys(controllers.split(","), path))
    return result


def _place(
    controller: str, name: str, parent: str | None, mounts: list[Mount], membership: Mapping[str, str]
) -> tuple[pathlib.Path, cgroups.Hierarchy]:
    """The directory for one controller.  Raises OSError where there is none."""
    for mount in mounts:
        if mount.version == 1 and controller in mount.controllers:
            path = _version_1(mount, membership.get(controller, "/"), name, parent)
            return path, cgroups.Hierarchy(1, str(path), frozenset([controller]))
    for mount in mounts:
        if mount.version == 2 and controller in _words(mount.point / "cgroup.controllers"):
            path = _version_2(controller, mount, membership.get("", "/"), name, parent)
            return path, cgroups.Hierarchy(2, str(path), frozenset([controller]))
    raise FileNotFoundError(None, f"no mounted hierarchy has the controller {controller}")


def _seen(mount: Mount, group: str) -> pathlib.Path:
    """The directory of a group; without a cgroup namespace a container sees a part of the hierarchy."""
    inner = os.path.relpath(group, mount.root)
    return mount.point if inner.startswith("..") else mount.point / inner


def _version_1(mount: Mount, own: str, name: str, parent: str | None) -> pathlib.Path:
    base = mount.point / parent.lstrip("/") if parent else _seen(mount, own)
    path = base / name
    path.mkdir(parents=True, exist_ok=True)
    _try(path)
    return path


def _try(path: pathlib.Path) -> None:
    """Raise OSError where no group can be made in ``path`` or it could not take a process."""
    probe = path / f"{cgroups.PROBE}{os.getpid()}-{os.urandom(4).hex()}"
    probe.mkdir()
    try:
        os.close(os.open(probe / "cgroup.procs", os.O_WRONLY))
    finally:
        probe.rmdir()


def _version_2(controller: str, mount: Mount, own: str, name: str, parent: str | None) -> pathlib.Path:
    failure: OSError = FileNotFoundError(None, "no delegated group")
    for candidate in _candidates(mount, own, parent):
        try:
            _hand_down(candidate, controller)
            path = candidate / name
            path.mkdir(parents=True, exist_ok=True)
            _hand_down(path, controller)
            _try(path)
        except OSError as error:
            failure = error
            continue
        return path
    raise failure


def _candidates(mount: Mount, own: str, parent: str | None) -> Iterator[pathlib.Path]:
    if parent:
        yield _made(mount.point / parent.lstrip("/"))
        return
    group = _seen(mount, own)
    if group != mount.point and (group.name == _LEAF or _is_delegated(group.parent)):
        yield group.parent
    if _may_be_emptied(group, mount):
        _empty(group)
        yield group
    yield mount.point


def _made(path: pathlib.Path) -> pathlib.Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _is_inner(group: pathlib.Path) -> bool:
    """Whether a directory is a group other than the root of all, which alone has no cgroup.type."""
    return (group / "cgroup.type").exists()


def _is_delegated(group: pathlib.Path) -> bool:
    """Whether systemd has marked a group as somebody's to manage."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(group, name) == b"1"
    return False


def _may_be_emptied(group: pathlib.Path, mount: Mount) -> bool:
    if not _is_inner(group) or not os.access(group / "cgroup.subtree_control", os.W_OK):
        return False
    return group == mount.point or set(_processes(group)) <= {os.getpid()}


def _empty(group: pathlib.Path) -> None:
    """Move every process of a group into a leaf below it."""
    leaf = _made(group / _LEAF)
    for pid in _processes(group):
        cgroups.write(str(leaf / "cgroup.procs"), str(pid))
    LOG.info("moved the processes of control group %s to %s, so that it can hand down limits", group, leaf)


def _hand_down(group: pathlib.Path, controller: str) -> None:
    """Enable a controller for the children of a group.  Raises OSError (EBUSY: processes are in it)."""
    control = group / "cgroup.subtree_control"
    if controller in _words(control):
        return
    if controller not in _words(group / "cgroup.controllers"):
        raise FileNotFoundError(None, f"the controller {controller} is not delegated to {group}")
    cgroups.write(str(control), f"+{controller}")


def _processes(group: pathlib.Path) -> list[int]:
    return cgroups.processes(str(group))


def _words(path: pathlib.Path) -> frozenset[str]:
    return frozenset(path.read_text().split())
