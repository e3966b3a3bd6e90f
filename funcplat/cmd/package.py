"""The ZIP file of a function: made from one file or a folder, or given.

The same content gives the same bytes on every machine and at every time, so that a digest says
whether code changed: members are sorted, times are fixed, modes are 0644 or 0755.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

from funcplat.cmd import failures, ignore

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that the format knows."""

IN_MEMORY = 8 * 1024 * 1024
"""Bytes of a package that is being made which stay in memory; a larger one goes to a temporary file."""


NODEJS = (".js", ".mjs", ".cjs")
"""How modules of Node.js end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """A package to upload; ``file`` stands at its beginning, and whoever asked for it closes it."""

    file: BinaryIO
    filename: str
    size: int  # bytes
    md5sum: str
    entry: str | None = None  # where the source suggests one
    left_out: tuple[str, ...] = ()  # paths in the folder, directories with a slash at the end


def from_file(path: pathlib.Path) -> Package:
    """A package of one module; the entry is its function ``main``.  Raises UsageFailure."""
    if not _is_module(path):
        raise failures.UsageFailure(
            f"{path.name} cannot be imported: --file wants a file named like hello.py (Python) or hello.js "
            "(Node.js)"
        )
    package = _pack([(path.name, path)], f"{path.stem}.zip")
    return dataclasses.replace(package, entry=f"{path.stem}.main")


def _is_module(path: pathlib.Path) -> bool:
    if path.suffix in NODEJS:
        return path.stem.replace("-", "_").isidentifier()
    return path.suffix == ".py" and path.stem.isidentifier()


def from_directory(folder: pathlib.Path) -> Package:
    """A package of what is in a folder, less what its rules leave out.

    The entry is suggested where the folder has an index.js and no main.py or main.js, which is the server's
    default.  Raises UsageFailure.
    """
    if not folder.is_dir():
        raise failures.UsageFailure(f"{folder} is not a directory")
    walk = Walk(folder)
    members = list(walk)
    if not members:
        raise failures.UsageFailure(f"{folder} has no file to package")
    package = _pack(members, f"{folder.resolve().name or 'package'}.zip")
    return dataclasses.replace(package, entry=_suggested(members), left_out=tuple(walk.left_out))


def _suggested(members: Iterable[tuple[str, pathlib.Path]]) -> str | None:
    names = {name for name, _ in members}
    mains, indexes = ({f"{stem}{ending}" for ending in NODEJS} for stem in ("main", "index"))
    return "index.main" if names & indexes and not names & {"main.py", *mains} else None


def from_zip(path: pathlib.Path) -> Package:
    """A package that is one already.  Raises UsageFailure."""
    with _readable(path):
        file = path.open("rb")
        if zipfile.is_zipfile(file):
            return _measured(file, path.name)
    file.close()
    raise failures.UsageFailure(f"{path} is not a ZIP file")


class Walk:
    """The members of a folder, sorted, as (name in the package, path); ``left_out`` fills meanwhile.

    Links to something inside the folder are followed and packed as what they point to; a link that
    leaves the folder, and a circle of links, raise UsageFailure.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.left_out: list[str] = []
        self._folder = folder
        self._root = folder.resolve()
        self._rules = ignore.Rules.of(folder)

    def __iter__(self) -> Iterator[tuple[str, pathlib.Path]]:
        with _readable(self._folder):
            yield from self._directory(self._folder, "", (self._root,))

    def _directory(
        self, path: pathlib.Path, prefix: str, above: tuple[pathlib.Path, ...]
    ) -> Iterator[tuple[str, pathlib.Path]]:
        for child in sorted(path.iterdir(), key=lambda child: child.name):
            name = prefix + child.name
            directory = child.is_dir()
            if self._rules.leaves_out(name, directory):
                self.left_out.append(f"{name}/" if directory else name)
                continue
            target = self._target(child, name)
            if directory and target in above:
                raise failures.UsageFailure(f"{name} is a link to a directory that it is in")
            if directory:
                yield from self._directory(child, f"{name}/", (*above, target))
            elif child.is_file():
                yield name, child
            else:
                self.left_out.append(f"{name} (neither a file nor a directory)")

    def _target(self, path: pathlib.Path, name: str) -> pathlib.Path:
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise failures.UsageFailure(f"{name} is a link to nothing: {path.readlink()}") from error
        if not target.is_relative_to(self._root):
            raise failures.UsageFailure(
                f"{name} is a link that leaves the directory (to {target}): copy what it points to, "
                f"or name it in {ignore.FILE}"
            )
        return target


def _pack(members: Iterable[tuple[str, pathlib.Path]], filename: str) -> Package:
    with contextlib.ExitStack() as failed:
        file = cast(BinaryIO, failed.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY)))
        with zipfile.ZipFile(file, "w") as archive:
            for name, path in members:
                _add(archive, path, name)
        failed.pop_all()
        return _measured(file, filename)


def _measured(file: BinaryIO, filename: str) -> Package:
    file.seek(0)
    # MD5 is what the API compares; it is no protection here.
    digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))  # type: ignore[arg-type]
    size = file.tell()
    file.seek(0)
    return Package(file, filename, size, digest.hexdigest())


def _add(archive: zipfile.ZipFile, path: pathlib.Path, name: str) -> None:
    with _readable(path), path.open("rb") as source:
        member = zipfile.ZipInfo(name, EPOCH)
        executable = path.stat().st_mode & stat.S_IXUSR and os.name == "posix"
        member.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
        member.create_system = 3  # Unix, on every machine: the mode counts
        member.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(member, "w", force_zip64=path.stat().st_size >= 2**31) as sink:
            shutil.copyfileobj(source, sink, 256 * 1024)


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failures.UsageFailure(f"cannot read {error.filename or path}: {error.strerror}") from error
