"""The system call filter of functions: a deny list as a classic BPF program.  Standard library only.

It denies what an ordinary function never needs and what has been the way out of many a sandbox: mounts,
namespaces, tracing, BPF, kernel keys, io_uring, modules.  Denied calls fail with EPERM, so that a library
can try another way; clone3 is ENOSYS, since a filter cannot see its flags and the C library then takes
clone; a call by another architecture's table kills the process.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable, Mapping

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*

# name: (x86_64, aarch64); None where the architecture has no such call
_DENIED: Mapping[str, tuple[int | None, int | None]] = {
    # file systems
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    # namespaces and other processes
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # parts of the kernel with a large surface
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "memfd_secret": (447, 447),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    # the machine
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_adjtime": (305, 266),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
}
_CHECKED: Mapping[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "prctl": (157, 167),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "personality": (135, 92),
}

_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* that clone takes
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into somebody's terminal
_PRCTL = (4, 36)  # PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER: what supervision rests on
_FAMILIES = (1, 2, 10)  # UNIX, INET, INET6
_NETLINK = 16  # with protocol 0 (routes) alone: the C library lists addresses by it
_PERSONALITIES = (0, 0xFFFFFFFF)  # set nothing, ask

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16  # in struct seccomp_data
_X32 = 0x40000000


def _op(code: int, k: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One struct sock_filter; ``then`` and ``otherwise`` count the instructions to skip."""
    return struct.pack("=HBBI", code, then, otherwise, k & 0xFFFFFFFF)


def program(machine: str | None = None) -> bytes:
    """The filter for ``machine`` (as platform.machine() names it; default: this one).

    Raises KeyError for an architecture that is not known here.
    """
    machine = machine or platform.machine()
    column = list(_ARCHITECTURES).index(machine) if machine in _ARCHITECTURES else -1
    parts = [_prologue(_ARCHITECTURES[machine], machine)]
    parts += _checks({name: numbers[column] for name, numbers in _CHECKED.items()})
    denied = (numbers[column] for numbers in _DENIED.values())
    parts += [_refuse(number, errno.EPERM) for number in denied if number is not None]
    return b"".join([*parts, _op(_RETURN, _ALLOW)])


def _prologue(architecture: int, machine: str) -> bytes:
    code = _op(_LOAD, _ARCH_OFFSET) + _op(_EQUAL, architecture, then=1) + _op(_RETURN, _KILL)
    code += _op(_LOAD, _NUMBER_OFFSET)
    if machine == "x86_64":  # the x32 table shares the architecture
        code += _op(_AT_LEAST, _X32, otherwise=1) + _op(_RETURN, _KILL)
    return code


def _refuse(number: int, error: int) -> bytes:
    return _op(_EQUAL, number, otherwise=1) + _op(_RETURN, _ERRNO | error)


def _checks(numbers: Mapping[str, int | None]) -> Iterable[bytes]:
    """The calls whose arguments decide; each part ends in a verdict for its call."""
    allow, deny = _op(_RETURN, _ALLOW), _op(_RETURN, _ERRNO | errno.EPERM)
    flags = _argument(0) + _op(_ANY_BIT, _NEW_NAMESPACES, otherwise=1) + deny + allow
    yield _when(numbers["clone"], flags)
    yield _when(numbers["clone3"], _op(_RETURN, _ERRNO | errno.ENOSYS))
    yield _when(numbers["prctl"], _argument(0) + _any_of(_PRCTL, deny) + allow)
    yield _when(numbers["ioctl"], _argument(1) + _any_of(_TERMINAL_INPUT, deny) + allow)
    yield _when(numbers["personality"], _argument(0) + _any_of(_PERSONALITIES, allow) + deny)
    yield _when(numbers["socket"], _socket())
    yield _when(numbers["socketpair"], _socket())


def _socket() -> bytes:
    allow, deny = _op(_RETURN, _ALLOW), _op(_RETURN, _ERRNO | errno.EAFNOSUPPORT)
    netlink = _op(_EQUAL, _NETLINK, otherwise=4) + _argument(2) + _op(_EQUAL, 0, otherwise=1) + allow + deny
    return _argument(0) + _any_of(_FAMILIES, allow) + netlink + deny


def _when(number: int | None, body: bytes) -> bytes:
    assert number is not None
    return _op(_EQUAL, number, otherwise=len(body) // 8) + body


def _any_of(values: Iterable[int], verdict: bytes) -> bytes:
    return b"".join(_op(_EQUAL, value, otherwise=1) + verdict for value in values)


def _argument(index: int) -> bytes:
    """Load the low half of an argument: all these are 32 bits wide (both machines are little-endian)."""
    return _op(_LOAD, _ARGUMENTS_OFFSET + 8 * index)
