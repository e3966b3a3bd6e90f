"""The Python files of a folder under development: which changed, and how to forget what was imported."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType

from funcplat.cmd import ignore

Stamp = tuple[int, int]
"""Time of the last change in nanoseconds, and size in bytes."""


class Sources:
    """The ``*.py`` files of ``folder``; without ``recursive`` those directly in it."""

    def __init__(self, folder: pathlib.Path, recursive: bool = True) -> None:
        self.folder = folder.resolve()
        self._recursive = recursive
        self._rules = ignore.Rules.of(self.folder)
        self._stamps = dict(self._scan(str(self.folder), ""))

    def contents(self) -> list[str]:
        """The names at the top of the folder."""
        return [path.name for path in self.folder.iterdir()]

    def changed(self) -> list[str]:
        """The files that were changed, made or deleted since the last call, relative to the folder.

        Their compiled code is removed: Python holds it for current where a file is changed twice
        within a second and keeps its size.
        """
        stamps = dict(self._scan(str(self.folder), ""))
        changed = sorted(name for name, _ in stamps.items() ^ self._stamps.items())
        self._stamps = stamps
        for name in changed:
            compiled = importlib.util.cache_from_source(str(self.folder / name))
            pathlib.Path(compiled).unlink(missing_ok=True)
        return list(dict.fromkeys(changed))

    def forget(self) -> None:
        """Make the next import of any module of the folder read its file again.

        Packages with compiled extensions stay: a process cannot load those twice.
        """
        importlib.invalidate_caches()
        mine = {name: module for name, module in list(sys.modules.items()) if self._holds(module)}
        compiled = {name.partition(".")[0] for name, module in mine.items() if _is_extension(module)}
        for name in mine:
            if name.partition(".")[0] not in compiled:
                del sys.modules[name]

    def unload_shadowed(self) -> None:
        """Forget what this program imported under a name that the folder has too: there, that name wins."""
        own = {name.partition(".")[0] for name in self.contents()}
        for name, module in list(sys.modules.items()):
            spec = getattr(module, "__spec__", None)
            if name.partition(".")[0] in own and spec and spec.origin not in ("built-in", "frozen"):
                del sys.modules[name]

    def _scan(self, directory: str, prefix: str) -> Iterator[tuple[str, Stamp]]:
        try:
            entries = list(os.scandir(directory))
        except FileNotFoundError:  # deleted meanwhile
            return
        for entry in entries:
            name = prefix + entry.name
            if entry.name.endswith(".py"):
                yield from _stamped(name, entry)
            elif entry.is_dir(follow_symlinks=False) and self._enters(name):
                yield from self._scan(entry.path, f"{name}/")

    def _enters(self, directory: str) -> bool:
        return self._recursive and not self._rules.leaves_out(directory, directory=True)

    def _holds(self, module: ModuleType) -> bool:
        # Namespace packages have no file, only a path.
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        return any(isinstance(place, str) and self._is_mine(place) for place in places)

    def _is_mine(self, place: str) -> bool:
        path = pathlib.Path(place)
        if not path.is_relative_to(self.folder):
            return False
        parents = path.relative_to(self.folder).parts[:-1]
        names = ["/".join(parents[: depth + 1]) for depth in range(len(parents))]
        return not any(self._rules.leaves_out(name, directory=True) for name in names)


def _stamped(name: str, entry: os.DirEntry[str]) -> Iterator[tuple[str, Stamp]]:
    try:
        found = entry.stat()
    except FileNotFoundError:  # editors replace files
        return
    yield name, (found.st_mtime_ns, found.st_size)


def _is_extension(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None) or ""
    return file.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
