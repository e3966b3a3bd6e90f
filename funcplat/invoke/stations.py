"""The workers of one revision as one router sees them: who has room, who is next, who waits."""

from __future__ import annotations

import asyncio
import collections
import dataclasses

from funcplat.core.workers import Worker
from funcplat.invoke import client


class Station:
    """One worker: its kept connections and how many of this router's calls it runs."""

    __slots__ = ("_max_answer", "connections", "gone", "head", "in_flight", "since", "used", "worker")

    def __init__(
        self, worker: Worker, timeout: int, since: float, max_answer: int = client.MAX_ANSWER
    ) -> None:
        """``since``: the loop's time at which this router heard of it; ``max_answer`` in bytes."""
        self._max_answer = max_answer
        self.worker = worker
        self.since = since
        self.head = client.Head.of(worker.secret, timeout)
        self.connections: list[client.Connection] = []
        self.in_flight = 0
        self.gone = False
        self.used = True

    def has_room(self) -> bool:
        return not self.gone and self.in_flight < self.worker.concurrency

    async def connection(self) -> client.Connection:
        """A kept connection, or a new one.  Raises NotReached."""
        while self.connections:
            kept = self.connections.pop()
            if not kept.closed:
                return kept
        return await client.connect(self.worker.handle.address, self._max_answer)

    def close(self) -> None:
        self.gone = True
        for kept in self.connections:
            kept.close()
        self.connections.clear()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A call in the line."""

    place: asyncio.Future[Station]
    since: float  # the loop's time


class Stations:
    """All workers of one revision that this router may call.

    The one that was last freed is next (LIFO), so that surplus workers fall idle and can be stopped.
    Calls that find no room wait in line; a freed place goes to the first of them.
    """

    def __init__(self) -> None:
        self._all: dict[str, Station] = {}
        self._free: list[Station] = []
        self._waiting: collections.deque[Waiter] = collections.deque()
        self.given_back = 0  # places that came free, ever: how fast the line moves

    def __len__(self) -> int:
        return len(self._all)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def worker_ids(self) -> list[str]:
        return list(self._all)

    def used(self) -> list[str]:
        """Ids of the workers that got a call since this was last asked, or are running one."""
        ids = [key for key, station in self._all.items() if station.used or station.in_flight]
        for key in ids:
            self._all[key].used = False
        return ids

    def has_worker(self, worker_id: str) -> Station | None:
        return self._all.get(worker_id)

    def add(self, station: Station) -> None:
        """Make a worker known and give its places to those who wait."""
        if station.worker.id not in self._all:
            self._all[station.worker.id] = station
            self._offer(station)

    def remove(self, worker_id: str) -> None:
        """The worker takes no more calls; those that it runs go on."""
        station = self._all.pop(worker_id, None)
        if station is not None:
            station.close()
            if station in self._free:
                self._free.remove(station)

    def take(self) -> Station | None:
        """A place at once, or None."""
        while self._free:
            station = self._free[-1]
            if not station.has_room():
                self._free.pop()
                continue
            station.in_flight += 1
            station.used = True
            if not station.has_room():
                self._free.pop()
            return station
        return None

    def wait(self) -> Waiter:
        """A place as soon as there is one; `leave` the line to give up."""
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), loop.time())
        self._waiting.append(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Give up; a place that came in this very moment goes to the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        future = waiter.place
        if not future.cancel() and not future.cancelled() and not future.exception():
            self.give_back(future.result())

    def expire(self, waiter: Waiter, error: BaseException) -> None:
        """Take the call out of the line and tell it why."""
        self._waiting.remove(waiter)
        if not waiter.place.done():
            waiter.place.set_exception(error)

    def oldest(self) -> Waiter | None:
        """Who waits longest."""
        return self._waiting[0] if self._waiting else None

    def give_back(self, station: Station) -> None:
        """The call has ended; its place goes to the first who waits."""
        station.in_flight -= 1
        self.given_back += 1
        self._offer(station)

    def refuse(self, station: Station, pause: float) -> None:
        """The worker is full of other routers' calls: leave it alone for ``pause`` seconds."""
        asyncio.get_running_loop().call_later(pause, self.give_back, station)
        if station in self._free:
            self._free.remove(station)

    def fail_waiting(self, error: BaseException) -> None:
        """There will be no place: tell everybody who waits."""
        while self._waiting:
            place = self._waiting.popleft().place
            if not place.done():
                place.set_exception(error)

    def move_waiting(self, other: Stations) -> None:
        """The revision was superseded: who waits here waits there."""
        other._waiting.extend(self._waiting)
        self._waiting.clear()
        for station in list(other._all.values()):
            other._offer(station)

    def close(self) -> None:
        for worker_id in list(self._all):
            self.remove(worker_id)

    def _offer(self, station: Station) -> None:
        while self._waiting and station.has_room():
            place = self._waiting.popleft().place
            if not place.done():
                station.in_flight += 1
                station.used = True
                place.set_result(station)
        if station.has_room() and station not in self._free:
            self._free.append(station)
