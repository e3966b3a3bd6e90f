"""The handler process: runs the user's function, one call after the other.

It is forked from the supervisor.  Nothing of the supervisor's may remain within reach: `run` is called after
the supervisor's frames and objects are gone, closes every descriptor but its own two and takes the
platform's modules out of ``sys.modules``.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import array
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from funcplat.worker import entry, frames, guest, host, kernel, load, preload, streams

_HIGH_FD = 500
"""From where on own descriptors go: out of the way of code that closes all low ones."""
_RECEIVE = 64 * 1024
_ROOM = _socket.CMSG_SPACE(4)
_CONFINE_FAILED = 70
_LONGEST_CHARACTER = 13
"""Bytes of a character as JSON in ASCII: two escapes; and there are quotation marks."""
# PERF: `signal.signal` makes enumeration members of its arguments, which copies 200 KiB of shared memory.
_SIGTERM = int(signal.SIGTERM)
_SIG_DFL = int(signal.SIG_DFL)


class Birth(BaseException):
    """Raised in a process just forked, to unwind the supervisor's frames before `run`."""

    def __init__(
        self,
        parent: int,
        channel: int,
        output: int,
        surface: guest.Surface,
        surroundings: host.Host,
        revision: load.Revision,
    ) -> None:
        super().__init__()
        self.parent = parent  # the supervisor's process id, as it was before the fork
        self.channel = channel
        self.output = output
        self.surface = surface
        self.host = surroundings
        self.revision = revision


def run(birth: Birth) -> NoReturn:
    """Be a handler until the supervisor ends it."""
    surroundings, revision = birth.host, birth.revision
    channel, surface = _take_descriptors(birth)
    try:
        _confine(surroundings, birth.parent)
    except BaseException as error:
        text = f"The platform could not confine the function's process: {error!r}"
        _send(
            channel,
            frames.report(
                frames.IMPORTING, frames.FAILURE, _json(text), reason="platform_error", message=text
            ),
        )
        os._exit(_CONFINE_FAILED)
    streams.STREAMS.install_for_good()
    _set_environment(surroundings, revision)
    _hide_the_house(revision)
    Handler(channel, surface, streams.STREAMS, revision).serve()


def _take_descriptors(birth: Birth) -> tuple[int, guest.Surface]:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(birth.output, 1)
    os.dup2(birth.output, 2)
    channel, timer, reader = (_high(fd) for fd in (birth.channel, birth.surface.timer, birth.surface.output))
    end = 3
    for fd in (channel, timer, reader):  # each higher than the one before
        os.closerange(end, fd)
        end = fd + 1
    os.closerange(end, 2**31 - 1)
    return channel, guest.Surface(birth.surface.board, timer, reader)


def _high(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)


def _confine(surroundings: host.Host, parent: int) -> None:
    os.setsid()  # a process group of its own, which `tree.kill` counts on
    signal.set_wakeup_fd(-1)
    _signal.signal(_SIGTERM, _SIG_DFL)
    kernel.become_subreaper()
    kernel.set_dumpable(True)  # else /proc/self would not be its own
    if surroundings.raise_oom_score:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"1000")
        os.close(fd)
    os.chdir(surroundings.scratch)
    surroundings.confine()
    kernel.die_with_parent(parent)


def _set_environment(surroundings: host.Host, revision: load.Revision) -> None:
    if os.environ:
        os.environ.clear()
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": surroundings.scratch,
        "LANG": "C.UTF-8",
        "TMPDIR": surroundings.scratch,
        **revision.environment,
    }
    for name, value in environment.items():
        os.environ[name] = value  # PERF: update() copies 300 KiB of shared memory more


def _hide_the_house(revision: load.Revision) -> None:
    assert revision.path is not None
    # PERF: names, not a search through sys.modules: touching every key copies 500 KiB of shared memory.
    for name in preload.HIDDEN:
        sys.modules.pop(name, None)
    _unload_shadowed(revision.path)
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    sys.path.insert(0, revision.path)
    sys.path_importer_cache.pop(revision.path, None)
    sys.set_int_max_str_digits(0)


def _unload_shadowed(path: str) -> None:
    """Forget modules that are loaded already and that the package has its own of, as in a fresh Python."""
    own = {name.partition(".")[0] for name in os.listdir(path)}  # noqa: PTH208
    shadowed = tuple(name for name in own if name in sys.modules and not _is_of_the_core(sys.modules[name]))
    if shadowed:
        for name in [name for name in sys.modules if name.partition(".")[0] in shadowed]:
            del sys.modules[name]


def _is_of_the_core(module: types.ModuleType) -> bool:
    """Whether an interpreter has this module before it looks at any path."""
    return module.__spec__ is None or module.__spec__.origin in ("built-in", "frozen")


class _Outcome(NamedTuple):  # PERF: a frozen dataclass takes five times as long to make
    """What the function did, as this process sees it."""

    kind: int  # SUCCESS or FAILURE
    result: bytes  # JSON
    reason: str = ""
    message: str = ""
    duration: float = 0.0  # seconds


class Handler:
    """Imports the function, then answers calls."""

    def __init__(
        self, channel: int, surface: guest.Surface, output: streams.Streams, revision: load.Revision
    ) -> None:
        self._channel = channel
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, channel)
        self._input = b""  # frames of the supervisor that were not looked at yet
        self._gift = -1  # descriptor that came with one
        self._surface = surface
        self._guest: guest.Guest | None = None
        self._streams = output
        self._revision = revision
        self._pid = os.getpid()
        self._context = {
            "os_session": None,
            "execution_id": "",
            "function_id": revision.function_id,
            "function_version": revision.function_version,
        }

    def serve(self) -> NoReturn:
        function = self._import()
        self._send(frames.report(frames.IMPORTING, frames.READY))
        self._streams.install()
        while True:
            if self._guest is None:
                self._one(function)
            else:
                self._one_direct(function, self._guest)

    def _import(self) -> entry.Entry:
        assert self._revision.path is not None
        try:
            found = entry.find(self._revision.entry, os.listdir(self._revision.path))  # noqa: PTH208
        except SystemExit as error:
            self._leave(error)
        except BaseException as error:
            self._report(frames.IMPORTING, self._failure(error, True, 0.0), self._tidy())
            os._exit(1)
        if os.getpid() != self._pid:
            os._exit(0)  # a child of the module that came back from its import
        self._streams.flush()
        return found

    def _one(self, function: entry.Entry) -> None:
        sequence, execution, body = self._receive()
        if frames.is_lend(sequence):
            self._guest = guest.Guest(self._surface, self._gift, self._channel, self._revision.max_log)
            self._send(frames.TAKEN)
        elif not frames.is_recall(sequence):  # of a connection that was given back meanwhile
            outcome = self._run(function, execution, body)
            self._report(sequence, outcome, self._tidy())

    def _one_direct(self, function: entry.Entry, client: guest.Guest) -> None:
        if client.wait():
            self._receive()  # it can only ask for the connection
            self._give_back(client, b"")
            return
        data, request = client.receive()
        if request is None:
            self._give_back(client, data)
            return
        client.begin(request)
        outcome = self._run(function, request[2].decode("ascii"), data[request.end() :])
        flags = self._tidy()
        log = None
        if client.end() and outcome.kind == frames.SUCCESS and not flags and guest.is_short(outcome.result):
            log = client.log()
        if log is None:  # for the supervisor to judge, who knows the call from the board
            self._let_go(client)
            self._report(frames.DIRECT, outcome, flags)
        else:
            client.answer(outcome.result, log, outcome.duration)

    def _give_back(self, client: guest.Guest, data: bytes) -> None:
        self._let_go(client)
        self._send(frames.report(frames.DIRECT, frames.RETURNED, data))

    def _let_go(self, client: guest.Guest) -> None:
        client.leave()
        self._guest = None

    def _run(self, function: entry.Entry, execution: str, body: bytes) -> _Outcome:
        self._streams.install()
        started = time.perf_counter()
        duration = 0.0
        try:
            self._context["execution_id"] = execution
            positional, keywords = function.arguments(_decode(body), self._context)
            started = time.perf_counter()
            try:
                result = function.call(positional, keywords)
            finally:
                duration = time.perf_counter() - started
            data = entry.encode(result, self._revision.max_result)
        except SystemExit as error:
            self._leave(error)
        except BaseException as error:
            return self._failure(error, False, duration)
        return _Outcome(frames.SUCCESS, data, duration=duration)

    def _failure(self, error: BaseException, importing: bool, duration: float) -> _Outcome:
        if os.getpid() == self._pid and not isinstance(error, entry.Failure):
            self._streams.trace(error)
        text, reason, message = entry.explain(error, importing)
        return _Outcome(frames.FAILURE, _json(text), reason, message, duration)

    def _tidy(self) -> int:
        """Flush the output and look for processes left behind; returns flags."""
        if os.getpid() != self._pid:
            os._exit(0)  # a child of the function that came back from it: only the parent answers
        flags = 0 if self._streams.flush() else frames.SPENT
        return flags | frames.LEFT_PROCESSES if kernel.reap_children() else flags

    def _report(self, sequence: int, outcome: _Outcome, flags: int) -> None:
        self._send(
            frames.report(
                sequence,
                outcome.kind,
                outcome.result,
                reason=outcome.reason,
                message=outcome.message,
                duration=outcome.duration,
                flags=flags,
            )
        )

    def _leave(self, error: SystemExit) -> NoReturn:
        """End as the interpreter would for this exception; the supervisor tells what that means."""
        code = error.code
        if code is not None and not isinstance(code, int):
            self._streams.flush()
            with contextlib.suppress(BaseException):  # __str__ is the user's
                self._streams.err.write(f"{code}\n")
            code = 1
        self._streams.flush()
        os._exit((code or 0) & 0xFF)

    def _receive(self) -> tuple[int, str, bytes]:
        """The next frame: sequence, id of the execution, body."""
        data = self._input
        while len(data) < frames.CALL.size:
            data += self._read()
        length, sequence, split = frames.CALL.unpack_from(data)
        end = length + frames.LENGTH
        if len(data) < end:
            data += self._receive_rest(end - len(data))
        self._input = data[end:]
        body = frames.CALL.size + split
        return sequence, data[frames.CALL.size : body].decode("ascii"), data[body:end]

    def _read(self) -> bytes:
        data, ancillary, _flags, _address = self._socket.recvmsg(_RECEIVE, _ROOM, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)  # the supervisor is gone
        for _level, _kind, descriptors in ancillary:
            received = array.array("i", descriptors)[0]
            self._gift = _high(received)
            os.close(received)
        return data

    def _receive_rest(self, missing: int) -> bytes:
        rest = bytearray(missing)
        view = memoryview(rest)
        while missing:
            received = os.readv(self._channel, [view[-missing:]])
            if not received:
                os._exit(0)
            missing -= received
        return bytes(rest)

    def _send(self, frame: bytes) -> None:
        try:
            _send(self._channel, frame)
        except OSError:
            # The user closed the channel.  The supervisor notices and ends this process.
            while True:
                signal.pause()


def _send(channel: int, frame: bytes) -> None:
    sent = os.write(channel, frame)
    while sent < len(frame):
        frame = frame[sent:]
        sent = os.write(channel, frame)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has {constant}")


_decoder = json.JSONDecoder(parse_constant=_refuse)
_scan: Callable[[str, int], tuple[object, int]] = _decoder.scan_once  # type: ignore[attr-defined]


def _decode(body: bytes) -> object:
    try:
        text = str(body, "utf-8")
        try:
            # PERF: without a search for white space around the value, which the platform does not send: 2 us.
            value, end = _scan(text, 0)
        except StopIteration:
            end = -1
        return value if end == len(text) else _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise entry.bad_arguments(f"it is not JSON: {error}") from None


def _json(text: str) -> bytes:
    """A text for people; one that is too long is cut."""
    data = json.dumps(text).encode("ascii")
    if len(data) > frames.MAX_EXPLANATION:
        data = json.dumps(text[: frames.MAX_EXPLANATION // _LONGEST_CHARACTER]).encode("ascii")
    return data
