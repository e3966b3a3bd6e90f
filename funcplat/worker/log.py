"""The output of one execution, up to a cap."""

from __future__ import annotations


class Log:
    """The first ``cap`` bytes of what was written, and a count of the rest."""

    __slots__ = ("cap", "data", "dropped")

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.data = bytearray()
        self.dropped = 0

    def write(self, data: bytes) -> None:
        room = self.cap - len(self.data)
        if len(data) <= room:
            self.data += data
        else:
            self.data += data[:room]
            self.dropped += len(data) - room
