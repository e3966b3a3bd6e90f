"""A fake orchestrator that runs images too: what it calls an image is a program of this machine.

driver.images["greeter:1"] = FakeImage("sha256:" + 64 * "a", ["/bin/echo", "hello"])
driver.inspect_image("greeter:1", 10.0).pin      # greeter@sha256:aaaa...
driver.run_image(spec, ["world"], 5.0, 10.0).log  # b"hello world\\n"
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.base import Capability, ImageInfo, ImageKind, ImageRun
from funcplat.testing import fakes


@dataclasses.dataclass(frozen=True, slots=True)
class FakeImage:
    """A program that stands for an image, or with WORKER a name that stands for a worker."""

    digest: str  # sha256:...
    command: Sequence[str] = ()
    kind: ImageKind = ImageKind.ONE_SHOT


class FakeImageOrchestrator(fakes.FakeOrchestrator):
    """A `FakeOrchestrator` with Capability.RUN_IMAGE."""

    capabilities: ClassVar[frozenset[Capability]] = fakes.FakeOrchestrator.capabilities | {
        Capability.RUN_IMAGE
    }

    def __init__(
        self,
        options: cfg.ConfigOpts.GroupAttr,
        context: base.Context,
        engine: fakes.FakeEngine | None = None,
    ) -> None:
        super().__init__(options, context, engine)
        self.images: dict[str, FakeImage] = {}
        self.inspected: list[str] = []
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}  # by the id of the worker
        self._closed = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for process in running:
            _kill(process)
        super().close()

    def inspect_image(self, image: str, deadline: float) -> ImageInfo:
        self.engine.reach(fakes.Stage.CHECK_IMAGE)
        self.inspected.append(image)
        found = self.images.get(image)
        if found is None:
            raise errors.ImageMissing(f"no fake image is named {image!r}")
        pin = f"{image.partition('@')[0].partition(':')[0]}@{found.digest}"
        self.images[pin] = found
        return ImageInfo(found.kind, pin)

    def run_image(
        self, spec: base.WorkerSpec, arguments: Sequence[str], timeout: float, deadline: float
    ) -> ImageRun:
        image = self.inspect_image(spec.image, deadline).pin
        self.engine.reach(fakes.Stage.START)
        process = self._start(spec, [*self.images[image].command, *arguments])
        started = time.monotonic()
        try:
            log, timed_out = _wait(process, timeout)
        finally:
            _kill(process)
            with self._lock:
                del self._running[spec.worker_id]
        if self._closed:
            raise errors.DriverUnavailable("the fake was closed while the image ran")
        code = process.returncode
        return ImageRun(128 - code if code < 0 else code, log, time.monotonic() - started, timed_out)

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        with self._lock:
            process = self._running.get(handle.worker_id)
        if process is not None and handle.address == base.Address():
            _kill(process)
        super().stop_worker(handle, grace, deadline)

    def running(self) -> int:
        """How many images run now."""
        with self._lock:
            return len(self._running)

    def _start(self, spec: base.WorkerSpec, command: list[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise errors.DriverUnavailable("the fake is closed")
            try:
                process: subprocess.Popen[Any] = subprocess.Popen(  # noqa: S603
                    command,
                    env={"PATH": os.defpath, **spec.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise errors.DriverError(f"the program cannot be started: {error}") from error
            self._running[spec.worker_id] = process
            return process


def _wait(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bool]:
    """What it wrote until its end, and whether that had to be brought about."""
    try:
        return process.communicate(timeout=timeout)[0], False
    except subprocess.TimeoutExpired:
        _kill(process)
        return process.communicate()[0], True


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
