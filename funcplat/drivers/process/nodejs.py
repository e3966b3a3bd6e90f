"""Workers of Node.js: what a worker process becomes instead of a Python supervisor.  Standard library only.

Node.js neither buries processes that functions leave behind nor confines itself, and cannot be forked warm.
So the process that the zygote forked stays what it is, an *init* that hands SIGTERM down and buries what
ends, and its one child, confined, executes Node.js with the worker in ``runtimes/nodejs``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

from funcplat.drivers.process import kernel, processes, rootfs, sandbox

LEAST_MEMORY = 32 << 20
"""Bytes of a worker below which Node.js ends for want of memory before it runs anything of use."""

_LISTENER, _OOM_KILLS, _PIDS_HITS = 3, 4, 5
"""Descriptors of the supervisor.  Node.js keeps those up to 15 from its children, and no others."""
_FREE = 16  # the least descriptor that is in nobody's way
_HEARD = (signal.SIGCHLD, signal.SIGTERM)
_REPORT = 4096  # bytes
_SMALL = ("--max-semi-space-size=1", "--v8-pool-size=1")  # of the supervisor; it sizes its handlers itself
_REHEARSAL = """
const [worker, user] = process.argv.slice(1);
const ids = user ? { uid: Number(user), gid: Number(user) } : {};
const options = { stdio: ['ignore', 'ignore', 'inherit'], ...ids };
const { error, status } = require('child_process').spawnSync(process.execPath, [worker, '--help'], options);
if (error) throw error;
process.exitCode = status ?? 1;
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """What is executed."""

    node: str
    files: tuple[str, ...]  # that it consists of, itself included
    worker: str  # directory of worker.js

    def script(self, inside: sandbox.Inside) -> str:
        """The path of worker.js as the worker sees it."""
        return f"{rootfs.WORKER if inside.namespaces else self.worker}/worker.js"


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What a supervisor is given beside its sandbox."""

    listener: int
    memory_events: int  # -1: there are none
    pids_events: int
    memory: int  # bytes
    concurrency: int


def start(program: Program, inside: sandbox.Inside, given: Given) -> int:
    """Execute the supervisor in a child of this process; returns its pid as soon as that has worked.

    From then on `attend` must hear the signals of this process.  Raises OSError.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    if not inside.namespaces:  # what functions leave behind comes here, also when the zygote is gone
        kernel.set_subreaper()
        kernel.set_parent_death_signal(signal.SIGTERM)
    descriptors = {_LISTENER: given.listener, _OOM_KILLS: given.memory_events, _PIDS_HITS: given.pids_events}
    command = [program.node, *_SMALL, program.script(inside), *_options(inside, given)]
    return _execute(command, inside.confinement, {to: of for to, of in descriptors.items() if of >= 0})


def _options(inside: sandbox.Inside, given: Given) -> list[str]:
    user = inside.confinement.user
    return [
        f"--listen=fd:{_LISTENER}",
        f"--concurrency={given.concurrency}",
        f"--memory={given.memory}",
        f"--code-dir={inside.code}",
        f"--scratch={inside.scratch}",
        # Without a control group of its own a worker must not count what happens in somebody else's.
        f"--oom-kills={_counter(_OOM_KILLS, given.memory_events)}",
        f"--pids-hits={_counter(_PIDS_HITS, given.pids_events)}",
        *([f"--user={user}:{user}"] if user is not None else []),
    ]


def _counter(descriptor: int, source: int) -> str:
    return f"fd:{descriptor}" if source >= 0 else "/dev/null"


def attend(pid: int, inside: sandbox.Inside) -> int:
    """Be the init of the supervisor ``pid`` until that ends; returns an exit code as a shell's."""
    kernel.set_dumpable(False)
    zygote = os.getppid()
    status: int | None = None
    while status is None:
        if signal.sigwait(_HEARD) == signal.SIGCHLD:
            status = _bury(pid)
        else:
            os.kill(pid, signal.SIGTERM if os.getppid() == zygote else signal.SIGKILL)
    if not inside.namespaces:  # else the end of this process ends all others
        processes.end_children()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _bury(pid: int) -> int | None:
    """Wait for all that have ended; the wait status of ``pid`` if it is one of them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pid:
                found = ended[1]
    return found


def rehearse(program: Program, inside: sandbox.Inside) -> None:
    """Do what a supervisor does: execute, and from there execute as the functions' user.

    Raises OSError with what Node.js said.
    """
    user = inside.confinement.user
    arguments = [program.script(inside), *([str(user)] if user is not None else [])]
    command = [program.node, *_SMALL, "-e", _REHEARSAL, *arguments]
    with open(os.memfd_create("output"), "rb") as output:
        pid = _execute(command, inside.confinement, {2: output.fileno()})
        _, status = os.waitpid(pid, 0)
        if status:
            said = os.pread(output.fileno(), _REPORT, 0).decode(errors="replace").strip()
            code = os.waitstatus_to_exitcode(status)
            raise OSError(errno.ENOEXEC, f"{program.node} ended with {code}: {said or 'and said nothing'}")


def _execute(command: Sequence[str], confinement: sandbox.Confinement, descriptors: Mapping[int, int]) -> int:
    """Fork, confine the child, and execute there; ``descriptors``: those that it gets, and of what."""
    report, reporter = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, confinement, descriptors, parent, reporter)
    os.close(reporter)
    with open(report, "rb") as file:  # ends as soon as the child has executed
        told = file.read(_REPORT)
    if told:
        os.waitpid(pid, 0)
        number, message = json.loads(told)
        raise OSError(number, message)
    return pid


def _become(
    command: Sequence[str],
    confinement: sandbox.Confinement,
    descriptors: Mapping[int, int],
    parent: int,
    reporter: int,
) -> NoReturn:
    try:
        reporter = fcntl.fcntl(reporter, fcntl.F_DUPFD_CLOEXEC, _FREE)
        kernel.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:  # it died before that was set
            os._exit(1)
        os.setsid()
        _place(descriptors)
        _yield_to_the_platform()
        confinement.bound()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that would be inherited
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        os.execve(command[0], [*command], {})  # noqa: S606
    except BaseException as error:  # the end of this process: its parent is told
        os.write(reporter, json.dumps(_told(error, command[0])).encode())
    finally:
        os._exit(1)


def _told(error: BaseException, program: str) -> tuple[int, str]:
    if isinstance(error, OSError):
        return error.errno or errno.EIO, f"{program}: {error.strerror or error}"
    return errno.EIO, f"{program}: {error!r}"[: _REPORT // 8]


def _place(descriptors: Mapping[int, int]) -> None:
    """Give descriptors their numbers.  Every other one of this process but 0 to 2 ends with the exec."""
    moved = {to: fcntl.fcntl(of, fcntl.F_DUPFD_CLOEXEC, _FREE) for to, of in descriptors.items()}
    for to, of in moved.items():
        os.dup2(of, to)


def _yield_to_the_platform() -> None:
    """As workers of Python do: not to interrupt who wakes them."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
