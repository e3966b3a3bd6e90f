"""Packages on this machine: received, checked, unpacked, and kept unpacked for workers.

An upload goes through a `Spool` and `check`; what a store holds goes through a `CodeCache`, which unpacks
it once for all workers of this machine.  This module is the door; the rooms are behind it.
"""

from __future__ import annotations

from funcplat.core.codecache import CodeCache
from funcplat.core.package_rules import PackageLimits
from funcplat.core.spools import Spool, Spooled
from funcplat.core.unpacking import check, unpack

__all__ = ["CodeCache", "PackageLimits", "Spool", "Spooled", "check", "unpack"]
