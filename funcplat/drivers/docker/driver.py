"""The orchestrator driver ``docker``: workers are containers of a Docker Engine."""

from __future__ import annotations

import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import (
    building,
    claims,
    containers,
    deadlines,
    endings,
    engine,
    features,
    images,
    jobs,
    options,
    places,
    pool,
    pulls,
    workers,
)

LOG = logging.getLogger(__name__)
QUICK = 10.0
"""Seconds that the Engine may take to say what it is."""
ORPHANED = 120.0
"""Seconds after which a directory that no container has is removed."""


class DockerDriver(base.OrchestratorDriver):
    """Runs each worker in a container, hardened, and keeps some without a function ready.

    Nothing is remembered of workers: the names and labels of containers say all.  Containers outlive the
    server, and are adopted by the next one.
    """

    capabilities: ClassVar[frozenset[base.Capability]] = frozenset(
        {
            base.Capability.CODE_PATH,
            base.Capability.LOGS,
            base.Capability.POOL,
            base.Capability.RUN_IMAGE,
            base.Capability.SURVIVES,
        }
    )
    opts: ClassVar[tuple[cfg.Opt, ...]] = tuple(options.OPTS)

    def __init__(self, options_: cfg.ConfigOpts.GroupAttr, context: base.Context) -> None:
        super().__init__(options_, context)
        self._settings = options.settings(options_)
        if not self._settings.by_socket:
            # Nothing is shared with a machine far away: packages are pushed.
            self.capabilities = type(self).capabilities - {base.Capability.CODE_PATH}  # type: ignore[misc]
        self._names = containers.Names(context.owner)
        self._docker = engine.Engine(self._settings)
        self._pulls = pulls.Pulls(self._docker, self._settings)
        self._images = images.Images(self._docker, self._pulls)
        root = pathlib.Path(options_.run_dir or context.state_dir / "docker") / self._names.short
        self._places = places.Places(root)
        self._workers = workers.Workers(self._docker, self._settings, self._names, self._places)
        self._jobs = jobs.Jobs(self._docker, self._names, self._workers)
        self._pool = pool.Pool(
            self._settings.pool_size,
            self._settings.pool_idle,
            claims.Claims(self._docker, self._workers.listens),
            self._workers.all,
            self._workers.make_pooled,
            self._workers.remove,
        )

    # -- the Engine -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Ask the Engine what it is; raise what is missing."""
        self._check_user()
        demand = self.options.isolation or ("required" if self.context.exposed else "preferred")
        features.check(self._info(), self._settings, demand == "required")
        self._pulls.check()

    def _check_user(self) -> None:
        uid = int(self._settings.user.partition(":")[0])
        if self._settings.by_socket and uid == os.geteuid():
            raise errors.DriverError(
                f"[orchestrator_docker] user = {self._settings.user} is who runs this platform: functions "
                "could write where only the platform may. Choose another number."
            )

    def close(self) -> None:
        """End runs of images, remove the containers that wait for a function that will not come, and forget
        the Engine.
        """
        self._pool.close()
        try:
            self._jobs.close()
            if self._docker.connected:
                self._clear_pools()
                self._workers.close()
        except errors.DriverError as error:
            LOG.warning("containers are left to the next server: %s", error.message)
        finally:
            self._docker.close()

    def _clear_pools(self) -> None:
        for container in self._workers.all(deadlines.Deadline(QUICK)):
            if container.kind == "p":
                self._workers.remove(container, deadlines.Deadline(QUICK))

    def features(self) -> Iterable[base.Feature]:
        return list(features.describe(self._info(), self._settings))

    def _info(self) -> Any:
        return self._docker.call("GET", "/info", deadlines.Deadline(QUICK))

    # -- images ---------------------------------------------------------------------------------------

    def check_image(self, image: str, deadline: float) -> None:
        """Pull the image where it is missing, and start a worker of it, which is kept for the pool."""
        until = deadlines.Deadline(deadline)
        found = self._images.worker_now(self._settings.image(image), until)
        shape = self._shape(found, self._settings.pool_disk)
        try:
            if not self._pool.has(shape, until):
                trial = self._workers.make_pooled(shape, until)
                if self._settings.pool_size == 0:
                    self._workers.remove(trial, until)
        except errors.DriverUnavailable:
            raise
        except errors.DriverError as error:
            raise errors.ImageUnknown(
                f"No worker of the image {image!r} can be started: {error.message}"
            ) from error
        self._pool.want(shape)

    def _shape(self, image: images.Image, disk: int, carries: bool = False) -> containers.Shape:
        closed = options.NO_NETWORK if self._settings.by_socket else self._names.network
        return containers.Shape(
            image=image.name,
            image_id=image.id,
            disk=disk,
            network=self._settings.network(image.name, closed),
            user=self._settings.user,
            by_socket=self._settings.by_socket,
            init=image.needs_init,
            carries=carries,
        )

    def inspect_image(self, image: str, deadline: float) -> base.ImageInfo:
        """What a user's image is; it is pulled if the Engine does not have it."""
        found = self._images.any(image, deadlines.Deadline(deadline))
        return base.ImageInfo(found.kind, found.pin)

    def build_runtime(self, language: str, base: str | None, tag: str, say: Callable[[str], None]) -> str:
        """Build the image of a language's runtime; its id.  For operators: the platform does not call it."""
        return building.build(self._docker, self._images, language, base, tag, say)

    # -- workers --------------------------------------------------------------------------------------

    def start_worker(self, spec: base.WorkerSpec, deadline: float) -> base.Handle:
        """Claim a waiting container, or make one.

        It gets the limits of the function while the caller loads the code; until then it has those of a
        container without a function.  Where they cannot be set it is killed.
        """
        until = deadlines.Deadline(deadline)
        if spec.owner != self.context.owner:
            raise errors.DriverError(f"worker {spec.worker_id} is of another installation: {spec.owner}")
        name = self._names.worker(spec.worker_id)
        wanted = spec.image if spec.carries_function else self._settings.image(spec.image)
        image = self._images.worker(wanted, until)
        try:
            return self._start(spec, name, image, until)
        except engine.Refused as error:
            if error.status != 404:
                raise
            image = self._images.worker_now(wanted, until)  # it was removed in the last seconds
        return self._start(spec, name, image, until)

    def _start(
        self, spec: base.WorkerSpec, name: str, image: images.Image, until: deadlines.Deadline
    ) -> base.Handle:
        shape = self._shape(image, containers.disk_of(spec), spec.carries_function)
        try:
            # A pool for the image of one function would be of no use to others.
            claimed = self._pool.claim(shape, name, until) if not shape.carries else None
            container = claimed or self._workers.make(shape, name, until)
        except engine.Refused as error:
            if error.status != 409:
                raise
            container = self._workers.existing(name, until)
        handle = self._workers.attach(container, spec)
        if not shape.carries:
            self._pool.want(shape)
        return handle

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        until = deadlines.Deadline(deadline)
        name = self._names.worker(handle.worker_id)
        if grace > 0:
            self._workers.ask_to_end(name, grace, until)
        if handle.address == base.Address():  # begun by a server that died: a worker or a run, who knows
            self._workers.remove_named(self._names.job(handle.worker_id), until)
        if not self._workers.remove_named(name, until) and (path := handle.data.get("place")):
            self._workers.remove_place(path, until)

    def list_workers(self, deadline: float) -> Iterable[base.WorkerState]:
        until = deadlines.Deadline(deadline)
        found = self._workers.all(until)
        self._pool.tend(found, time.time())
        for image in self._pool.images():
            self._images.refresh(image, until)
        used = {each.labels.get(containers.PLACE, "") for each in found}
        self._places.collect(used, ORPHANED)
        return [self._state(each, until) for each in found if each.kind == "w" and each.state != "removing"]

    def _state(self, container: containers.Container, until: deadlines.Deadline) -> base.WorkerState:
        detail = "" if container.runs else endings.explain(self._docker, container, until)
        handle = containers.handle(self._settings, container)
        return base.WorkerState(container.worker_id, handle, container.runs, detail)

    def pool(self, image: str, deadline: float) -> base.PoolState:
        """Workers of the image in all, and those without a function."""
        name = self._settings.image(image)
        found = [
            each
            for each in self._workers.all(deadlines.Deadline(deadline))
            if each.labels.get(containers.IMAGE) == name and each.runs
        ]
        return base.PoolState(len(found), sum(each.kind == "p" for each in found))

    def worker_logs(self, handle: base.Handle, limit: int, deadline: float) -> bytes:
        return self._workers.log(self._names.worker(handle.worker_id), limit)

    # -- image functions ------------------------------------------------------------------------------

    def run_image(
        self, spec: base.WorkerSpec, arguments: Sequence[str], timeout: float, deadline: float
    ) -> base.ImageRun:
        """Run any image once, as confined as a worker; without network unless ``networks`` names one."""
        until = deadlines.Deadline(deadline)
        image = self._images.any(spec.image, until)
        network = self._settings.network(spec.image, options.NO_NETWORK)
        over = time.time() + timeout + jobs.CLEAN_UP_DEADLINE
        labels = self._names.labels(until=f"{over:.0f}")
        body = jobs.body(spec, image, arguments, self._settings.user, network, labels)
        return self._jobs.run(spec, body, timeout, until)
