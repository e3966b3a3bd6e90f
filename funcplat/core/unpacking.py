"""What a package holds: checked, or unpacked into a directory."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from funcplat.core import archives, package_rules
from funcplat.core.archive_records import Entry, invalid
from funcplat.core.package_rules import PackageLimits
from funcplat.core.spools import Spool, room


def check(file: BinaryIO, size: int, limits: PackageLimits) -> None:
    """Read the whole package and raise the kind of InvalidPackage that says why it cannot be taken.

    Everything is really unpacked, in memory and a chunk at a time, and compared with what is declared, so
    that `unpack` and every other reader will find just that.  The file's position is moved.
    """
    for _, content in _members(file, size, limits):
        _exhaust(content)


def unpack(chunks: Iterable[bytes], directory: pathlib.Path, limits: PackageLimits) -> None:
    """Unpack a package, given as the bytes of its file, into a new directory beside which there is room.

    The directory appears whole or not at all.  Files are 0644 or 0755, directories 0755; there are never
    links or devices.  Raises InvalidPackage and its children, TooLarge, Overloaded on a full disk.
    """
    with contextlib.ExitStack() as cleanup, room("unpack a package"):
        spool = cleanup.enter_context(Spool(directory.parent, limits.max_size))
        for chunk in chunks:
            spool.write(chunk)
        package = spool.finish()
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        cleanup.callback(shutil.rmtree, temporary, ignore_errors=True)
        for entry, content in _members(package.file, package.size, limits):
            _write(temporary, entry, content)
        temporary.chmod(0o755)
        temporary.rename(directory)


def _members(file: BinaryIO, size: int, limits: PackageLimits) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """The members of an archive whose directory breaks no rule, in the order of the file.

    A member's content is checked while it is read, so it must be read to its end before the next one.
    """
    archive = archives.Archive(file, size)
    if not archive.directory.count:
        raise invalid("It has no members.")
    if archive.directory.count > limits.members:
        raise package_rules.too_many(limits)
    rules = package_rules.Rules(limits)
    places = []
    for position, entry in archive.entries():
        rules.admit(entry)
        places.append((entry.offset, position))
    places.sort()
    if places[0][0] != 0:
        raise invalid("It has bytes before its first member.")
    boundaries = [offset for offset, _ in places[1:]] + [archive.directory.start]
    for (_, position), boundary in zip(places, boundaries, strict=True):
        # Read again rather than kept: names may make up most of an archive.
        entry = archive.entry_at(position)
        yield entry, archive.content(entry, boundary)


def _write(root: pathlib.Path, entry: Entry, content: Iterator[bytes]) -> None:
    path = root / entry.name
    if entry.is_directory:
        _make_directories(root, path)
        _exhaust(content)
        return
    _make_directories(root, path.parent)
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o755 if entry.is_executable else 0o644)
        file.writelines(content)
    os.utime(path, (entry.modified, entry.modified))


def _exhaust(content: Iterator[bytes]) -> None:
    """Read to the end for the checks on the way."""
    for _ in content:
        pass


def _make_directories(root: pathlib.Path, path: pathlib.Path) -> None:
    """Make a directory and those above it.  chmod, since mkdir's mode is subject to the umask."""
    if path == root or path.is_dir():
        return
    _make_directories(root, path.parent)
    path.mkdir()
    path.chmod(0o755)
