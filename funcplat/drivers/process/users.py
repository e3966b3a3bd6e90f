"""User ids of this machine for workers, in pairs.  Standard library only: the zygote imports it."""

from __future__ import annotations

import errno

COUNT = 65536
"""User ids that an installation may use, from uid_base on."""
SHARE = 4096
"""User ids of one zygote, so that those of two interpreters differ."""


class Users:
    """Hands out pairs of user ids, one pair a worker.

    Ids go round, so that a new worker does not get those of one that has just ended.
    """

    def __init__(self, first: int, count: int = SHARE) -> None:
        self._first = first
        self._pairs = count // 2
        self._next = 0
        self._used: set[int] = set()

    def take(self) -> int:
        """The lower id of a free pair.  Raises OSError (EUSERS)."""
        if len(self._used) >= self._pairs:
            raise OSError(
                errno.EUSERS, f"all {self._pairs} pairs of user ids from {self._first} on are in use"
            )
        while self._next in self._used:
            self._next = (self._next + 1) % self._pairs
        pair = self._next
        self._next = (pair + 1) % self._pairs
        self._used.add(pair)
        return self._first + 2 * pair

    def give(self, user: int) -> None:
        """Give a pair back."""
        self._used.discard((user - self._first) // 2)
