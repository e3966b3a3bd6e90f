"""Images as the code of functions: which one a name means, what kind it is, and what runs it.

A function keeps the image that its name meant when it was made or changed, by digest, so that a tag that
moves changes nothing.  Where the storage driver ``registry`` is enabled it finds the digest; else the engine
of the orchestrator driver does, which also has images that were built there and that no registry knows.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from funcplat import errors, plugins
from funcplat.drivers.base import Capability, ImageKind
from funcplat.storage import base as storage_base

REGISTRY = "registry"
"""The storage driver that resolves images."""
MAX_PIN = 400
KINDS = 1000
"""Images whose kind is remembered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pinned:
    """An image for ever."""

    image: str  # as an orchestrator driver is to name it
    digest: str  # sha256:...


class Images:
    """Images that functions are made of.  Thread-safe."""

    def __init__(
        self,
        storages: Mapping[str, plugins.GuardedStorage],
        orchestrators: Mapping[str, plugins.GuardedOrchestrator],
        default: str,
        storage_deadline: float,
        pull_deadline: float,
    ) -> None:
        """``default``: name of the orchestrator driver that is asked first; deadlines in seconds."""
        self._storages = storages
        self._orchestrators = orchestrators
        self._runners = [name for name in _first(default, orchestrators) if self._runs(name)]
        self._storage_deadline = storage_deadline
        self.pull_deadline = pull_deadline
        self._kinds: collections.OrderedDict[tuple[str, str], ImageKind] = collections.OrderedDict()
        self._lock = threading.Lock()

    def runner(self, orchestrator: str | None) -> str:
        """The orchestrator driver that runs a function's image: its runtime's, else the first that can.

        Raises SourceUnavailable where it cannot, or none can.
        """
        if orchestrator is None and self._runners:
            return self._runners[0]
        if orchestrator in self._runners:
            return orchestrator
        if orchestrator is not None:
            raise errors.SourceUnavailable(
                f"The function's runtime is on the orchestrator driver {orchestrator!r}, which runs no "
                "images. Name a runtime of another driver, or none."
            )
        raise errors.SourceUnavailable(
            'Code source "image" needs an orchestrator driver that runs images, such as "docker"; '
            f"enabled here: {', '.join(self._orchestrators)}."
        )

    def pin(self, code: Mapping[str, Any], orchestrator: str | None) -> Pinned:
        """The image that ``code`` names, at this moment.

        Raises InvalidRequest and its kinds for what the caller can mend, DriverError for the rest.
        """
        name = code.get("image")
        if not isinstance(name, str) or not name:
            raise errors.InvalidRequest('"code" must name its "image", such as registry.example.org/name:1.')
        runner = self.runner(orchestrator)
        storage = self._storages.get(REGISTRY)
        if storage is not None and storage_base.Capability.REFERENCES in storage.capabilities:
            reference = {key: code[key] for key in ("image", "platform") if key in code}
            digest = storage.resolve(reference, {}, self._storage_deadline).pin
            return _checked(Pinned(f"{repository(name)}@{digest}", digest))
        try:
            pin = self._orchestrators[runner].inspect_image(name, self.pull_deadline).pin
        except errors.ImageUnknown as error:
            raise errors.ImageUnusable(error.message) from error
        return _checked(Pinned(pin, pin.rpartition("@")[2]))

    def kind(self, orchestrator: str, image: str) -> ImageKind:
        """What kind a pinned image is; it is at hand then.  Raises DriverError."""
        key = orchestrator, image
        with self._lock:
            if (known := self._kinds.get(key)) is not None:
                self._kinds.move_to_end(key)
                return known
        if orchestrator not in self._orchestrators:
            raise errors.ImageUnknown(f"the orchestrator driver {orchestrator!r} is not enabled")
        kind = self._orchestrators[orchestrator].inspect_image(image, self.pull_deadline).kind
        with self._lock:
            self._kinds[key] = kind
            while len(self._kinds) > KINDS:
                self._kinds.popitem(last=False)
        return kind

    def _runs(self, name: str) -> bool:
        return Capability.RUN_IMAGE in self._orchestrators[name].capabilities


def repository(image: str) -> str:
    """An image's name without its tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _checked(pinned: Pinned) -> Pinned:
    if len(pinned.image) > MAX_PIN:
        raise errors.InvalidRequest(f"The image's name has more than {MAX_PIN} characters with its digest.")
    return pinned


def _first(name: str, names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda each: each != name)
