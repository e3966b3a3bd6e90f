"""The filter, run by an interpreter of classic BPF: what the kernel would decide."""

from __future__ import annotations

import errno
import struct

import testtools

from funcplat.drivers.process import seccomp

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter returns for a system call."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(value & (2**64 - 1) for value in padded))
    accumulator = position = 0
    while True:
        code, then, otherwise, k = struct.unpack_from("<HBBI", program, position * 8)
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:
            return int(k)
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            position += then if holds else otherwise


class FilterTest(testtools.TestCase):
    def expect(self, decision: int, number: int, *arguments: int) -> None:
        program = seccomp.program("x86_64")
        self.assertEqual(
            hex(decision), hex(verdict(program, X86_64, number, *arguments)), (number, arguments)
        )

    def test_ordinary_calls_are_allowed(self) -> None:
        for number in (0, 1, 2, 9, 12, 39, 57, 59, 60, 202, 231, 257, 318):
            self.expect(ALLOW, number)

    def test_every_denied_call_is_denied_on_both_machines(self) -> None:
        for column, (machine, architecture) in enumerate((("x86_64", X86_64), ("aarch64", AARCH64))):
            program = seccomp.program(machine)
            for name, numbers in seccomp._DENIED.items():
                number = numbers[column]
                if number is not None:
                    self.assertEqual(ERRNO | errno.EPERM, verdict(program, architecture, number), name)

    def test_another_architecture_kills(self) -> None:
        self.assertEqual(KILL, verdict(seccomp.program("x86_64"), I386, 1))
        self.assertEqual(KILL, verdict(seccomp.program("aarch64"), X86_64, 1))
        self.expect(KILL, 0x40000000 | 1)

    def test_clone_is_judged_by_its_flags(self) -> None:
        self.expect(ALLOW, 56, 0x01200011)  # fork
        self.expect(ALLOW, 56, 0x003D0F00)  # a thread
        for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
            self.expect(ERRNO | errno.EPERM, 56, flag | 17)

    def test_clone3_is_said_not_to_exist(self) -> None:
        self.expect(ERRNO | errno.ENOSYS, 435)

    def test_sockets_are_judged_by_their_family(self) -> None:
        for family in (1, 2, 10):
            self.expect(ALLOW, 41, family, 1, 0)
            self.expect(ALLOW, 53, family, 1, 0)
        self.expect(ALLOW, 41, 16, 3, 0)  # netlink: routes
        self.expect(ERRNO | errno.EAFNOSUPPORT, 41, 16, 3, 9)  # netlink: audit
        for family in (17, 29, 38, 40, 44):
            self.expect(ERRNO | errno.EAFNOSUPPORT, 41, family, 1, 0)

    def test_prctl_ioctl_and_personality_are_judged_by_their_argument(self) -> None:
        self.expect(ALLOW, 157, 15)  # PR_SET_NAME
        self.expect(ERRNO | errno.EPERM, 157, 36)
        self.expect(ERRNO | errno.EPERM, 157, 4)
        self.expect(ALLOW, 16, 0, 0x5401)
        self.expect(ERRNO | errno.EPERM, 16, 0, 0x5412)
        self.expect(ERRNO | errno.EPERM, 16, 0, 0xFFFFFFFF00005412)  # the kernel ignores the upper half
        self.expect(ALLOW, 135, 0xFFFFFFFF)
        self.expect(ERRNO | errno.EPERM, 135, 0x0040000)

    def test_an_unknown_machine_has_no_filter(self) -> None:
        self.assertRaises(KeyError, seccomp.program, "riscv64")
