"""Building the images of runtimes: one command, from any base image that has the language."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import re
import tarfile
from collections.abc import Callable, Iterator

from funcplat import errors, runtimes
from funcplat.drivers.docker import deadlines, engine, images

PULL_DEADLINE = 3600.0
"""Seconds that pulling the base may take; who builds is at hand to end it."""
HOUSE = "rootfs/opt/funcplat"
"""Where the files of a worker are in the context; in the image they are in /opt/funcplat."""
_BASE = re.compile(r"^ARG BASE=(\S+)$", re.MULTILINE)
_LEFT_OUT = ("__pycache__", "README.rst")


def build(
    docker: engine.Engine,
    having: images.Images,
    language: str,
    base: str | None,
    tag: str,
    say: Callable[[str], None],
    cached: bool = True,
) -> str:
    """Build the image of a language's runtime and return its id.

    ``base``: the image to build on, else that of the Dockerfile; it is pulled if the Engine does not have it,
    as all images are.  ``say`` gets what the Engine says, line by line.  ``cached``: steps that the Engine
    has made before need not be made again.  Raises ConfigError, ImageUnknown and its kinds, Refused,
    DriverUnavailable.
    """
    files = context(language)
    arguments = {"BASE": base or default_base(language)}
    having.any(arguments["BASE"], deadlines.Deadline(PULL_DEADLINE))
    image_id = ""
    for event in docker.build(files, tag, arguments, cached):
        if text := event.get("stream", "").strip():
            say(text)
        image_id = event.get("aux", {}).get("ID", image_id)
    if not image_id:
        raise errors.DriverError("the Docker Engine built no image, and did not say why")
    return image_id


def default_base(language: str) -> str:
    """The base that the Dockerfile names.  Raises ConfigError for a language that there is no runtime of."""
    found = _BASE.search((_directory(language) / "Dockerfile").read_text())
    assert found is not None
    return found[1]


def context(language: str) -> io.BytesIO:
    """What a Dockerfile builds from, as a tar file that depends on the files' contents alone.

    Raises ConfigError for a language that there is no runtime of.
    """
    directory = _directory(language)
    files = {
        f"{HOUSE}/{path.relative_to(directory)}": path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not set(_LEFT_OUT) & set(path.parts)
    }
    files["Dockerfile"] = files.pop(f"{HOUSE}/Dockerfile")
    if language == "python":
        files |= _worker()
    return _tar(files)


def _directory(language: str) -> pathlib.Path:
    directory = runtimes.directory(language)
    if not (directory / "Dockerfile").is_file():
        raise errors.ConfigError(f"there is no image of the runtime {language!r} to be built")
    return directory


def _worker() -> dict[str, bytes]:
    """The package of the Python worker, which imports nothing else of the platform."""
    found = importlib.util.find_spec("funcplat.worker")
    assert found is not None
    assert found.submodule_search_locations is not None
    modules = pathlib.Path(found.submodule_search_locations[0]).glob("*.py")
    files = {f"{HOUSE}/funcplat/worker/{path.name}": path.read_bytes() for path in modules}
    return files | {f"{HOUSE}/funcplat/__init__.py": b""}


def _tar(files: dict[str, bytes]) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in sorted(files.keys() | set(_parents(files))):
            tar.addfile(*_member(name, files.get(name)))
    data.seek(0)
    return data


def _parents(files: dict[str, bytes]) -> Iterator[str]:
    """Directories, which would have the time of their making if they were not in the context."""
    for name in files:
        yield from (str(path) for path in pathlib.PurePosixPath(name).parents if path.name)


def _member(name: str, content: bytes | None) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    """A file, or without content a directory: of root, and of no time."""
    info = tarfile.TarInfo(name)
    if content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        return info, None
    info.mode, info.size = 0o644, len(content)
    return info, io.BytesIO(content)
