"""How a worker is shut in.  Standard library only: the zygote imports it.

In the zygote a `Sandbox` is prepared once, and admits each worker that it forks.  The worker settles, waits
for what it is to be, and enters; what it then holds, `Inside`, confines each process that runs user code.

The steps down where a machine does not allow everything are the members of `Mode`.
"""

from __future__ import annotations

import dataclasses
import enum
import fcntl
import os
import resource
import signal
import socket
import struct

from funcplat.drivers.process import kernel, rootfs, seccomp

CODE = "/code"
"""Where a worker with a file system of its own sees its code."""

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_OPEN_FILES = 1024
_OTHER_NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
# What a supervisor needs to hand its processes to another user, to end them and to clear up after them.
_SUPERVISOR = frozenset(
    [
        kernel.CAP_CHOWN,
        kernel.CAP_DAC_OVERRIDE,
        kernel.CAP_FOWNER,
        kernel.CAP_KILL,
        kernel.CAP_SETGID,
        kernel.CAP_SETUID,
    ]
)


class Mode(enum.Enum):
    """How much of the sandbox a machine allows, best first."""

    RANGE = "range"  # all namespaces; two users of the host per worker (root)
    SINGLE = "single"  # all namespaces; the user of the server alone (an ordinary user)
    IDS = "ids"  # namespaces but no user namespace; two users of the host per worker (root)
    PLAIN_IDS = "plain-ids"  # no namespaces; two users of the host per worker (root)
    PLAIN = "plain"  # no namespaces; the user of the server

    @property
    def namespaces(self) -> bool:
        return self in (Mode.RANGE, Mode.SINGLE, Mode.IDS)

    @property
    def changes_user(self) -> bool:
        return self in (Mode.RANGE, Mode.IDS, Mode.PLAIN_IDS)


def ladder(root: bool, namespaces: bool) -> list[Mode]:
    """The modes to try, best first."""
    modes = [Mode.RANGE, Mode.IDS, Mode.PLAIN_IDS] if root else [Mode.SINGLE, Mode.PLAIN]
    return modes if namespaces else modes[-1:]


@dataclasses.dataclass(frozen=True, slots=True)
class Birth:
    """What one worker is shut in with."""

    code: str | None  # directory of the unpacked package on the host
    scratch: str | None  # directory for scratch space, without mount namespaces only
    memory: int  # bytes
    memory_limited: bool  # by a control group
    pids: int
    pids_limited: bool  # by a control group
    disk: int  # bytes


class Sandbox:
    """The sandbox in one mode, with what is alike for all workers of a zygote."""

    def __init__(self, mode: Mode, layout: rootfs.Layout) -> None:
        self.mode = mode
        self._layout = layout
        self._execs = layout.worker is not None
        self._filter = seccomp.program()
        self._cgroup_namespace = os.path.exists("/proc/self/ns/cgroup")

    # -- in the zygote --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Enter the namespaces that workers start from and build the template of their root.

        Raises OSError where this mode cannot work; the process is of no use then.
        """
        if not self.mode.namespaces:
            kernel.set_subreaper()  # what a function leaves behind comes to the zygote, which kills it
            return
        user, group = os.getuid(), os.getgid()
        if self.mode is Mode.SINGLE:
            kernel.unshare(kernel.CLONE_NEWUSER)
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{user} {user} 1")
            _write("/proc/self/gid_map", f"{group} {group} 1")
        kernel.unshare(kernel.CLONE_NEWNS)
        rootfs.build(self._layout)

    @property
    def namespaces(self) -> int:
        """The CLONE_NEW* flags that a worker is forked with."""
        if not self.mode.namespaces:
            return 0
        flags = _OTHER_NAMESPACES
        if self.mode is not Mode.IDS:
            flags |= kernel.CLONE_NEWUSER
        return flags if self._layout.host_network else flags | kernel.CLONE_NEWNET

    def admit(self, pid: int, user: int) -> None:
        """Give a forked worker, which waits, the users of its namespace.

        ``user``: of the host, for the supervisor; the next one is for functions.
        """
        if self.mode is Mode.RANGE:
            mapping = f"0 {user} 1\n{rootfs.USER} {user + 1} 1\n"
            _write(f"/proc/{pid}/uid_map", mapping)
            _write(f"/proc/{pid}/gid_map", mapping)
        elif self.mode is Mode.SINGLE:
            _write(f"/proc/{pid}/uid_map", f"{rootfs.USER} {os.getuid()} 1\n")
            _write(f"/proc/{pid}/gid_map", f"{rootfs.USER} {os.getgid()} 1\n")

    # -- in the worker --------------------------------------------------------------------------

    def settle(self) -> None:
        """What a worker can do as soon as it was admitted, before it is known what it is for."""
        if self.mode is not Mode.PLAIN:
            executed_as_root = self._execs and self.mode.changes_user
            kernel.drop_bounding_set(_SUPERVISOR if executed_as_root else frozenset())
        if self.mode.namespaces:
            socket.sethostname("function")
            if not self._layout.host_network:
                _raise_loopback()
            if self._cgroup_namespace:
                kernel.unshare(kernel.CLONE_NEWCGROUP)
            rootfs.settle(self._layout.root)
            rootfs.add_proc()

    def enter(self, birth: Birth, user: int) -> Inside:
        """Shut this process in, after `settle`; ``user`` as for `admit`."""
        if self.mode.namespaces:
            self._enter_root(birth, user)
        else:
            self._take_user(user)
        self._drop_privileges()
        return self._inside(birth, user)

    def _enter_root(self, birth: Birth, user: int) -> None:
        if birth.code:
            rootfs.add_code(birth.code)
        if self.mode is Mode.RANGE:
            self._take_user(user)  # before the tmpfs: a file system belongs to users that it knows
        rootfs.add_scratch(scratch_size(birth), bool(birth.code), self._supervisor(user))
        rootfs.enter()
        if self.mode is Mode.IDS:
            self._take_user(user)

    def _supervisor(self, user: int) -> int:
        """The user of the supervisor, as the worker sees it.

        One that is executed has to be root to keep its capabilities, those of the bounding set, beyond that.
        Ambient ones would stay with functions: a change between ordinary users takes none away.
        """
        if self._execs and self.mode.changes_user:
            return 0
        return {Mode.RANGE: 0, Mode.SINGLE: rootfs.USER}.get(self.mode, user)

    def _function(self, user: int) -> int:
        """The user of functions, as the worker sees it."""
        return rootfs.USER if self.mode is Mode.RANGE else user + 1

    def _take_user(self, user: int) -> None:
        if not self.mode.changes_user:
            return
        user = self._supervisor(user)
        os.setgroups([])
        os.setresgid(user, user, user)
        kernel.set_keep_capabilities()
        os.setresuid(user, user, user)

    def _drop_privileges(self) -> None:
        """Keep what the supervisor needs; what it gave up no exec brings back.

        The kernel clears both the death signal and the dumpable flag when the user changes.
        """
        kernel.set_parent_death_signal(signal.SIGKILL)
        if self.mode is not Mode.PLAIN:
            kernel.set_capabilities(_SUPERVISOR)
        kernel.set_no_new_privileges()
        kernel.set_dumpable(True)  # else /proc/self belongs to a user whom the worker does not have

    def _inside(self, birth: Birth, user: int) -> Inside:
        if self.mode.namespaces:
            code, scratch = CODE if birth.code else "/function/code", "/tmp"
        else:
            assert birth.scratch is not None
            code, scratch = birth.code or f"{birth.scratch}/code", f"{birth.scratch}/tmp"
        function = self._function(user) if self.mode.changes_user else None
        confinement = Confinement(function, self._limits(birth), self._filter)
        return Inside(code, scratch, self.mode.namespaces, confinement)

    def _limits(self, birth: Birth) -> tuple[tuple[int, int], ...]:
        limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, _OPEN_FILES)]
        if birth.scratch:  # else a tmpfs bounds it, and says that it is full
            limits.append((resource.RLIMIT_FSIZE, birth.disk))
        if not birth.pids_limited:
            others = _tasks() if self.mode is Mode.PLAIN else 0  # which this limit counts, too
            limits.append((resource.RLIMIT_NPROC, birth.pids + others))
        if not birth.memory_limited and not self._execs:  # Node.js reserves what it will not use
            limits.append((resource.RLIMIT_DATA, birth.memory + _data_size()))
        return tuple(limits)


@dataclasses.dataclass(frozen=True, slots=True)
class Inside:
    """What a worker finds when it has been shut in."""

    code: str
    scratch: str
    namespaces: bool
    confinement: Confinement


@dataclasses.dataclass(frozen=True, slots=True)
class Confinement:
    """What a process gives up before it runs user code."""

    user: int | None
    limits: tuple[tuple[int, int], ...]
    program: bytes

    def apply(self) -> None:
        """Give it up.  Raises OSError; the caller must not run user code then."""
        if self.user is not None:
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        kernel.set_capabilities(frozenset())
        kernel.set_no_new_privileges()
        kernel.set_dumpable(True)
        self.bound()

    def bound(self) -> None:
        """Give up what its user and capabilities have nothing to do with; for good, also for who executes."""
        for limit, value in self.limits:
            hard = resource.getrlimit(limit)[1]
            least = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (least, least))
        kernel.set_seccomp_filter(self.program)


def scratch_size(birth: Birth) -> int:
    """Bytes of scratch space: it is memory of the function, so that half of that is the most."""
    return min(birth.disk, birth.memory // 2)


def _data_size() -> int:
    """Bytes of data that this process has from the zygote, shared with it."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def _tasks() -> int:
    """Processes and threads of this user on the machine."""
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return count


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(link, _SIOCGIFFLAGS, request))
        fcntl.ioctl(link, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
