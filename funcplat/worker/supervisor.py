"""The supervisor: the process that a worker consists of, beside its handlers.

It has one thread and never runs code of the user.  Everything it hears from a handler may be a lie.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import gc
import os
import signal
import socket
import traceback

from funcplat.worker import handler, host, kernel, loop, service

_HANDLER_BROKE = 70


def serve(surroundings: host.Host) -> None:
    """Serve a worker until SIGTERM, or until the lifeline ends.

    The process should be forked for this, with one thread, after ``gc.collect(); gc.freeze()`` in its parent:
    its signal handlers, umask and collector change.  Handlers are forked from it.  Raises RuntimeError where
    /proc shows another pid namespace.
    """
    birth = _supervise(surroundings)
    if birth is not None:
        # In a new handler, with the supervisor's frames gone; now its objects, which hold descriptors:
        # collected later they would close descriptors of the function.
        try:
            gc.collect()
            handler.run(birth)
        except BaseException:  # what the function left behind: a signal handler that raises, say
            traceback.print_exc()
        finally:
            os._exit(_HANDLER_BROKE)  # the caller's frames must not run in a handler


def _supervise(surroundings: host.Host) -> handler.Birth | None:
    _prepare(surroundings)
    events = loop.Loop()
    application = service.Service(surroundings, events)
    surroundings.listener.setblocking(False)
    if surroundings.listener.family != socket.AF_UNIX:  # connections take it over
        surroundings.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    events.watch(surroundings.listener.fileno(), loop.READ, application.accept)
    if surroundings.lifeline is not None:
        events.watch(surroundings.lifeline, loop.READ, lambda _events: _end_at_once(application))
    _stop_on_sigterm(events)
    try:
        events.run()
    except handler.Birth as birth:
        return birth.with_traceback(None)  # which would keep the supervisor's frames
    application.end()
    return None


def _prepare(surroundings: host.Host) -> None:
    if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115
        raise RuntimeError(
            "/proc shows another pid namespace: a worker cannot find the processes of its functions"
        )
    kernel.become_subreaper()
    kernel.set_dumpable(False)
    _yield_to_the_platform()
    os.umask(0o022)
    gc.freeze()  # the collector of a handler does not touch, and so copy, what it shares with its parents


def _yield_to_the_platform() -> None:
    """Do not interrupt who woke this process, nor let handlers do so.

    PERF(batch): with as many processes as calls, being interrupted for each call costs the platform's event
    loop its caches: on two processors a quarter of the calls per second.
    """
    with contextlib.suppress(PermissionError):  # a container's seccomp filter: it is a hint, no more
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _stop_on_sigterm(events: loop.Loop) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.signal(15, lambda _number, _frame: None)  # PERF: see handler._SIGTERM
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def woken(_events: int) -> None:
        if 15 in os.read(reader, 64):
            events.stop()

    events.watch(reader, loop.READ, woken)


def _end_at_once(application: service.Service) -> None:
    application.end()
    os._exit(0)
