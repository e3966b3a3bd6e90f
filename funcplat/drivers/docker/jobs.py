"""Image functions: a container of any image that runs once, with arguments, and is removed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import containers, deadlines, engine, images, workers

LOG = logging.getLogger(__name__)
MAX_LOG = 1 << 20
"""Bytes of output that are kept of a run; more is read, so that it can go on, and dropped."""
MOST_RUNS = 1000
"""Runs at once whose output can be read, each by a thread."""
READ_TIMEOUT = 5.0
"""Seconds for the last output to come in when a container has ended."""
CLEAN_UP_DEADLINE = 20.0
KILLED = 128 + signal.SIGKILL
"""Exit code of a program that was killed."""


class Jobs:
    """Runs of image functions.  Thread-safe."""

    def __init__(self, docker: engine.Engine, names: containers.Names, of: workers.Workers) -> None:
        self._docker = docker
        self._names = names
        self._workers = of
        self._threads = concurrent.futures.ThreadPoolExecutor(MOST_RUNS, thread_name_prefix="docker-job")
        self._changed = threading.Condition()
        self._running: set[str] = set()  # names of containers
        self._closed = False

    def close(self) -> None:
        """End what runs, and return when nothing is left of it."""
        with self._changed:
            self._closed = True
            names = tuple(self._running)
        try:
            for name in names:
                self._workers.kill(name, deadlines.Deadline(CLEAN_UP_DEADLINE))
            with self._changed:
                self._changed.wait_for(lambda: not self._running, CLEAN_UP_DEADLINE)
        finally:
            self._threads.shutdown(wait=False)

    def run(
        self,
        spec: base.WorkerSpec,
        body: Mapping[str, Any],
        timeout: float,
        deadline: deadlines.Deadline,
    ) -> base.ImageRun:
        """Run a container of this body to its end.

        ``timeout``: seconds until it is killed.  Raises DriverError; nothing is left in any case.
        """
        with self._named(self._names.job(spec.worker_id)) as name:
            try:
                self._docker.call("POST", "/containers/create", deadline, {"name": name}, body)
                return self._watch(name, timeout, deadline)
            finally:
                self._remove(name)

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[str]:
        """A name that `close` knows.  Raises DriverUnavailable at the end where it has come in between."""
        with self._changed:
            self._expect_open()
            self._running.add(name)
        try:
            yield name
            self._expect_open()
        finally:
            with self._changed:
                self._running.discard(name)
                self._changed.notify_all()

    def _expect_open(self) -> None:
        if self._closed:
            raise errors.DriverUnavailable("the Docker driver was closed, which ends runs of images")

    def _watch(self, name: str, timeout: float, deadline: deadlines.Deadline) -> base.ImageRun:
        output = _Output()
        # Before the start, so that nothing is missed: it is kept here, not on the Engine's disk.
        with self._docker.attached(name) as stream:
            reading = self._threads.submit(output.read, stream)
            return self._watch_read(name, timeout, deadline, output, reading)

    def _watch_read(
        self,
        name: str,
        timeout: float,
        deadline: deadlines.Deadline,
        output: _Output,
        reading: concurrent.futures.Future[None],
    ) -> base.ImageRun:
        self._docker.call("POST", f"/containers/{name}/start", deadline)
        self._expect_open()  # `close` may have come too early to kill it
        started = time.monotonic()
        timed_out = not self._ended(name, min(timeout, deadline.remaining()))
        if timed_out:
            self._workers.kill(name, deadlines.Deadline(CLEAN_UP_DEADLINE))
        duration = time.monotonic() - started
        concurrent.futures.wait([reading], READ_TIMEOUT)
        state = self._state(name)
        return base.ImageRun(
            exit_code=state["ExitCode"],
            log=output.kept(),
            log_dropped=output.dropped,
            duration=duration,
            timed_out=timed_out,
            out_of_memory=bool(state.get("OOMKilled")) and not timed_out,
        )

    def _ended(self, name: str, timeout: float) -> bool:
        """Wait for a container's end; whether it came in time."""
        try:
            self._docker.call("POST", f"/containers/{name}/wait", deadlines.Deadline(timeout))
        except errors.DriverTimeout:
            return False
        return True

    def _state(self, name: str) -> Mapping[str, Any]:
        """How a container has ended."""
        until = deadlines.Deadline(CLEAN_UP_DEADLINE)
        try:
            state: Mapping[str, Any] = self._docker.call("GET", f"/containers/{name}/json", until)["State"]
        except engine.Refused as error:
            if error.status != 404:
                raise
            return {"ExitCode": KILLED}  # it was killed and removed, by `stop_worker` or by an operator
        return state

    def _remove(self, name: str) -> None:
        try:
            self._workers.remove_named(name, deadlines.Deadline(CLEAN_UP_DEADLINE))
        except errors.DriverError as error:
            # `Pool.tend` does
            LOG.warning("container %s is not removed yet: %s", name, error.message)


class _Output:
    """What a container writes, from one thread to another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data = bytearray()
        self._length = 0

    def read(self, stream: Iterator[bytes]) -> None:
        try:
            for chunk in stream:
                with self._lock:
                    self._data += chunk[: MAX_LOG - len(self._data)]
                    self._length += len(chunk)
        except errors.DriverError as error:
            LOG.warning("the output of an image function broke off: %s", error.message)

    def kept(self) -> bytes:
        with self._lock:
            return bytes(self._data)

    @property
    def dropped(self) -> int:
        """Bytes that came and are not kept."""
        with self._lock:
            return self._length - len(self._data)


def body(
    spec: base.WorkerSpec,
    image: images.Image,
    arguments: Sequence[str],
    user: str,
    network: str,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """The body of ``POST /containers/create``: as confined as a worker, with the limits it is to have.

    With an init: nothing is known of the program, and few can be the first process of a container.
    """
    disk = containers.disk_of(spec)
    host = {
        **containers.confined(disk, network),
        **containers.limits(spec.cpu, spec.memory, spec.pids),
        "Init": True,
        "LogConfig": {"Type": "none"},
    }
    # What an image declares as volumes would be on the Engine's disk.
    options = f"rw,exec,nosuid,nodev,mode=1777,size={disk}"
    host["Tmpfs"] = {**host["Tmpfs"], **dict.fromkeys(image.volumes, options)}
    return {
        "Image": image.id,
        "Cmd": list(arguments) or None,  # none: what the image says
        "User": user,
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": labels,
        "Healthcheck": containers.NO_HEALTHCHECK,
        "HostConfig": host,
    }
