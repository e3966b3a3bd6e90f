"""Packages on this machine: received, checked, unpacked, and kept unpacked for workers.

An upload goes through a `Spool` and `check`; what a store holds goes through a `CodeCache`, which unpacks
it once for all workers of this machine.  This module is the door; the rooms are behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from funcplat import errors
from funcplat.core.codecache import CodeCache
from funcplat.core.package_rules import PackageLimits
from funcplat.core.spools import Spool, Spooled
from funcplat.core.unpacking import check, unpack

__all__ = ["CodeCache", "PackageLimits", "Spool", "Spooled", "check", "check_md5", "check_new", "unpack"]


def check_md5(code: Mapping[str, Any], package: Spooled) -> None:
    """Raise ChecksumMismatch where the checksum that a caller gave is not that of the package."""
    given = code.get("md5sum")
    if given and str(given).lower() != package.md5:
        raise errors.ChecksumMismatch


def check_new(current: Mapping[str, Any], code: Mapping[str, Any], package: Spooled) -> None:
    """As `check_md5`, and ChecksumUnchanged where it is that of the code that the function has."""
    if code.get("md5sum") and str(code["md5sum"]).lower() == current.get("md5sum"):
        raise errors.ChecksumUnchanged
    check_md5(code, package)
