"""Taking containers of pools: each goes to one worker, whoever else asks for it at the same moment.

Renaming a container does not say that: an Engine lets two requests by its old name come through, one after
the other.  Where container and platform share a directory, a mark in it decides: who removes it has the
container.  Elsewhere it is looked at again after it was renamed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from funcplat.drivers.docker import containers, deadlines, engine, places


class Claims:
    """Containers of pools that become workers.  Thread-safe."""

    def __init__(self, docker: engine.Engine, listens: Callable[[containers.Container], bool]) -> None:
        """``listens``: whether the worker in a container is ready."""
        self._docker = docker
        self._listens = listens
        self._lock = threading.Lock()
        self._taking: set[str] = set()  # ids of containers without a mark

    def take(self, container: containers.Container, name: str, deadline: deadlines.Deadline) -> bool:
        """Give a container of a pool this name; whether that was done, and it is ready.

        Raises Refused with 409 where the name is taken.
        """
        if not self._listens(container):
            return False  # it ended since it was seen
        path = container.labels.get(containers.PLACE)
        if path:
            return self._take_marked(places.Place.at(path), container, name, deadline)
        return self._take_unmarked(container, name, deadline)

    def _take_marked(
        self,
        place: places.Place,
        container: containers.Container,
        name: str,
        deadline: deadlines.Deadline,
    ) -> bool:
        if not place.unmark():
            return False
        try:
            return self._rename(container, name, deadline)
        except engine.Refused:
            place.mark()  # it waits on
            raise

    def _take_unmarked(
        self, container: containers.Container, name: str, deadline: deadlines.Deadline
    ) -> bool:
        with self._lock:
            if container.id in self._taking:
                return False
            self._taking.add(container.id)
        try:
            return self._rename(container, name, deadline) and self._is_named(container, name, deadline)
        finally:
            with self._lock:
                self._taking.discard(container.id)

    def _rename(self, container: containers.Container, name: str, deadline: deadlines.Deadline) -> bool:
        """Whether it was there; by its old name, which who comes later does not find any more."""
        try:
            self._docker.call("POST", f"/containers/{container.name}/rename", deadline, {"name": name})
        except engine.Refused as error:
            if error.status == 404:
                return False
            raise
        return True

    def _is_named(self, container: containers.Container, name: str, deadline: deadlines.Deadline) -> bool:
        """Another process may have found it just before, and then renames it again: it waits for the lock of
        the container, before this look does."""
        try:
            found = self._docker.call("GET", f"/containers/{container.id}/json", deadline)
        except engine.Refused as error:
            if error.status == 404:
                return False
            raise
        return bool(found["Name"] == f"/{name}")

    def give_up(self, container: containers.Container) -> bool:
        """Let nobody take a container any more that is to be removed; False: it was taken just now."""
        path = container.labels.get(containers.PLACE)
        return not path or places.Place.at(path).unmark() or self.is_abandoned(container)

    def is_abandoned(self, container: containers.Container) -> bool:
        """Whether who made or took it died before it was ready, or had its name."""
        path = container.labels.get(containers.PLACE)
        return bool(path) and places.Place.at(str(path)).is_abandoned()
