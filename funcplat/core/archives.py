"""A strict reader of ZIP archives that strangers made.

`zipfile` is built to read as much as possible; a package must mean one thing only, to every reader, and
must not cost more than its limits allow.  So this reader follows the structures itself and takes an archive
only where all of it is accounted for: the members lie one after the other from the first byte, the
directory follows them, its end record follows the directory, and nothing lies between or overlaps.  What
each member's own header says must agree with the directory, and its bytes with both.

Memory stays flat whatever the archive says: the directory is read a record at a time, contents in chunks of
`CHUNK` bytes, and nothing is sized by a number found in the archive.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from funcplat import errors
from funcplat.core import archive_records as records
from funcplat.core.archive_records import Directory, Entry

CHUNK = 256 * 1024
"""Most bytes of a member that are held at once."""

_COMPARED_FLAGS = records.ENCRYPTED | records.DEFERRED | records.UTF8


class Archive:
    """An archive in a seekable file of ``size`` bytes.  Raises only InvalidPackage and its children.

    Not thread-safe: it moves the file's position.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.directory = self._find_directory()

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """The directory's records in its order, each with its own offset in the file."""
        position = self.directory.start
        for _ in range(self.directory.count):
            entry, length = self._read_record(position)
            if entry.offset + records.HEADER.size + entry.packed > self.directory.start:
                raise _overlap(entry)
            yield position, entry
            position += length
        if position != self.directory.start + self.directory.size:
            raise records.invalid("Its directory is longer than its members need.")

    def entry_at(self, position: int) -> Entry:
        """The directory's record at an offset that `entries` gave."""
        return self._read_record(position)[0]

    def content(self, entry: Entry, boundary: int) -> Iterator[bytes]:
        """The member's bytes, at most `CHUNK` at a time, checked against all that is said of them.

        ``boundary`` is where the next member (or the directory) begins; this one must end there.  What
        was yielded is known to be right only when the iterator is exhausted.
        """
        start = self._check_header(entry, boundary)
        crc = produced = 0
        for chunk in self._unpacked(entry, start):
            produced += len(chunk)
            if produced > entry.size:
                raise errors.PackageLies(
                    f"Member {entry} unpacks to more than its declared {entry.size} bytes."
                )
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if produced != entry.size:
            raise errors.PackageLies(f"Member {entry} unpacks to {produced} bytes and declares {entry.size}.")
        if crc != entry.crc:
            raise errors.PackageLies(f"Member {entry} does not have the checksum that it declares.")

    # -- the directory -----------------------------------------------------------------------------

    def _find_directory(self) -> Directory:
        position = self._find_end()
        _, disk, first_disk, here, count, size, start, _ = self._unpack(records.END, position)
        directory = Directory(start, size, count)
        found = self._find_end64(position, directory)
        if found is not None:
            position, directory = found
        elif disk or first_disk or here != count:
            raise records.invalid("It is one part of an archive in several parts.")
        if directory.start + directory.size != position:
            raise records.invalid(
                "Its directory is not where its end says: bytes were put before it or lost."
            )
        if directory.count * records.RECORD.size > directory.size:
            raise records.invalid("Its directory is too short for its number of members.")
        return directory

    def _find_end(self) -> int:
        if self._size < records.END.size:
            raise records.invalid("It is too short." if self._size else "It is empty.")
        start = max(0, self._size - records.END.size - records.MAX_COMMENT)
        tail = self._read(start, self._size - start)
        found = tail.rfind(b"PK\x05\x06", 0, len(tail) - records.END.size + 4)
        if found < 0:
            raise records.invalid("It has no end record: it is another kind of file or was cut off.")
        comment = int.from_bytes(tail[found + 20 : found + 22], "little")
        if found + records.END.size + comment != len(tail):
            raise records.invalid("It has bytes after its end, or was cut off.")
        return start + found

    def _find_end64(self, end: int, narrow: Directory) -> tuple[int, Directory] | None:
        locator = end - records.LOCATOR64.size
        position = locator - records.END64.size
        if position < 0 or self._read(locator, 4) != b"PK\x06\x07":
            return None
        _, disk, said, disks = self._unpack(records.LOCATOR64, locator)
        signature, length, _, _, *parts, here, count, size, start = self._unpack(records.END64, position)
        if signature != b"PK\x06\x06" or length != records.END64.size - 12 or said != position:
            raise records.invalid("Its ZIP64 end record is not where it should be.")
        if disk or any(parts) or disks > 1 or here != count:
            raise records.invalid("It is one part of an archive in several parts.")
        if (
            narrow.count not in (records.SENTINEL16, count)
            or narrow.size not in (records.SENTINEL32, size)
            or narrow.start not in (records.SENTINEL32, start)
        ):
            raise records.invalid("Its two end records disagree.")
        return position, Directory(start, size, count)

    def _read_record(self, position: int) -> tuple[Entry, int]:
        end = self.directory.start + self.directory.size
        if position + records.RECORD.size > end:
            raise records.invalid("Its directory is cut off.")
        fixed = self._read(position, records.RECORD.size)
        length = sum(int.from_bytes(fixed[at : at + 2], "little") for at in (28, 30, 32))
        if not fixed.startswith(b"PK\x01\x02") or position + len(fixed) + length > end:
            raise records.invalid("Its directory is damaged.")
        return records.parse_record(fixed, self._read(position + len(fixed), length)), len(fixed) + length

    # -- members -------------------------------------------------------------------------------------

    def _check_header(self, entry: Entry, boundary: int) -> int:
        """Compare the member's local header with the directory; return where its data begin."""
        if entry.offset + records.HEADER.size > boundary:  # of the next member: the same place, or nearly
            raise _overlap(entry)
        header = records.parse_header(self._read(entry.offset, records.HEADER.size))
        if header is None:
            raise errors.PackageLies(f"Member {entry} is not where the directory says.")
        start = entry.offset + header.length
        if start + entry.packed > boundary:
            raise _overlap(entry)
        name = self._read(entry.offset + records.HEADER.size, header.name_length)
        same = (name, header.method) == (entry.raw_name, entry.method)
        if not same or (header.flags ^ entry.flags) & _COMPARED_FLAGS:
            raise _disagreement(entry)
        packed, size = records.header_sizes(
            header, self._read(start - header.extra_length, header.extra_length)
        )
        deferred = header.flags & records.DEFERRED and not (header.crc or packed or size)
        if not deferred and (header.crc, packed, size) != (entry.crc, entry.packed, entry.size):
            raise _disagreement(entry)
        self._check_end(entry, start + entry.packed, boundary)
        return start

    def _check_end(self, entry: Entry, end: int, boundary: int) -> None:
        """Nothing but the member's data descriptor may lie between its data and what follows."""
        rest = boundary - end
        allowed = [b"", *records.descriptors(entry)] if entry.flags & records.DEFERRED else [b""]
        # What lies there may be long, so it is read only where its length is possible.
        if rest not in map(len, allowed) or self._read(end, rest) not in allowed:
            raise errors.PackageLies(f"After member {entry} there are {rest} bytes that belong to no member.")

    def _unpacked(self, entry: Entry, start: int) -> Iterator[bytes]:
        if entry.method == records.DEFLATED:
            return self._inflated(entry, start)
        if entry.packed != entry.size:
            raise errors.PackageLies(f"Member {entry} has {entry.packed} bytes and declares {entry.size}.")
        return self._packed(entry, start)

    def _packed(self, entry: Entry, start: int) -> Iterator[bytes]:
        for position in range(start, start + entry.packed, CHUNK):
            yield self._read(position, min(CHUNK, start + entry.packed - position))

    def _inflated(self, entry: Entry, start: int) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for packed in self._packed(entry, start):
                rest = packed
                while rest:
                    yield inflater.decompress(rest, CHUNK)
                    rest = inflater.unconsumed_tail
                if inflater.unused_data:
                    break
            # The inflater may still hold output that did not fit under the last call's limit.
            while not inflater.eof and (chunk := inflater.decompress(b"", CHUNK)):
                yield chunk
        except zlib.error as error:
            raise errors.PackageLies(f"Member {entry} cannot be unpacked: {error}.") from error
        if not inflater.eof or inflater.unused_data:
            raise errors.PackageLies(f"Member {entry} does not end where the directory says.")

    def _unpack(self, layout: struct.Struct, position: int) -> tuple[Any, ...]:
        return layout.unpack(self._read(position, layout.size))

    def _read(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        data = self._file.read(length)
        if len(data) != length:
            raise records.invalid("It was cut off.")
        return data


def _overlap(entry: Entry) -> errors.PackageOverlap:
    return errors.PackageOverlap(f"Member {entry} shares bytes with another member or with the directory.")


def _disagreement(entry: Entry) -> errors.PackageLies:
    return errors.PackageLies(f"Member {entry} has a header that disagrees with the directory.")
