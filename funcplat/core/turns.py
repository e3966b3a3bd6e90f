"""Turns: which of the queued executions an engine begins next, so that claims are fair.

Projects take turns, and the functions of a project take turns, so that one's thousands do not make
another's one wait; and a project leaves places free for who comes next.  Finding whose turn it is costs a
step into an index for each that gets one, however many are queued.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from funcplat.core.executions import UNSETTLED
from funcplat.db import models

T = models.executions
SHARE = 3
"""A project gets at most so many times the places of an engine that it leaves free."""
REMEMBERED = 10_000
"""Projects of which an engine remembers whose turn it was."""
TOGETHER = 64
"""Lanes of one statement."""
_IN_ORDER = sa.text("SET LOCAL enable_bitmapscan = off")
Lane = tuple[str, str]
"""Project and function."""


class Turns:
    """Whose turn it is in one engine.  Not thread-safe.

    What it remembers is lost with its process, which costs nobody more than a turn.
    """

    def __init__(self, per_function: int) -> None:
        """``per_function``: executions of one function that this engine runs at once at most."""
        self._per_function = per_function
        self._last_project = ""
        self._last_function: dict[str, str] = {}

    def choose(self, connection: sa.Connection, room: int, running: Iterable[Lane]) -> list[str]:
        """Ids of up to ``room`` executions to begin; ``running``: the lane of each that this engine runs."""
        if connection.dialect.name == "postgresql":
            # PERF(order): its statistics of a queue are old, and it would sort all of it to find the first.
            connection.execute(_IN_ORDER)
        load = _Load.of(room, running, self._per_function)
        projects = self._projects(connection, room)
        shares = _shares(room, [load.room_of_project(project) for project in projects])
        lanes = [
            (project, function, number)
            for project, share in zip(projects, shares, strict=True)
            for function, number in self._lanes(connection, project, share, load)
        ]
        ids: list[str] = []
        for start in range(0, len(lanes), TOGETHER):
            some = lanes[start : start + TOGETHER]
            values = {
                f"{name}_{place}": value
                for place, lane in enumerate(some)
                for name, value in zip(("project", "function", "number"), lane, strict=True)
            }
            ids += connection.execute(_due(len(some)), values).scalars()
        return ids

    def _projects(self, connection: sa.Connection, most: int) -> list[str]:
        """Projects with queued executions, those first whose turn is next."""
        found = _around(connection, _PROJECTS, self._last_project, most, {})
        self._last_project = found[-1] if found else ""
        return found

    def _lanes(
        self, connection: sa.Connection, project: str, share: int, load: _Load
    ) -> list[tuple[str, int]]:
        """Functions of a project, those first whose turn is next, and how many executions each may begin."""
        if share <= 0:
            return []
        where = {"project": project, "full": load.full_functions}
        last = self._last_function.pop(project, "")
        found = _around(connection, _FUNCTIONS, last, share, where)
        if len(self._last_function) > REMEMBERED:
            self._last_function.clear()
        if found:
            self._last_function[project] = found[-1]
        shares = _shares(share, [load.room_of_function(function) for function in found])
        return list(zip(found, shares, strict=True))


@dataclasses.dataclass(frozen=True, slots=True)
class _Load:
    """What an engine runs, and what it may begin beside that."""

    room: int
    per_function: int
    projects: Mapping[str, int]
    functions: Mapping[str, int]

    @classmethod
    def of(cls, room: int, running: Iterable[Lane], per_function: int) -> _Load:
        lanes = list(running)
        return cls(
            room,
            per_function,
            collections.Counter(project for project, _ in lanes),
            collections.Counter(function for _, function in lanes),
        )

    @property
    def full_functions(self) -> list[str]:
        return [each for each, number in self.functions.items() if number >= self.per_function]

    def room_of_function(self, function: str) -> int:
        return self.per_function - self.functions.get(function, 0)

    def room_of_project(self, project: str) -> int:
        """So many that it holds at most `SHARE` times what it leaves free for who comes next."""
        held = self.projects.get(project, 0)
        return max(0, math.ceil((SHARE * self.room - held) / (SHARE + 1)))


def _around(
    connection: sa.Connection, query: sa.Select[Any], last: str, most: int, where: Mapping[str, Any]
) -> list[str]:
    """At most so many values: those after ``last``, then from the start."""
    found: list[str] = []
    seen: set[str] = set()
    value, wrapped = last, not last
    while len(found) < most:
        following = connection.execute(query, {"last": value, **where}).scalar()
        if following in seen or (following is None and wrapped):
            break
        if following is None:
            value, wrapped = "", True
        else:
            found.append(following)
            seen.add(following)
            value = following
    return found


def _hinted(query: sa.Select[Any]) -> sa.Select[Any]:
    """By the index of the queue: MariaDB and MySQL would take one that holds every finished execution too."""
    for dialect in ("mysql", "mariadb"):
        query = query.with_hint(T, "FORCE INDEX (ix_executions_queue)", dialect)
    return query


def _step(column: sa.Column[str], *where: Any) -> sa.Select[Any]:
    """The first value of a column among the queued after ``last``.

    # PERF(skip): a step into the index for each value, not one for each row: 100,000 rows of one function
    # are one step.  In one recursive statement MariaDB reads all of them.
    """
    after = column > sa.bindparam("last", type_=column.type)
    query = sa.select(column).where(UNSETTLED, T.c.status == "queued", *where, after)
    return _hinted(query.order_by(column).limit(1))


_PROJECTS = _step(T.c.project_id)
_FUNCTIONS = _step(
    T.c.function_id,
    T.c.project_id == sa.bindparam("project", type_=T.c.project_id.type),
    T.c.function_id.not_in(sa.bindparam("full", type_=T.c.function_id.type, expanding=True)),
)


@functools.lru_cache(maxsize=TOGETHER)
def _due(lanes: int) -> Any:
    """The oldest of so many lanes, ``number_0`` of the lane ``project_0``, ``function_0`` and so on."""
    return sa.union_all(*(sa.select(_due_of(place).subquery()) for place in range(lanes)))


def _due_of(place: int) -> sa.Select[Any]:
    def parameter(name: str, type_: Any) -> Any:
        return sa.bindparam(f"{name}_{place}", type_=type_)

    lane = sa.and_(
        T.c.project_id == parameter("project", T.c.project_id.type),
        T.c.function_id == parameter("function", T.c.function_id.type),
        sa.or_(T.c.expires_at.is_(None), T.c.expires_at > models.now()),
    )
    query = sa.select(T.c.id).where(UNSETTLED, T.c.status == "queued", lane).order_by(T.c.due_at)
    return _hinted(query.limit(parameter("number", sa.Integer)))


def _shares(total: int, caps: Sequence[int]) -> list[int]:
    """``total`` in parts as equal as the caps allow."""
    shares = []
    for number, cap in enumerate(caps):
        shares.append(max(0, min(cap, math.ceil(total / (len(caps) - number)))))
        total -= shares[-1]
    return shares
