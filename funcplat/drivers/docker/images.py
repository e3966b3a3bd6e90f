"""Images: found, pulled where they are missing, and looked at before anything runs of them."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import containers, deadlines, engine, pulls

LOG = logging.getLogger(__name__)
FRESH = 15.0
"""Seconds for which a name is believed to mean what it meant: longer than between two rounds of the reaper,
which looks at those in use."""
PULLS = 3
"""How often an image is pulled for one look at it."""
_NAME = re.compile(r"[A-Za-z0-9][\w./:@-]{0,511}", re.ASCII)
_SPOKEN = "1"
"""Version of the worker contract."""


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image that the Engine has."""

    name: str  # as it was asked for
    id: str  # sha256:..., by which it is used: a tag that moves changes nothing
    labels: Mapping[str, str]
    volumes: tuple[str, ...]
    digests: tuple[str, ...]  # repository@sha256:..., where registries are known to have it

    @property
    def kind(self) -> base.ImageKind:
        """Raises ImageUnknown for a worker that the platform cannot talk to, or may not start."""
        contract = self.labels.get(containers.CONTRACT)
        if contract is None:
            return base.ImageKind.ONE_SHOT
        if contract != _SPOKEN:
            raise errors.ImageUnknown(
                f"The image {self.name!r} has the label {containers.CONTRACT}={contract[:80]}; this platform "
                f"speaks {_SPOKEN}. Build it for that."
            )
        if self.volumes:
            raise errors.ImageUnknown(
                f"The image {self.name!r} declares volumes ({', '.join(self.volumes)}), with which functions "
                "could fill the Engine's disk. Build it without VOLUME."
            )
        return base.ImageKind.WORKER

    @property
    def needs_init(self) -> bool:
        return self.labels.get(containers.INIT) == "1"

    @property
    def pin(self) -> str:
        """What names exactly this image for ever; its id where the registry in its name does not have it."""
        place = pulls.place(self.name)
        return next((each for each in self.digests if pulls.place(each) == place), self.id)

    @classmethod
    def inspected(cls, name: str, found: Mapping[str, Any]) -> Image:
        """From the answer of ``GET /images/{name}/json``."""
        configuration = found.get("Config") or {}
        return cls(
            name=name,
            id=found["Id"],
            labels=configuration.get("Labels") or {},
            volumes=tuple(configuration.get("Volumes") or ()),
            digests=tuple(found.get("RepoDigests") or ()),
        )


class Images:
    """The images of one Engine.  Thread-safe."""

    def __init__(self, docker: engine.Engine, pulling: pulls.Pulls) -> None:
        self._docker = docker
        self._pulls = pulling
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[Image, float]] = {}  # by name; when, by the monotonic clock

    def worker(self, name: str, deadline: deadlines.Deadline) -> Image:
        """An image whose containers are workers, as it was in the last seconds; else as `worker_now`."""
        with self._lock:
            image, seen_at = self._seen.get(name, (None, 0.0))
        # PERF: 3 ms of a cold start.
        if image is not None and time.monotonic() - seen_at < FRESH:
            return image
        return self.worker_now(name, deadline)

    def worker_now(self, name: str, deadline: deadlines.Deadline) -> Image:
        """An image whose containers are workers; it is pulled if the Engine does not have it.

        Raises ImageUnknown and its children, DriverUnavailable while it is being pulled.
        """
        image = self.any(name, deadline)
        if image.kind is not base.ImageKind.WORKER:
            raise errors.ImageUnknown(
                f"The image {name!r} is not a runtime: it has no label {containers.CONTRACT}={_SPOKEN}, "
                "which says that its entry point is a worker. Build one with: funcplat runtime build"
            )
        self._remember(image)
        return image

    def refresh(self, name: str, deadline: deadlines.Deadline) -> None:
        """Look again at an image that may be asked for; nothing is pulled, and nothing raised."""
        try:
            image = self._find(name, deadline)
            if image is not None and image.kind is base.ImageKind.WORKER:
                self._remember(image)
                return
        except errors.DriverError as error:
            LOG.debug("image %s: %s", name, error.message)
        with self._lock:
            self._seen.pop(name, None)  # who needs it looks, and is told

    def _remember(self, image: Image) -> None:
        now = time.monotonic()
        with self._lock:
            self._seen = {name: seen for name, seen in self._seen.items() if now - seen[1] < FRESH}
            self._seen[image.name] = image, now

    def any(self, name: str, deadline: deadlines.Deadline) -> Image:
        """An image of whatever kind; it is pulled if the Engine does not have it.  Raises as `worker_now`."""
        found = self._find(name, deadline)
        for _ in range(PULLS):
            if found is not None:
                return found
            # Again, where somebody cleaned it away between the last pull and the look at it.
            self._pulls.pull(name, deadline)
            found = self._find(name, deadline)
        if found is not None:
            return found
        raise errors.ImageMissing(
            f"The image {name!r} was pulled {PULLS} times and was gone again each time: something removes "
            "images from this Docker Engine at once"
        )

    def _find(self, name: str, deadline: deadlines.Deadline) -> Image | None:
        if not _NAME.fullmatch(name):
            raise errors.ImageUnknown(f"{name[:80]!r} is no name of an image")
        try:
            found = self._docker.call("GET", f"/images/{name}/json", deadline)
        except engine.Refused as error:
            if error.status == 404:
                return None
            raise pulls.explained(name, error) from error
        return Image.inspected(name, found)
