"""Containers of workers: made, attached, asked to end, removed."""

from __future__ import annotations

import concurrent.futures
import functools
import http.client
import logging
import socket
import time
from typing import Any

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import containers, deadlines, endings, engine, networks, options, places

LOG = logging.getLogger(__name__)
ATTACH_DEADLINE = 20.0
"""Seconds that setting the limits of a worker may take before it is killed."""
CLEAN_UP_DEADLINE = 20.0
"""Seconds for taking back what was begun, whatever time the caller has left."""
LOOK = 0.005
"""Seconds between looks whether a new worker listens; a connection that is refused costs 50 us."""
LIVES = 0.25
"""Seconds between looks whether it still lives meanwhile, which cost the Engine milliseconds."""
NAMED = 3.0
"""Seconds for which the Engine may know a name as taken, and not yet the container that it makes for it."""
LOG_LINES = 20


class Workers:
    """The containers of one installation.  Thread-safe."""

    def __init__(
        self, docker: engine.Engine, settings: options.Settings, names: containers.Names, place: places.Places
    ) -> None:
        self._docker = docker
        self._settings = settings
        self._names = names
        self._places = place
        self._networks = networks.Networks(docker, names)
        self._threads = concurrent.futures.ThreadPoolExecutor(8, thread_name_prefix="docker-attach")

    def close(self) -> None:
        """Return when every worker has its limits; remove the network that nobody uses any more."""
        self._threads.shutdown()
        if not self._settings.by_socket:
            self._networks.remove(deadlines.Deadline(CLEAN_UP_DEADLINE))

    # -- looking ------------------------------------------------------------------------------------------

    def all(self, deadline: deadlines.Deadline) -> list[containers.Container]:
        """Every container of this installation, whatever it is for."""
        query = {"all": 1, "filters": self._names.filter()}
        found = self._docker.call("GET", "/containers/json", deadline, query)
        return [containers.Container.listed(item) for item in found]

    def find(self, name: str, deadline: deadlines.Deadline) -> containers.Container | None:
        try:
            found = self._docker.call("GET", f"/containers/{name}/json", deadline)
        except engine.Refused as error:
            if error.status == 404:
                return None
            raise
        return containers.Container.inspected(found)

    def log(self, name: str, limit: int) -> bytes:
        """The last bytes that a worker wrote; none for one that is gone."""
        try:
            return self._docker.logs(name, LOG_LINES)[-limit:] if limit > 0 else b""
        except engine.Refused as error:
            if error.status == 404:
                return b""
            raise

    # -- making -------------------------------------------------------------------------------------------

    def make_pooled(self, shape: containers.Shape, deadline: deadlines.Deadline) -> containers.Container:
        """A container that waits for a function.  Raises DriverError, and then nothing is left."""
        made = self.make(shape, self._names.pooled(), deadline)
        if path := made.labels.get(containers.PLACE):
            places.Place.at(path).mark()
        return made

    def make(self, shape: containers.Shape, name: str, deadline: deadlines.Deadline) -> containers.Container:
        """A new container of this name that listens.  Raises DriverError, and then nothing is left.

        Raises Refused with 409 where the name is taken.
        """
        place = self._places.make() if shape.by_socket else None
        body = containers.worker(self._settings, shape, self._names, place)
        try:
            self._create(shape, name, body, deadline)
        except errors.DriverError:
            self._take_back(name, place)
            raise
        try:
            self._docker.call("POST", f"/containers/{name}/start", deadline)
            return self.ready(self._found(name, deadline), deadline)
        except errors.DriverError:
            self._abandon(name)
            raise

    def _create(
        self, shape: containers.Shape, name: str, body: dict[str, Any], deadline: deadlines.Deadline
    ) -> None:
        if shape.network == self._names.network:
            body["HostConfig"]["NetworkMode"] = self._networks.use(deadline)
        self._docker.call("POST", "/containers/create", deadline, {"name": name}, body)

    def _take_back(self, name: str, place: places.Place | None) -> None:
        """After a container was not created, or was and the answer did not come in time."""
        container = self._try(lambda: self.find(name, deadlines.Deadline(CLEAN_UP_DEADLINE)))
        if place is None:
            return
        if container is not None and container.labels.get(containers.PLACE) == str(place.path):
            self._abandon(name)
        else:
            self._places.remove(place)

    def _abandon(self, name: str) -> None:
        self._try(lambda: self.remove_named(name, deadlines.Deadline(CLEAN_UP_DEADLINE)))

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except errors.DriverError as error:
            LOG.warning("left to the reaper: %s", error.message)
            return None

    def _found(self, name: str, deadline: deadlines.Deadline) -> containers.Container:
        container = self.find(name, deadline)
        if container is None:
            raise errors.DriverError(f"the container {name} is gone")
        return container

    def existing(self, name: str, deadline: deadlines.Deadline) -> containers.Container:
        """The container that has this name already, started if whoever made it did not come to that.

        It listens.  Raises DriverError.
        """
        end = time.monotonic() + NAMED
        while (container := self.find(name, deadline)) is None:
            if time.monotonic() > end:
                raise errors.DriverError(f"the container {name} was given up by whoever made it")
            time.sleep(LOOK)
        if container.state == "created":
            self._docker.call("POST", f"/containers/{name}/start", deadline)
            container = self._found(name, deadline)
        return self.ready(container, deadline)

    def listens(self, container: containers.Container) -> bool:
        """Whether the worker in it is ready now."""
        return _answers(containers.handle(self._settings, container).address)

    def ready(self, container: containers.Container, deadline: deadlines.Deadline) -> containers.Container:
        """Return when the worker in it answers; from then on it cannot write where it listens."""
        look_again = time.monotonic() + LIVES
        while not self.listens(container):
            if time.monotonic() > look_again:
                self._expect_life(container, deadline)
                look_again = time.monotonic() + LIVES
            time.sleep(min(LOOK, deadline.remaining()))  # the Engine has no event for it
        path = container.labels.get(containers.PLACE)
        if path:
            places.Place.at(path).seal()
        return container

    def _expect_life(self, container: containers.Container, deadline: deadlines.Deadline) -> None:
        now = self._found(container.id, deadline)
        if not now.runs and now.state != "created":
            why = endings.explain(self._docker, now, deadline)
            said = self.log(now.id, 2000).decode("utf-8", "replace").strip()
            raise errors.DriverError(
                f"the worker ended before it listened: {why}{': ' + said if said else ''}"
            )

    # -- attaching ----------------------------------------------------------------------------------------

    def attach(self, container: containers.Container, spec: base.WorkerSpec) -> base.Handle:
        """Make a container that listens the worker of a function."""
        # PERF: the update takes the Engine 20 ms, as long as all else: the caller loads the code meanwhile.
        self._threads.submit(self._limit, container.id, spec)
        path = container.labels.get(containers.PLACE)
        if path and spec.code_path is not None:
            try:
                places.Place.at(path).give_code(spec.code_path)
            except errors.DriverError:
                self._abandon(self._names.worker(spec.worker_id))
                raise
        return self._handle(container, spec)

    def _handle(self, container: containers.Container, spec: base.WorkerSpec) -> base.Handle:
        made = containers.handle(self._settings, container)
        code = made.data["code"] if spec.code_path is not None else None
        return base.Handle(spec.worker_id, made.address, {**made.data, "code": code})

    def _limit(self, container_id: str, spec: base.WorkerSpec) -> None:
        limits = containers.limits(spec.cpu, spec.memory, spec.pids)
        try:
            deadline = deadlines.Deadline(ATTACH_DEADLINE)
            self._docker.call("POST", f"/containers/{container_id}/update", deadline, body=limits)
        except errors.DriverError as error:
            self._try(functools.partial(self._give_up, container_id, spec, error))

    def _give_up(self, container_id: str, spec: base.WorkerSpec, error: errors.DriverError) -> None:
        """Kill a worker that has not the limits of its function; nothing to do where it has ended already."""
        deadline = deadlines.Deadline(CLEAN_UP_DEADLINE)
        container = self.find(container_id, deadline)
        if container is not None and container.runs:
            LOG.warning("worker %s: killed, its limits cannot be set: %s", spec.worker_id, error.message)
            self.kill(container_id, deadline)

    # -- the end ------------------------------------------------------------------------------------------

    def ask_to_end(self, name: str, grace: float, deadline: deadlines.Deadline) -> None:
        """Stop a container by the signal that its image names, and kill it after the grace."""
        try:
            self._docker.call("POST", f"/containers/{name}/stop", deadline, {"t": max(1, round(grace))})
        except engine.Refused as error:
            if error.status not in (304, 404):
                raise

    def kill(self, name: str, deadline: deadlines.Deadline) -> None:
        try:
            self._docker.call("POST", f"/containers/{name}/kill", deadline)
        except engine.Refused as error:
            if error.status not in (404, 409):
                raise

    def remove_named(self, name: str, deadline: deadlines.Deadline) -> bool:
        """Kill and remove a container with all that belongs to it; whether there was one."""
        container = self.find(name, deadline)
        if container is not None:
            self.remove(container, deadline)
        return container is not None

    def remove_place(self, path: str, deadline: deadlines.Deadline) -> None:
        """Remove what a container shared that somebody else removed, unless another one has it."""
        if all(each.labels.get(containers.PLACE) != path for each in self.all(deadline)):
            self._places.remove(places.Place.at(path))

    def remove(self, container: containers.Container, deadline: deadlines.Deadline) -> None:
        """Kill and remove a container with all that belongs to it; return when it is gone."""
        path = container.labels.get(containers.PLACE)
        if path:
            places.Place.at(path).release()
        # By its name: one of a pool that was claimed meanwhile is somebody else's.
        query = {"force": 1, "v": 1}
        try:
            self._docker.call("DELETE", f"/containers/{container.name}", deadline, query)
        except engine.Refused as error:
            if error.status == 404:
                return
            if error.status != 409:
                raise
            self._wait_removed(container.id, deadline)
        if path:
            self._places.remove(places.Place.at(path))

    def _wait_removed(self, container_id: str, deadline: deadlines.Deadline) -> None:
        """Somebody else removes it at this moment."""
        try:
            self._docker.call("POST", f"/containers/{container_id}/wait", deadline, {"condition": "removed"})
        except engine.Refused as error:
            if error.status != 404:
                raise


def _answers(address: base.Address) -> bool:
    """Whether a worker listens at an address and is ready."""
    try:
        with _connected(address) as peer:
            peer.sendall(b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
            answer = http.client.HTTPResponse(peer)
            answer.begin()
            return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False


def _connected(address: base.Address) -> socket.socket:
    if address.socket is None:
        return socket.create_connection((str(address.host), address.port or 0), timeout=1.0)
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        peer.settimeout(1.0)
        peer.connect(address.socket)
    except OSError:
        peer.close()
        raise
    return peer
