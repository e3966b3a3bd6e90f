"""What a zygote imports before it forks workers, so that workers share the memory of it."""

from __future__ import annotations

MODULES = (
    "funcplat.worker.supervisor",
    # Imported only when needed, but then quickly.
    "linecache",
    "tokenize",
    "traceback",
)

HIDDEN = (
    "funcplat",
    *(
        f"funcplat.worker{name}"
        for name in (
            "",
            ".board",
            ".bodies",
            ".channel",
            ".connection",
            ".entry",
            ".frames",
            ".guest",
            ".handler",
            ".handlers",
            ".host",
            ".http",
            ".kernel",
            ".lender",
            ".load",
            ".log",
            ".loop",
            ".pool",
            ".preload",
            ".service",
            ".streams",
            ".supervisor",
            ".tree",
            ".verdicts",
        )
    ),
)
"""The modules of the platform that are loaded in a handler and that functions shall not find."""
