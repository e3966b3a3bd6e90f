"""Finding out what a machine allows by doing it once.  Standard library only: the zygote imports it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NoReturn

from funcplat.drivers.process import kernel, nodejs, rootfs, sandbox

_GO = b"\n"
_MIB = 1 << 20


def choose(
    modes: Sequence[sandbox.Mode], layout: rootfs.Layout, program: nodejs.Program | None, user: int
) -> tuple[sandbox.Sandbox | None, list[tuple[str, str]]]:
    """The first mode that works, prepared, and why those before it do not.

    ``program``: what workers execute; None: they serve in this interpreter.  ``user``: as for
    `sandbox.Sandbox.admit`.
    """
    failures: list[tuple[str, str]] = []
    for mode in modes:
        box = sandbox.Sandbox(mode, layout)
        reason = _try(box, program, user)
        if reason == "ok":
            box.prepare()
            return box, failures
        failures.append((mode.value, reason))
    return None, failures


def _try(box: sandbox.Sandbox, program: nodejs.Program | None, user: int) -> str:
    """Prepare and enter a sandbox in processes that end then: "ok", or the reason why that fails."""
    report, reporter = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _in_child(reporter, lambda: _prepare_and_fork(box, program, user, reporter))
    os.close(reporter)
    with open(report, "rb") as file:
        reason = file.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return reason or "the process that tried it died"


def _prepare_and_fork(box: sandbox.Sandbox, program: nodejs.Program | None, user: int, reporter: int) -> None:
    box.prepare()
    admitted, admit = os.pipe2(os.O_CLOEXEC)
    pid = kernel.clone(box.namespaces)
    if pid == 0:
        os.close(admit)
        _in_child(reporter, lambda: _enter(box, program, user, admitted, reporter))
    try:
        box.admit(pid, user)
        os.write(admit, _GO)
    finally:
        os.close(admit)
        os.waitpid(pid, 0)


def _enter(
    box: sandbox.Sandbox, program: nodejs.Program | None, user: int, admitted: int, reporter: int
) -> None:
    if os.read(admitted, 1) != _GO:
        return
    box.settle()
    birth = sandbox.Birth(None, "/", 64 * _MIB, False, 64, False, _MIB)
    inside = box.enter(birth, user)
    if program is not None:
        nodejs.rehearse(program, inside)
    else:
        inside.confinement.apply()
        os.listdir(os.path.dirname(os.__file__))  # a function can read the standard library
    os.write(reporter, b"ok")


def _in_child(reporter: int, action: Callable[[], None]) -> NoReturn:
    """Run the rest of a forked child and tell its failure."""
    try:
        action()
    except OSError as error:
        os.write(reporter, str(error).encode())
    finally:
        os._exit(0)
