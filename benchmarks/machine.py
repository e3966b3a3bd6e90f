"""What the numbers were measured on, and whether it had time for that."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import re
import time

QUIET = 0.05
"""Share of the processors that others may use on a machine that counts as quiet."""
LOOK = 3.0
"""Seconds for which the machine is watched before anything is started."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine, by nothing that names it."""

    cpu: str
    cores: int
    memory: int  # bytes
    kernel: str
    python: str
    load_before: tuple[float, float, float]
    used_before: float  # share of the processors used by others, 0 to 1

    @property
    def busy(self) -> bool:
        return self.used_before > QUIET

    def describe(self) -> list[str]:
        load = " ".join(f"{value:.2f}" for value in self.load_before)
        parts = (
            self.cpu,
            f"{self.cores} cores",
            f"{self.memory / 2**30:.0f} GiB",
            f"Linux {self.kernel}",
            f"Python {self.python}",
        )
        lines = [
            f"machine: {', '.join(parts)}",
            f"before: load average {load}; others used {self.used_before:.0%} of the processors",
        ]
        if self.busy:
            lines.append(
                "BUSY: others are using this machine. Absolute numbers mean little; ratios suffer less, "
                "but a peer that uses more processes suffers more."
            )
        return lines


def look() -> Machine:
    """Watch the machine for a moment."""
    load = os.getloadavg()
    busy, total = _ticks()
    time.sleep(LOOK)
    busy_after, total_after = _ticks()
    return Machine(
        cpu=_field("/proc/cpuinfo", r"model name\s*: (.*)"),
        cores=os.cpu_count() or 1,
        memory=int(_field("/proc/meminfo", r"MemTotal:\s*(\d+)")) * 1024,
        # A vendor's suffix says where the machine is, and nothing about it.
        kernel=re.match(r"[\d.]*\d", platform.release())[0],  # type: ignore[index]
        python=platform.python_version(),
        load_before=load,
        used_before=(busy_after - busy) / max(1, total_after - total),
    )


def _ticks() -> tuple[int, int]:
    first = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0]
    ticks = [int(word) for word in first.split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _field(path: str, pattern: str) -> str:
    found = re.search(pattern, pathlib.Path(path).read_text())
    return found[1].strip() if found else "unknown"
