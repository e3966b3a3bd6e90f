"""ZIP archives written by hand, so that each part of them can lie."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

FILE, DIRECTORY = 0o100644, 0o040755
STORED, DEFLATED = 0, 8


@dataclasses.dataclass
class Member:
    """A member; what is None is computed truthfully, `local` overrides fields of its own header alone."""

    name: bytes
    data: bytes = b""
    method: int = STORED
    flags: int = 0
    mode: int = FILE
    extra: bytes = b""
    packed: bytes | None = None  # the bytes that are written
    packed_size: int | None = None
    size: int | None = None
    crc: int | None = None
    offset: int | None = None
    descriptor: bytes = b""
    version: int = 20
    disk: int = 0
    written: bool = True  # False: it stands in the directory only
    local: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        packed = self.body()
        return {
            "name": self.name,
            "flags": self.flags,
            "method": self.method,
            "extra": self.extra,
            "crc": zlib.crc32(self.data) if self.crc is None else self.crc,
            "packed_size": len(packed) if self.packed_size is None else self.packed_size,
            "size": len(self.data) if self.size is None else self.size,
        }

    def body(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == DEFLATED else self.data

    def header(self) -> bytes:
        f = {**self.fields(), **self.local}
        numbers = (f["crc"], f["packed_size"], f["size"], len(f["name"]), len(f["extra"]))
        head = struct.pack("<4s5H3L2H", b"PK\3\4", self.version, f["flags"], f["method"], 0, 0x21, *numbers)
        return head + f["name"] + f["extra"]

    def record(self, offset: int) -> bytes:
        f = self.fields()
        at = offset if self.offset is None else self.offset
        numbers = (f["crc"], f["packed_size"], f["size"], len(f["name"]), len(f["extra"]), 0, self.disk, 0)
        head = (b"PK\1\2", 0x031E, self.version, f["flags"], f["method"], 0, 0x21)
        return struct.pack("<4s6H3L5H2L", *head, *numbers, self.mode << 16, at) + f["name"] + f["extra"]


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def archive(
    members: Sequence[Member],
    *,
    prefix: bytes = b"",
    gap: bytes = b"",
    suffix: bytes = b"",
    comment: bytes = b"",
    shift: int = 0,
    count: int | None = None,
    disk: int = 0,
    zip64: Mapping[str, int] | None = None,
) -> bytes:
    """The archive; ``shift`` is added to the directory's offset, ``zip64`` overrides the large end record."""
    body, records = bytearray(prefix), bytearray()
    for member in members:
        records += member.record(len(body))
        if member.written:
            body += member.header() + member.body() + member.descriptor
    body += gap
    start, total = len(body) + shift, len(members) if count is None else count
    body += records
    if zip64 is not None:
        large = {
            "length": 44,
            "count": total,
            "size": len(records),
            "start": start,
            "at": len(body),
            "disk": 0,
        }
        large |= zip64
        values = (large["length"], 45, 45, large["disk"], 0, large["count"], large["count"])
        body += struct.pack("<4sQ2H2L4Q", b"PK\6\6", *values, large["size"], large["start"])
        body += struct.pack("<4sLQL", b"PK\6\7", 0, large["at"], 1)
        end = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    else:
        end = (total & 0xFFFF, total & 0xFFFF, len(records), start)
    body += struct.pack("<4s4H2LH", b"PK\5\6", disk, disk, *end, len(comment)) + comment
    return bytes(body + suffix)
