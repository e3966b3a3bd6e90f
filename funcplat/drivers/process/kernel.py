"""The system calls that Python has no function for.  Standard library only: the zygote imports it.

Each function is one call, raises OSError with the kernel's errno and names what it was called with.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MNT_DETACH = 2
ATTR_RDONLY = 1
ATTR_NOSUID = 2
ATTR_NODEV = 4
ATTR_NOEXEC = 8

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_TID_ADDRESS = 40
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_SECCOMP_SET_MODE_FILTER = 1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_CAPABILITY_VERSION_3 = 0x20080522

_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "capset": 126, "seccomp": 317, "mount_setattr": 442},
    "aarch64": {"clone": 220, "pivot_root": 41, "capset": 91, "seccomp": 277, "mount_setattr": 442},
}

# PyDLL keeps the interpreter lock, so that nothing else of this process runs between the parts of a fork.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return platform.machine() in _NUMBERS and struct.calcsize("P") == 8


def clone(namespaces: int) -> int:
    """Fork into new ``namespaces`` (CLONE_NEW* flags); like os.fork, returns 0 in the child.

    With CLONE_NEWPID the child itself is process 1 of the new namespace, which unshare(2) cannot give.
    """
    arguments = _clone_arguments(namespaces | signal.SIGCHLD)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_libc.syscall(*(ctypes.c_long(value) for value in arguments)))
    code = ctypes.get_errno()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone({namespaces:#x}): {os.strerror(code)}")
    return pid


def _clone_arguments(flags: int) -> list[int]:
    """The C library keeps its thread's id in memory; as its own fork does, let the kernel renew it there."""
    address = ctypes.c_void_p()
    if _libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) == 0 and address.value:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    child_tid = address.value or 0
    number = _NUMBERS[platform.machine()]["clone"]
    if platform.machine() == "aarch64":
        return [number, flags, 0, 0, 0, child_tid]
    return [number, flags, 0, 0, child_tid, 0]


def unshare(namespaces: int) -> None:
    """Move this process into new namespaces."""
    _check(_libc.unshare(namespaces), f"unshare({namespaces:#x})")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2); empty strings are passed as NULL."""
    result = _libc.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(options))
    _check(result, f"mount {kind or 'bind'} {source} on {target}")


def set_mount_attributes(target: str, attributes: int) -> None:
    """Add ATTR_* to a mount and all below it; those that it has stay.  Linux 5.12 or later."""
    buffer = struct.pack("=4Q", attributes, 0, 0, 0)
    path = ctypes.c_char_p(_text(target))
    size = ctypes.c_long(len(buffer))
    flags = ctypes.c_long(_AT_RECURSIVE)
    _syscall("mount_setattr", ctypes.c_long(_AT_FDCWD), path, flags, ctypes.c_char_p(buffer), size)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(_text(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the root of this mount namespace and put the former one at ``old``."""
    _syscall("pivot_root", _text(new), _text(old))


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send a signal when the thread that forked this process ends.

    A change of user clears it.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def set_dumpable(value: bool) -> None:
    """Whether processes of the same user may look into this one (ptrace, /proc/<pid>/mem)."""
    _prctl(_PR_SET_DUMPABLE, int(value))


def set_keep_capabilities() -> None:
    """Keep the permitted capabilities over the next change to an ordinary user."""
    _prctl(_PR_SET_KEEPCAPS, 1)


def set_subreaper() -> None:
    """Adopt descendants whose parents die."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privileges() -> None:
    """Make exec ignore set-user-id bits and file capabilities, for this process and all it starts."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_name(name: str) -> None:
    """What ``ps -o comm`` shows; 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _check(_libc.prctl(_PR_SET_NAME, buffer, 0, 0, 0), "prctl(PR_SET_NAME)")


def drop_bounding_set(kept: frozenset[int]) -> None:
    """Remove every capability but those ``kept`` from the bounding set: no exec gains another one again.

    Needs CAP_SETPCAP.
    """
    for capability in sorted(frozenset(range(64)) - kept):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # beyond the last one that this kernel knows
                return
            raise


def set_capabilities(capabilities: frozenset[int]) -> None:
    """Keep these capabilities, effective and permitted, and no inheritable or ambient one."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    bits = sum(1 << capability for capability in capabilities)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    _syscall("capset", header, data)


def set_seccomp_filter(program: bytes) -> None:
    """Put a filter (an array of struct sock_filter) on this process and all it starts.

    Needs no_new_privs.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = ctypes.addressof(buffer)
    header = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program) // 8, pointer))
    _syscall("seccomp", ctypes.c_long(_SECCOMP_SET_MODE_FILTER), ctypes.c_long(0), header)


def _prctl(option: int, value: int) -> None:
    result = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)
    _check(result, f"prctl({option}, {value})")


def _syscall(name: str, *arguments: object) -> None:
    number = ctypes.c_long(_NUMBERS[platform.machine()][name])
    _check(_libc.syscall(number, *arguments), name)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _text(value: str) -> bytes | None:
    return os.fsencode(value) if value else None
