"""Where calls of aliases go: a table in memory, as that of routes, and the turns of weighted ones.

No call asks the database: an alias is read when it is first needed and renewed in the background while it is
used, so that what other processes change is known here within about a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from funcplat import errors
from funcplat.core.aliases import Alias, Route, Target
from funcplat.invoke.router import FORGET_AFTER, RENEW_AFTER, STALE_AFTER

LOG = logging.getLogger(__name__)
Key = tuple[str, str]


class Turns:
    """Whose turn it is: of any calls in a row, as many as the sum of weights, each route gets its weight.

    The turns of a route lie as far apart as can be: 3 to 1 gives a a b a, not a a a b.  (Smooth weighted
    round robin, as nginx has it: each round all gain their weight, and the foremost one pays for all.)
    """

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._total = sum(route.weight for route in routes)
        self._gained = [0] * len(routes)

    def next(self) -> int:
        """The version that the next call runs."""
        if len(self.routes) == 1:
            return self.routes[0].function_version
        for place, route in enumerate(self.routes):
            self._gained[place] += route.weight
        foremost = max(range(len(self.routes)), key=self._gained.__getitem__)
        self._gained[foremost] -= self._total
        return self.routes[foremost].function_version


class _Entry:
    """An alias as it was read."""

    def __init__(self, function_id: str, turns: Turns, read_at: float) -> None:
        self.function_id = function_id
        self.turns = turns
        self.read_at = self.used_at = read_at


class AliasTable:
    """Resolves aliases.  Belongs to one event loop."""

    def __init__(
        self, find: Callable[[str, str], Alias], run: Callable[..., Coroutine[Any, Any, Any]]
    ) -> None:
        """``find(project, name)`` reads an alias or raises NotFound; ``run`` awaits it in a thread."""
        self._find = find
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._entries: dict[Key, _Entry] = {}
        self._reading: dict[Key, asyncio.Task[_Entry]] = {}
        self._tasks: set[asyncio.Task[_Entry]] = set()

    async def resolve(self, project_id: str, name: str) -> Target:
        """What the next call of the project's alias runs, as of at most a second ago.  Raises NotFound."""
        key = project_id, name
        entry = self._entries.get(key)
        if entry is None:
            entry = await asyncio.shield(self._read(key))
        now = entry.used_at = self._loop.time()
        age = now - entry.read_at
        if age > RENEW_AFTER:
            reading = self._read(key)
            if age > STALE_AFTER:
                entry = await asyncio.shield(reading)
        return Target(entry.function_id, entry.turns.next())

    def changed(self, project_id: str, name: str) -> None:
        """This process changed the alias: the next call reads it again."""
        key = project_id, name
        self._reading.pop(key, None)  # what is being read may be from before the change
        if key in self._entries:
            self._entries[key].read_at = -STALE_AFTER * 2

    def sweep(self) -> None:
        """Drop aliases that nobody uses."""
        now = self._loop.time()
        for key, entry in list(self._entries.items()):
            if now - entry.used_at > FORGET_AFTER:
                del self._entries[key]

    async def close(self) -> None:
        """Wait for what is being read."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _read(self, key: Key) -> asyncio.Task[_Entry]:
        """The reading of this alias that is under way, or a new one."""
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = self._loop.create_task(self._renew(key))
            self._tasks.add(task)
            task.add_done_callback(lambda ended: self._ended(key, ended))
        return task

    async def _renew(self, key: Key) -> _Entry:
        began = self._loop.time()
        try:
            alias: Alias = await self._run(self._find, *key)
        except errors.NotFound:
            if self._is_latest(key):
                self._entries.pop(key, None)
            raise
        entry = self._entries.get(key)
        if entry is None or (entry.function_id, entry.turns.routes) != (alias.function_id, alias.shares()):
            entry = _Entry(alias.function_id, Turns(alias.shares()), began)
        if self._is_latest(key):
            entry.read_at = began
            self._entries[key] = entry
        return entry

    def _is_latest(self, key: Key) -> bool:
        return self._reading.get(key) is asyncio.current_task()

    def _ended(self, key: Key, task: asyncio.Task[_Entry]) -> None:
        self._tasks.discard(task)
        if self._reading.get(key) is task:
            del self._reading[key]
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, errors.NotFound):
            LOG.warning("alias %s could not be read: %s", key[1], error)
