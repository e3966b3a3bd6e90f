"""Containers that are started and wait for a function.

A pool is what the Engine lists: running containers of one shape with a pool's name.  One is claimed by
giving it a worker's name.  What this process remembers are shapes that it was asked for lately, so as to
keep some ready of them, and containers that it saw lately, so as not to ask for a list.
"""

from __future__ import annotations

import concurrent.futures
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from funcplat import errors
from funcplat.drivers.docker import claims, containers, deadlines

LOG = logging.getLogger(__name__)
MAKE_DEADLINE = 60.0
"""Seconds that making a container for a pool may take; nobody waits for it."""
YOUNG = 2 * MAKE_DEADLINE
"""Seconds for which a container of a pool that does not run may still be about to."""
PAUSE = 0.3
"""Seconds after a claim before a container is made ready."""

Lister = Callable[[deadlines.Deadline], Sequence[containers.Container]]
Maker = Callable[[containers.Shape, deadlines.Deadline], containers.Container]
Remover = Callable[[containers.Container, deadlines.Deadline], None]


class Pool:
    """The pools of one installation.  Thread-safe."""

    def __init__(
        self, size: int, idle: float, claiming: claims.Claims, listing: Lister, make: Maker, remove: Remover
    ) -> None:
        """``size``: containers to keep ready of each shape; ``idle``: seconds for which they are."""
        self._claims = claiming
        self._take = claiming.take
        self._size = size
        self._idle = idle
        self._list = listing
        self._make = make
        self._remove = remove
        self._lock = threading.Lock()
        self._wanted: dict[containers.Shape, float] = {}  # until when, by the monotonic clock
        self._filling: set[containers.Shape] = set()
        self._known: dict[str, list[containers.Container]] = {}  # that wait, by the key of their shape
        self._quiet_until = 0.0  # by the monotonic clock
        self._closing = threading.Event()
        self._threads = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="docker-pool")

    def close(self) -> None:
        """Make no more; returns when nothing is being made."""
        with self._lock:
            self._closing.set()
        self._threads.shutdown(cancel_futures=True)

    def claim(
        self, shape: containers.Shape, name: str, deadline: deadlines.Deadline
    ) -> containers.Container | None:
        """Give a waiting container this name; None: there is none.

        Raises Refused with 409 where the name is taken.
        """
        # PERF: making a container keeps a core busy for 0.3 s, which the first call of the worker that is
        # claimed now would feel: 40 ms become 70.
        self._quiet_until = time.monotonic() + PAUSE
        # PERF: those that are known save 3 ms for a list.
        while (known := self._next_known(shape)) is not None:
            if self._take(known, name, deadline):
                return known
        waiting = [each for each in self._list(deadline) if _waits(each) and _is(each, shape)]
        random.shuffle(waiting)  # several processes seldom ask for the same one
        return next((each for each in waiting if self._take(each, name, deadline)), None)

    def _next_known(self, shape: containers.Shape) -> containers.Container | None:
        with self._lock:
            known = self._known.get(shape.key)
            return known.pop() if known else None

    def has(self, shape: containers.Shape, deadline: deadlines.Deadline) -> bool:
        """Whether a container of this shape waits."""
        return any(_waits(each) and _is(each, shape) for each in self._list(deadline))

    def images(self) -> set[str]:
        """Names of the images of which containers are kept ready."""
        with self._lock:
            return {shape.image for shape in self._wanted}

    def want(self, shape: containers.Shape) -> None:
        """Keep containers of this shape ready for a while."""
        if self._size == 0:
            return
        with self._lock:
            self._wanted[shape] = time.monotonic() + self._idle
            if not self._closing.is_set():
                self._start_filling(shape)

    def _start_filling(self, shape: containers.Shape) -> None:
        """Under the lock."""
        if shape not in self._filling:
            self._filling.add(shape)
            self._threads.submit(self._fill, shape)

    def _fill(self, shape: containers.Shape) -> None:
        try:
            while self._is_quiet() and self._lacks(shape):
                made = self._make(shape, deadlines.Deadline(MAKE_DEADLINE))
                with self._lock:
                    self._known.setdefault(shape.key, []).append(made)
        except errors.DriverError as error:
            # `tend` tries again
            LOG.warning("no container could be made ready for %s: %s", shape.image, error.message)
        finally:
            with self._lock:
                self._filling.discard(shape)

    def _is_quiet(self) -> bool:
        """Wait until the last claim is a while ago; False: no more are to be made."""
        while (pause := self._quiet_until - time.monotonic()) > 0 and not self._closing.wait(pause):
            pass  # there may have been another claim
        return not self._closing.is_set()

    def _lacks(self, shape: containers.Shape) -> bool:
        found = self._list(deadlines.Deadline(MAKE_DEADLINE))
        return sum(each.kind == "p" and _is(each, shape) for each in found) < self._size

    def tend(self, found: Sequence[containers.Container], now: float) -> None:
        """Remove what is broken, was not claimed for long or should have ended, and make what is missing.

        Returns at once.  ``now``: seconds since the epoch.
        """
        pooled = [each for each in found if each.kind == "p"]
        runs = [each for each in found if each.kind == "j"]
        with self._lock:
            if self._closing.is_set():
                return
            self._wanted = {shape: end for shape, end in self._wanted.items() if end > time.monotonic()}
            keys = {shape.key for shape in self._wanted}
            useless = [each for each in pooled if self._is_useless(each, keys, now)]
            useless += [each for each in runs if now > float(each.labels.get(containers.UNTIL, "0"))]
            if useless:
                self._threads.submit(self._clear, useless)
            waiting = [each for each in pooled if _waits(each) and each not in useless]
            self._known = {
                shape.key: [each for each in waiting if _is(each, shape)] for shape in self._wanted
            }
            for shape in self._wanted:
                if len(self._known[shape.key]) < self._size:
                    self._start_filling(shape)

    def _is_useless(self, container: containers.Container, wanted: set[str], now: float) -> bool:
        age = now - container.created
        if not container.runs:
            return container.state in ("exited", "dead") or age > YOUNG
        if self._claims.is_abandoned(container):
            return True
        return age > self._idle and container.labels.get(containers.SHAPE) not in wanted

    def _clear(self, useless: Sequence[containers.Container]) -> None:
        for container in useless:
            if container.kind == "p" and not self._claims.give_up(container):
                continue  # it was claimed meanwhile
            try:
                self._remove(container, deadlines.Deadline(MAKE_DEADLINE))
            except errors.DriverError as error:
                LOG.warning("container %s of a pool is not removed: %s", container.name, error.message)


def _waits(container: containers.Container) -> bool:
    return container.kind == "p" and container.state == "running"


def _is(container: containers.Container, shape: containers.Shape) -> bool:
    return container.labels.get(containers.SHAPE) == shape.key
