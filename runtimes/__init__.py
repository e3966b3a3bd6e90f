"""What runs inside a worker besides Python's own, as files: imported as ``funcplat.runtimes``.

``funcplat/runtimes`` is a link to this directory, so that a checkout, an editable install and a wheel alike
hold it inside the package.  What a wheel takes is in setup.cfg.
"""

from __future__ import annotations

import pathlib

from funcplat import errors


def directory(language: str) -> pathlib.Path:
    """The directory of a language's worker and Dockerfile: ``python`` or ``nodejs``.

    Raises ConfigError for a language that has none.
    """
    path = pathlib.Path(__file__).resolve().parent / language
    if language in languages():
        return path
    raise errors.ConfigError(f"there is no runtime of {language!r}; there are: {', '.join(languages())}")


def languages() -> list[str]:
    """Those that have a directory."""
    return sorted(path.name for path in pathlib.Path(__file__).resolve().parent.iterdir() if _is_one(path))


def _is_one(path: pathlib.Path) -> bool:
    return path.is_dir() and not path.name.startswith(("_", "."))
