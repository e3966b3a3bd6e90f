"""Wrong clocks: a library by which a program sees another time of day than its machine."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from tests.services import base, processes

LIBRARIES = "*/faketime/libfaketimeMT.so.1"


class Faketime(base.Service):
    """No server: what a program is preloaded with.  `environment` has it see a wrong time."""

    name = "faketime"
    title = "libfaketime"
    packages = ("libfaketime",)

    def missing(self) -> str | None:
        if _library() is None:
            return f"libfaketime is not installed; apt-get install {' '.join(self.packages)}"
        return None

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        library = _library()
        if library is None:
            raise processes.StartError("libfaketime is not installed")
        return {"library": str(library)}


def environment(library: str, seconds: float) -> dict[str, str]:
    """Variables of a program whose clock is so many seconds fast, or slow; what measures spans is right."""
    return {
        "LD_PRELOAD": library,
        "FAKETIME": f"{seconds:+.0f}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _library() -> pathlib.Path | None:
    return next(pathlib.Path("/usr/lib").glob(LIBRARIES), None)
