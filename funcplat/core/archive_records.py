"""The records of a ZIP archive: bytes in, values out.  Used by `funcplat.core.archives` alone.

The layouts are those of PKWARE's APPNOTE 6.3; the fields 0x5455 and 0x7075 are Info-ZIP's.
"""

from __future__ import annotations

import dataclasses
import datetime
import struct
import zlib
from collections.abc import Iterator

from funcplat import errors

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")
RECORD = struct.Struct("<4s6H3L5H2L")
HEADER = struct.Struct("<4s5H3L2H")
_DESCRIPTOR32 = struct.Struct("<3L")
_DESCRIPTOR64 = struct.Struct("<L2Q")

MAX_COMMENT = 0xFFFF
SENTINEL16 = 0xFFFF  # "see the ZIP64 record"
SENTINEL32 = 0xFFFFFFFF
_MAX_VERSION = 63

ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # traditional, strong, masked headers
DEFERRED = 0x0008  # checksum and sizes stand in a descriptor after the data
_PATCH = 0x0020
UTF8 = 0x0800

_UNIX = (3, 19)  # systems that an archive may say it was made on: Unix and macOS

STORED, DEFLATED, _AES = 0, 8, 99

_ZIP64_FIELD, _TIME_FIELD, _UNICODE_PATH_FIELD = 0x0001, 0x5455, 0x7075
_READ_FIELDS = frozenset([_ZIP64_FIELD, _TIME_FIELD, _UNICODE_PATH_FIELD])


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    """Where the archive's directory lies and how many records it has."""

    start: int
    size: int
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A member as the archive's directory describes it."""

    name: str  # as decoded; directories end in "/"
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int  # bytes in the archive
    size: int  # bytes unpacked
    offset: int  # of its local header
    mode: int  # Unix mode with file type, 0 where the archive has none
    modified: int  # seconds since the epoch

    @property
    def is_directory(self) -> bool:
        return self.name.endswith("/")

    @property
    def is_executable(self) -> bool:
        return bool(self.mode & 0o111) and not self.is_directory

    def __str__(self) -> str:
        return shown(self.name)


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a member's local header says; its name and extra fields follow it."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    name_length: int
    extra_length: int

    @property
    def length(self) -> int:
        return HEADER.size + self.name_length + self.extra_length


def shown(name: str) -> str:
    """A member's name for people: quoted, escaped and shortened."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:58]}...{text[-19:]}"


def invalid(detail: str) -> errors.InvalidPackage:
    """The error of something that is not a ZIP file at all, in the words that clients know."""
    return errors.InvalidPackage(f"Package is not a valid ZIP package. {detail}")


def parse_record(fixed: bytes, rest: bytes) -> Entry:
    """The directory's record of a member: its fixed part, and the name, extra fields and comment after it."""
    _, made_by, version, flags, method, time, date, crc, packed, size, *more = RECORD.unpack(fixed)
    name_length, extra_length, _, disk, _, attributes, offset = more
    if disk:
        raise invalid("It is one part of an archive in several parts.")
    extra = _extra_fields(rest[name_length : name_length + extra_length])
    raw_name = rest[:name_length]
    size, packed, offset = _widened(extra, [size, packed, offset])
    name = _decode_name(raw_name, flags, made_by >> 8, extra)
    modified = _modified(extra, date, time)
    entry = Entry(name, raw_name, flags, method, crc, packed, size, offset, attributes >> 16, modified)
    _check_readable(entry, version & 0xFF)
    return entry


def parse_header(fixed: bytes) -> Header | None:
    """A member's local header, None where there is none."""
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = HEADER.unpack(fixed)
    if signature != b"PK\x03\x04":
        return None
    return Header(flags, method, crc, packed, size, name_length, extra_length)


def header_sizes(header: Header, extra: bytes) -> tuple[int, int]:
    """Packed and unpacked size of a local header, ZIP64 considered."""
    size, packed = _widened(_extra_fields(extra), [header.size, header.packed])
    return packed, size


def descriptors(entry: Entry) -> Iterator[bytes]:
    """The ways to write a member's data descriptor: with and without a signature, short and ZIP64."""
    for layout in (_DESCRIPTOR32, _DESCRIPTOR64):
        if layout is _DESCRIPTOR64 or max(entry.packed, entry.size) <= SENTINEL32:
            descriptor = layout.pack(entry.crc, entry.packed, entry.size)
            yield from (descriptor, b"PK\x07\x08" + descriptor)


def _extra_fields(extra: bytes) -> dict[int, bytes]:
    """The extra fields by their tags.  Less than a field's head at the end is padding."""
    fields: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, position)
        position += 4 + length
        if position > len(extra) or (tag in _READ_FIELDS and tag in fields):
            raise invalid("A member has damaged extra fields.")
        fields[tag] = extra[position - length : position]
    return fields


def _widened(extra: dict[int, bytes], values: list[int]) -> list[int]:
    """Replace each value that stands for "see the ZIP64 field" by the one that stands there."""
    field = extra.get(_ZIP64_FIELD)
    if field is None:
        return values
    wide = iter([int.from_bytes(field[at : at + 8], "little") for at in range(0, len(field) - 7, 8)])
    try:
        return [next(wide) if value == SENTINEL32 else value for value in values]
    except StopIteration:
        raise invalid("A member has damaged extra fields.") from None


def _decode_name(raw: bytes, flags: int, system: int, extra: dict[int, bytes]) -> str:
    """The name, in UTF-8 where the archive says so or was made where names are bytes and these are UTF-8."""
    field = extra.get(_UNICODE_PATH_FIELD, b"")
    try:
        name = raw.decode("utf-8" if flags & UTF8 or (system in _UNIX and _is_utf8(raw)) else "cp437")
        if field[:1] != b"\x01" or int.from_bytes(field[1:5], "little") != zlib.crc32(raw):
            return name
        path = field[5:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.PackageMemberName(f"The name of member {shown(str(raw)[2:-1])} is not UTF-8.") from error
    # Not every reader knows this field: it may say how to spell a name, but not another path.
    if path != name and (flags & UTF8 or raw.isascii() or path.count("/") != raw.count(b"/")):
        raise errors.PackageLies(f"Member {shown(name)} has a second name, {shown(path)}.")
    return path


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _modified(extra: dict[int, bytes], date: int, time: int) -> int:
    """The exact time where the archive has it, else its local time taken for UTC, else 1980."""
    field = extra.get(_TIME_FIELD, b"")
    if len(field) >= 5 and field[0] & 1:
        return int.from_bytes(field[1:5], "little", signed=True)
    clock = (time >> 11, time >> 5 & 63, (time & 31) * 2)
    try:
        moment = datetime.datetime((date >> 9) + 1980, date >> 5 & 15, date & 31, *clock, tzinfo=datetime.UTC)
    except ValueError:
        moment = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)
    return int(moment.timestamp())


def _check_readable(entry: Entry, version: int) -> None:
    if entry.flags & ENCRYPTED or entry.method == _AES:
        raise errors.PackageEncrypted(f"Member {entry} is encrypted.")
    if entry.method not in (STORED, DEFLATED) or entry.flags & _PATCH or version > _MAX_VERSION:
        raise errors.PackageCompression(
            f"Member {entry} is compressed by method {entry.method}; packages may use deflate or none."
        )
