"""Building the images of runtimes: one command, from any base image that has the language."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import sys
import tarfile
from collections.abc import Callable, Iterator

from funcplat import errors
from funcplat.drivers.docker import engine

SHARED = pathlib.Path("share", "funcplat", "runtimes")


def runtimes_directory() -> pathlib.Path:
    """Where the Dockerfiles of runtimes are: in the checkout, or where the package was installed to.

    Raises ConfigError.
    """
    checkout = pathlib.Path(__file__).resolve().parents[3] / "runtimes"
    for directory in (checkout, pathlib.Path(sys.prefix) / SHARED):
        if (directory / "python" / "Dockerfile").exists():
            return directory
    raise errors.ConfigError(
        f"there are no Dockerfiles of runtimes in {checkout} or {pathlib.Path(sys.prefix) / SHARED}"
    )


def build(
    docker: engine.Engine, language: str, base: str | None, tag: str, say: Callable[[str], None]
) -> str:
    """Build the image of a language's runtime and return its id.

    ``base``: the image to build on, else that of the Dockerfile; it is pulled if the Engine does not have it.
    ``say`` gets what the Engine says, line by line.  Raises ConfigError, Refused, DriverUnavailable.
    """
    arguments = {"BASE": base} if base else {}
    image_id = ""
    for event in docker.build(context(language), tag, arguments):
        if text := event.get("stream", "").strip():
            say(text)
        image_id = event.get("aux", {}).get("ID", image_id)
    if not image_id:
        raise errors.DriverError("the Docker Engine built no image, and did not say why")
    return image_id


def context(language: str) -> io.BytesIO:
    """What a Dockerfile builds from, as a tar file that depends on the files' contents alone.

    Raises ConfigError for a language that there is no runtime of.
    """
    directory = runtimes_directory() / language
    if not (directory / "Dockerfile").is_file():
        known = sorted(path.parent.name for path in runtimes_directory().glob("*/Dockerfile"))
        raise errors.ConfigError(f"there is no runtime of {language!r}; there are: {', '.join(known)}")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            if "__pycache__" not in path.parts:
                _add(tar, str(path.relative_to(directory)), path.read_bytes())
        for name, content in _worker():
            _add(tar, name, content)
    data.seek(0)
    return data


def _worker() -> Iterator[tuple[str, bytes]]:
    """The package of the Python worker, which imports nothing else of the platform."""
    found = importlib.util.find_spec("funcplat.worker")
    assert found is not None
    assert found.submodule_search_locations is not None
    yield "funcplat/__init__.py", b""
    for path in sorted(pathlib.Path(found.submodule_search_locations[0]).rglob("*.py")):
        yield f"funcplat/worker/{path.name}", path.read_bytes()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # of root, and of no time
    info.mode = 0o644
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
