"""What a package may hold: the rules that need nothing but its directory.

Each rule that is broken has an error of its own in `funcplat.errors`, which names the member and the limit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import stat
import unicodedata

from oslo_config import cfg

from funcplat import errors
from funcplat.core.archive_records import Entry

MAX_COMPONENT = 255
"""Bytes of one part of a path, in UTF-8: what file systems take."""

MAX_PATH = 3840
"""Bytes of a path: what the kernel takes (4096), less room for the directory that it is unpacked in."""

RATIO_FLOOR = 1024 * 1024
"""Bytes from which on a member's ratio counts: small files of one repeated line are no bombs."""

_DRIVE = re.compile("[A-Za-z]:")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_TYPES = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
}


@dataclasses.dataclass(frozen=True, slots=True)
class PackageLimits:
    """How large a package may be."""

    max_size: int  # bytes of the archive
    members: int  # files and directories, those included that only paths imply
    depth: int  # directories inside each other
    unpacked_size: int  # bytes of all files together
    ratio: float  # unpacked to packed bytes of a member over RATIO_FLOOR

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> PackageLimits:
        """The limits of ``[api]`` and ``[resource_limits]``."""
        limits = conf.resource_limits
        return cls(
            conf.api.max_package_size,
            limits.package_members,
            limits.package_depth,
            limits.package_unpacked_size,
            limits.package_ratio,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """A taken path: how it was spelled, what is there, and whether a member of its own says so."""

    spelling: bytes
    is_directory: bool
    explicit: bool


class Rules:
    """Admits the members of one package, in any order.  Not thread-safe."""

    def __init__(self, limits: PackageLimits) -> None:
        self._limits = limits
        self._total = 0
        # Paths are kept as hashes: a directory of long names costs no more memory than one of short ones.
        self._places: dict[bytes, _Place] = {}

    def admit(self, entry: Entry) -> None:
        """Raise the kind of InvalidPackage that says why this member cannot be part of the package."""
        check_name(entry)
        _check_type(entry)
        self._check_sizes(entry)
        path = entry.name.removesuffix("/")
        depth = path.count("/") + entry.is_directory
        if depth > self._limits.depth:
            raise errors.PackageTooDeep(
                f"Member {entry} lies {depth} directories deep; the limit is {self._limits.depth}."
            )
        self._claim(path, entry)
        while "/" in path:
            path = path.rpartition("/")[0]
            if not self._claim(path, entry, explicit=False):
                break  # it was here before, and so were the directories above it

    def _check_sizes(self, entry: Entry) -> None:
        self._total += entry.size
        if self._total > self._limits.unpacked_size:
            raise errors.PackageExpandsTooLarge(
                f"With member {entry} the package unpacks to {self._total} bytes or more; "
                f"the limit is {self._limits.unpacked_size}."
            )
        if entry.size > RATIO_FLOOR and entry.size > self._limits.ratio * max(entry.packed, 1):
            raise errors.PackageRatio(
                f"Member {entry} unpacks from {entry.packed} to {entry.size} bytes; the highest ratio "
                f"allowed is {self._limits.ratio:g}. Store such data outside of the package."
            )

    def _claim(self, path: str, entry: Entry, explicit: bool = True) -> bool:
        """Take a path for a member or for a directory above it; tell whether the path is new."""
        place = _Place(_hashed(path), entry.is_directory or not explicit, explicit)
        key = _hashed(_folded(path))
        known = self._places.get(key)
        if known is not None:
            _check_shareable(known, place, path)
            self._places[key] = dataclasses.replace(known, explicit=known.explicit or explicit)
            return False
        self._places[key] = place
        if len(self._places) > self._limits.members:
            raise too_many(self._limits)
        return True


def too_many(limits: PackageLimits) -> errors.PackageTooManyMembers:
    return errors.PackageTooManyMembers(
        f"The package has more than {limits.members} files and directories, which is the limit."
    )


def check_name(entry: Entry) -> None:
    """Raise PackageMemberName for a name that would leave the package or cannot be stored."""
    fault = _name_fault(entry.name) or ("contains a NUL" if b"\0" in entry.raw_name else None)
    if fault is not None:
        raise errors.PackageMemberName(f"The name of member {entry} {fault}.")


def _name_fault(name: str) -> str | None:
    """What is wrong with a name, as the rest of a sentence."""
    if _CONTROL.search(name):
        return "contains a NUL or another control character"
    if "\\" in name:
        return "contains a backslash; paths in ZIP archives are separated by slashes"
    if name.startswith("/") or _DRIVE.match(name):
        return "is absolute; names must be relative to the package"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return 'contains ".." and could leave the package'
    if "" in parts or "." in parts:
        return 'has an empty part or a part "."'
    if max(len(part.encode()) for part in parts) > MAX_COMPONENT:
        return f"has a part of more than {MAX_COMPONENT} bytes"
    if len(name.encode()) > MAX_PATH:
        return f"has more than {MAX_PATH} bytes"
    return None


def _check_type(entry: Entry) -> None:
    kind = stat.S_IFMT(entry.mode)
    # A name that ends in a slash makes a directory to every reader, whatever nonsense its archiver wrote
    # beside it (some call directories files, some set all bits).
    if kind in _TYPES if entry.is_directory else kind not in (0, stat.S_IFREG):
        other = "directory, which its name denies" if kind == stat.S_IFDIR else "file of no known type"
        what = _TYPES.get(kind, other)
        raise errors.PackageMemberType(f"Member {entry} is a {what}; a package holds files and directories.")
    if entry.is_directory and entry.size:
        raise errors.PackageMemberType(
            f"Member {entry} is a directory and has {entry.size} bytes of content."
        )


def _check_shareable(known: _Place, place: _Place, path: str) -> None:
    """Only a directory may be named again, in the same spelling, and have one member of its own."""
    name = path if len(path) <= 80 else f"{path[:60]}...{path[-17:]}"
    if known.is_directory != place.is_directory:
        raise errors.PackageDuplicateMember(f"The package has both a file and a directory {name!r}.")
    if known.spelling != place.spelling:
        raise errors.PackageDuplicateMember(
            f"The package has {name!r} and the same name in other letter case or another encoding of accents."
        )
    if not known.is_directory or (known.explicit and place.explicit):
        raise errors.PackageDuplicateMember(f"The package has two members {name!r}.")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
