"""Images: found, pulled where they are missing, and looked at before anything runs of them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
import threading
from collections.abc import Mapping
from typing import Any

from funcplat import errors
from funcplat.drivers.docker import containers, deadlines, engine

_MARGIN = 0.5
"""Seconds before the deadline at which waiting for a pull ends with a word about it."""

_REASONS: tuple[tuple[str, type[errors.DriverError], str], ...] = (
    (
        r"no such host",
        errors.ImageMissing,
        "the registry in its name is not known: correct the image's name, or the Engine's DNS",
    ),
    (
        r"unauthorized|authentication required|no basic auth|denied|forbidden",
        errors.ImageDenied,
        "the registry does not give it to this platform: correct the name, or run docker login as its user",
    ),
    (
        r"manifest unknown|name unknown|not found|does not exist|no matching manifest",
        errors.ImageMissing,
        "there is no such image, or none for this machine's kind of processor: correct the name or push it",
    ),
    (
        r"invalid reference|invalid tag|invalid repository|must be lowercase",
        errors.ImageUnknown,
        "this is no name of an image",
    ),
    (
        r"x509|certificate|HTTP response to HTTPS",
        errors.ImageUnknown,
        "the registry cannot be trusted: its TLS is not set up as the Docker Engine expects",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image that the Engine has."""

    name: str
    id: str  # sha256:..., by which it is used: a tag that moves changes nothing
    labels: Mapping[str, str]
    volumes: tuple[str, ...]


class Images:
    """The images of one Engine.  Thread-safe."""

    def __init__(self, docker: engine.Engine) -> None:
        self._docker = docker
        self._lock = threading.Lock()
        self._pulls: dict[str, concurrent.futures.Future[None]] = {}

    def runtime(self, name: str, deadline: deadlines.Deadline) -> Image:
        """An image whose containers are workers; it is pulled if the Engine does not have it.

        Raises ImageUnknown and its children, DriverUnavailable while it is being pulled.
        """
        image = self.any(name, deadline)
        if image.labels.get(containers.CONTRACT) != "1":
            raise errors.ImageUnknown(
                f"The image {name!r} is not a runtime: it has no label {containers.CONTRACT}=1, which says "
                "that its entry point is a worker. Build one with: funcplat runtime build"
            )
        if image.volumes:
            raise errors.ImageUnknown(
                f"The image {name!r} declares volumes ({', '.join(image.volumes)}), with which functions "
                "could fill the Engine's disk. Build it without VOLUME."
            )
        return image

    def any(self, name: str, deadline: deadlines.Deadline) -> Image:
        """An image of whatever kind; it is pulled if the Engine does not have it.  Raises as `runtime`."""
        found = self._find(name, deadline)
        if found is None:
            self._pull(name, deadline)
            found = self._find(name, deadline)
        if found is None:
            raise errors.ImageMissing(f"The image {name!r} was pulled and is gone again")
        return found

    def _find(self, name: str, deadline: deadlines.Deadline) -> Image | None:
        if not re.fullmatch(r"[A-Za-z0-9][\w./:@-]{0,511}", name):
            raise errors.ImageUnknown(f"{name[:80]!r} is no name of an image")
        try:
            found = self._docker.call("GET", f"/images/{name}/json", deadline)
        except engine.Refused as error:
            if error.status == 404:
                return None
            raise _explained(name, error) from error
        return _image(name, found)

    def _pull(self, name: str, deadline: deadlines.Deadline) -> None:
        with self._lock:
            pull = self._pulls.get(name)
            if pull is None or pull.done():
                pull = self._pulls[name] = concurrent.futures.Future()
                # No executor: a pull takes minutes, for which the end of this process must not wait.
                threading.Thread(
                    target=self._pull_now, args=(name, pull), name="docker-pull", daemon=True
                ).start()
        try:
            pull.result(max(0.0, deadline.remaining() - _MARGIN))
        except concurrent.futures.TimeoutError as error:
            raise errors.DriverUnavailable(
                f"The image {name!r} is being pulled; this goes on and is looked at again"
            ) from error
        finally:
            with self._lock:
                if pull.done() and self._pulls.get(name) is pull:
                    del self._pulls[name]

    def _pull_now(self, name: str, pull: concurrent.futures.Future[None]) -> None:
        try:
            for _event in self._docker.pull(name):
                pass
        except engine.Refused as error:
            pull.set_exception(_explained(name, error))
        except errors.DriverError as error:
            pull.set_exception(error)
        else:
            pull.set_result(None)


def _image(name: str, found: Mapping[str, Any]) -> Image:
    configuration = found.get("Config") or {}
    return Image(
        name=name,
        id=found["Id"],
        labels=configuration.get("Labels") or {},
        volumes=tuple(configuration.get("Volumes") or ()),
    )


def _explained(name: str, error: engine.Refused) -> errors.DriverError:
    """What the Engine's or the registry's refusal means for whoever wants the image."""
    for pattern, kind, advice in _REASONS:
        if re.search(pattern, error.text, re.IGNORECASE):
            return kind(f"The image {name!r} cannot be had: {advice} ({error.text})")
    return errors.DriverUnavailable(
        f"The image {name!r} cannot be pulled now, and is tried again: the registry does not answer as it "
        f"should ({error.text})"
    )
