"""The code of functions: checked as a caller gives it, and kept where workers will find it.

Code is a package, which goes to the package store, or an image, which is pinned to what its name means now.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from funcplat import errors
from funcplat.core import packages
from funcplat.core.images import Images
from funcplat.core.packagestore import PackageStore, Stored

IMAGE = "image"
"""The source of functions that are an image."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """Code that is where it will be found: what a new revision runs."""

    text: str  # JSON, as answers show it
    stored: Stored | None = None  # a package, or else ...
    image: str | None = None  # an image, by its digest


class Code:
    """Checks and keeps code.  Thread-safe."""

    def __init__(self, store: PackageStore, images: Images) -> None:
        self._store = store
        self._images = images

    def check_source(self, code: Mapping[str, Any]) -> str:
        """The source that the code names.  Raises InvalidRequest, SourceUnavailable."""
        source = code.get("source")
        if not isinstance(source, str) or not source:
            raise errors.InvalidRequest('"code" must name its "source", such as "package".')
        if source == IMAGE:
            self._images.runner(None)
        else:
            self._store.check_source(source)
        return source

    def check_new(
        self, code: Mapping[str, Any], runtime_id: str | None, package: packages.Spooled | None
    ) -> None:
        """What a new function is made of.  Raises InvalidRequest and its kinds."""
        if code["source"] == IMAGE:
            _refuse_package(package)
            return
        if runtime_id is None:
            raise errors.InvalidRequest('"runtime_id" must be specified.')
        if package is None:
            raise errors.InvalidRequest(
                f'A function of source "{code["source"]}" needs a file part "package".'
            )
        packages.check_md5(code, package)
        self._store.check(package)

    def check_changed(self, text: str, code: Mapping[str, Any], package: packages.Spooled | None) -> None:
        """Changes of code whose JSON is ``text`` now.  Raises InvalidRequest and its kinds."""
        current = json.loads(text)
        if code.get("source", current["source"]) != current["source"]:
            raise errors.InvalidRequest("The function code type can not be changed.")
        if current["source"] == IMAGE:
            _refuse_package(package)
        elif package is not None:
            packages.check_new(current, code, package)
            self._store.check(package)

    def keep(
        self, code: Mapping[str, Any], package: packages.Spooled | None, orchestrator: str | None
    ) -> Kept:
        """Keep checked code.  ``orchestrator``: name of the driver of the function's runtime, if it has one.

        Raises DriverError where the store or engine fails, InvalidRequest for an image that is none.
        """
        if package is None:
            pinned = self._images.pin(code, orchestrator)
            return Kept(dump({**code, "digest": pinned.digest}), image=pinned.image)
        return Kept(dump({**code, "md5sum": package.md5}), self._store.keep(package))

    def changed_text(self, text: str, code: Mapping[str, Any], kept: Kept | None) -> str:
        """The JSON of changed code.

        Its checksum or digest says what is kept: a package changes it, or an image that is looked up again.
        """
        current = json.loads(text)
        known = {key: current[key] for key in ("md5sum", "digest") if key in current}
        if kept is not None:
            found = json.loads(kept.text)
            known = {key: found[key] for key in ("md5sum", "digest") if key in found}
        return dump({**current, **code, **known})


def is_image(text: str) -> bool:
    """Whether code of this JSON is an image."""
    return bool(json.loads(text)["source"] == IMAGE)


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _refuse_package(package: packages.Spooled | None) -> None:
    if package is not None:
        raise errors.InvalidRequest("A function that is an image takes no package.")
