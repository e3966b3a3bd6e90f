"""ZIP files as users make them, and as nobody should, for the contract of workers."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping

from funcplat.testing import workerclient

UMLAUTS = "gr\u00f6\u00dfe"

_HEADER, _RECORD, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def packed(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    """``mode``: that of each member, with its kind; 0: none, as on systems that have no such thing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = method
            member.external_attr = mode << 16
            archive.writestr(member, content)
    return buffer.getvalue()


def joined(*packages: bytes) -> bytes:
    """One ZIP file with the members of several, each as it was."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for one in packages:
            with zipfile.ZipFile(io.BytesIO(one)) as source:
                for member in source.infolist():
                    archive.writestr(member, source.read(member))
    return buffer.getvalue()


def with_odd_names(module: str, source: str | bytes) -> Iterator[tuple[bytes, str]]:
    """Packages whose second member has a name that is not ASCII, and that name.

    In UTF-8 with its flag; without it, as of an archive made on Unix; in code page 437.  All but the last
    have ZIP64 fields; that one has a field of Info-ZIP's.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(module, source)
        with archive.open(zipfile.ZipInfo(UMLAUTS), "w", force_zip64=True) as member:
            member.write(b"x")
    package = buffer.getvalue()
    yield package, UMLAUTS
    not_flagged = bytearray(package)
    for signature, flags in ((_HEADER, 7), (_RECORD, 9)):
        not_flagged[package.rindex(signature) + flags] = 0
    yield bytes(not_flagged), UMLAUTS
    # The same number of bytes, so that all offsets stay right.
    name = f"{UMLAUTS}12"
    yield bytes(not_flagged).replace(UMLAUTS.encode(), name.encode("cp437")), name
    yield _spelled(module, source)


def _spelled(module: str, source: str | bytes) -> tuple[bytes, str]:
    """A name in code page 437 that an extra field of Info-ZIP's spells otherwise, in UTF-8."""
    raw, name = UMLAUTS.encode("cp437"), f"{UMLAUTS}-2"
    field = b"\1" + zlib.crc32(raw).to_bytes(4, "little") + name.encode()
    member = zipfile.ZipInfo("QQQQQ")
    member.extra = struct.pack("<HH", 0x7075, len(field)) + field
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(module, source)
        archive.writestr(member, b"x")
    return buffer.getvalue().replace(b"QQQQQ", raw), name


def zip64(package: bytes) -> bytes:
    """The same with the end record of a ZIP64 archive."""
    start, end = package.index(_RECORD), package.index(_END)
    count = package.count(_RECORD)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, end - start, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    narrow = struct.pack("<4s4H2LH", _END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return package[:end] + record + locator + narrow


def refused() -> Iterator[tuple[str, bytes]]:
    """What is wrong with a package, and that package."""
    for name in ("../evil", "/evil", "a/../../evil", "a\\..\\evil", "..", "a/.."):
        yield f"the name {name}", workerclient.package({"first": "", name: "x"})
    for kind, mode in (("link", 0o120777), ("device", 0o020666), ("pipe", 0o010666), ("socket", 0o140666)):
        for name in ("evil", "evil/"):
            yield f"a {kind} called {name}", packed({name: b"/etc/passwd"}, mode=mode)
    good = workerclient.package({"aa": "first", "bb": "second"})
    yield "a member twice", good.replace(b"bb", b"aa")
    yield "a file that is a directory, too", workerclient.package({"a": "first", "a/b": "second"})
    yield from _lying(good)
    yield from _broken(good)
    yield from _bombs()


def _lying(good: bytes) -> Iterator[tuple[str, bytes]]:
    record = good.index(_RECORD)
    for what, offset, value in (
        ("a wrong checksum", 16, b"\0\0\0\0"),
        ("a size that is too small", 24, b"\x03"),
        ("a size that is too large", 24, b"\x09"),
        ("a member that is encrypted", 8, b"\x01"),
        ("a method that does not exist", 10, b"\x62"),
    ):
        at = record + offset
        yield what, good[:at] + value + good[at + len(value) :]


def _broken(good: bytes) -> Iterator[tuple[str, bytes]]:
    flags = good.rindex(_RECORD) + 9
    utf8 = good[:flags] + b"\x08" + good[flags + 1 :]
    yield "a name that is not UTF-8", utf8.replace(b"bb", b"\xff\xff")
    yield "no end", good[:-5]
    yield "no beginning", good[20:]
    yield "a broken directory", good.replace(_RECORD, b"PK\x01\x03")
    yield "no ZIP file", b"x" * 30_000


def _bombs() -> Iterator[tuple[str, bytes]]:
    package = packed({"zeros": bytes(20_000_000)})
    size = package.index(_RECORD) + 24
    for declared in (1000, 2_000_000):
        yield (
            f"a bomb of {declared} bytes",
            package[:size] + declared.to_bytes(4, "little") + package[size + 4 :],
        )
