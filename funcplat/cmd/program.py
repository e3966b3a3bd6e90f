"""A function under development: imported in this process, run in the caller's thread, reloaded on change."""

from __future__ import annotations

import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from funcplat.cmd import devserver, sources
from funcplat.worker import entry as entries

PAUSE = 0.1
"""Seconds between looks at the files."""

LARGEST = 1024 * 1024
"""Bytes of JSON that a result may have: what servers allow by default."""

CONTEXT = {"os_session": None, "execution_id": "dev", "function_id": "dev", "function_version": 0}
"""What a function gets as ``context`` where it takes it."""


class Program:
    """The function ``entry`` of a folder, called the way that workers of the platform call it."""

    def __init__(self, folder: pathlib.Path, entry: str, recursive: bool, say: Callable[[str], None]) -> None:
        self._entry = entry
        self._say = say
        self._sources = sources.Sources(folder, recursive)
        self._function: entries.Entry | None = None
        self._fault = ""
        self.pause = PAUSE
        self._sources.unload_shadowed()
        sys.path.insert(0, str(self._sources.folder))

    def load(self) -> bool:
        """Import the function; where that fails, say why: every call fails with it until the next load."""
        started = time.perf_counter()
        try:
            self._function = entries.find(self._entry, self._sources.contents())
        except (Exception, SystemExit) as error:  # the user's module may raise anything
            self._function = None
            self._fault = self._trace(error)
            self._say(f"{self._fault}cannot import {self._entry}; it is tried again when a file is saved")
            return False
        self._say(f"imported {self._entry} in {_ms(started)}")
        return True

    def refresh(self) -> None:
        """Load again where a file changed since the last look."""
        started = time.perf_counter()
        changed = self._sources.changed()
        # PERF(scan): looking takes at most a tenth of the time, however many files there are.
        self.pause = max(PAUSE, 10 * (time.perf_counter() - started))
        if changed:
            self._say(f"changed: {', '.join(changed)}")
            self._sources.forget()
            self.load()

    def run(self, arguments: Mapping[str, Any]) -> devserver.Outcome:
        """Call the function.  What it raises is an outcome; only KeyboardInterrupt leaves."""
        if self._function is None:
            return devserver.Outcome(False, self._fault)
        started = time.perf_counter()
        try:
            positional, keywords = self._function.arguments(dict(arguments), CONTEXT)
            result = entries.encode(self._function.call(positional, keywords), LARGEST).decode()
        except (Exception, SystemExit) as error:  # ... and so may the function
            trace = self._trace(error)
            self._say(f"{trace}failed in {_ms(started)}")
            return devserver.Outcome(False, trace)
        finally:
            sys.stdout.flush()
        self._say(f"returned in {_ms(started)}: {_shortened(result)}")
        return devserver.Outcome(True, f"{result}\n")

    def _trace(self, error: BaseException) -> str:
        """The traceback from the first line of the user's code on; the platform's own failures have none."""
        if isinstance(error, entries.Failure):
            return f"{error.message}\n"
        mine = str(self._sources.folder)
        found: TracebackType | None = error.__traceback__
        while found and not found.tb_frame.f_code.co_filename.startswith(mine):
            found = found.tb_next
        return "".join(traceback.format_exception(type(error), error, found))


def _ms(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.1f} ms"


def _shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
