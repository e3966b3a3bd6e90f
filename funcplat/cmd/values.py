"""What people type and read: arguments as key=value, sizes with suffixes, JSON columns."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from cliff import columns

from funcplat.cmd import failures

_SIZE = re.compile(r"(\d+)\s*(?:([kmg])(?:i?b)?)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


def size(text: str) -> int:
    """Bytes of ``33554432``, ``64M``, ``64MB`` or ``64MiB``: every suffix is a power of 1024."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 33554432, 64M or 64MiB")
    unit: int = 1024 ** _POWERS[(found[2] or "").lower()]
    return int(found[1]) * unit


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def version(text: str) -> int:
    """The number of a version; 0 is the function's own code."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a version")
    return int(text)


def share(text: str) -> dict[str, int]:
    """``VERSION=WEIGHT``, as the wire has it."""
    number, weight = pair(text)
    return {"function_version": version(number), "weight": count(weight)}


def port(text: str) -> int:
    """A TCP port; 0 asks for any free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """The two sides of ``KEY=VALUE``; the value may be empty."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key, value


def argument(text: str) -> tuple[str, Any]:
    """``key=value`` of a call: the value is JSON where it is valid JSON, else the string itself."""
    key, value = pair(text)
    try:
        return key, json.loads(value, parse_constant=_not_json)
    except ValueError:
        return key, value


def function_input(text: str | None, arguments: Sequence[tuple[str, Any]]) -> str | None:
    """The input of an execution as it goes over the wire, or None for none.

    ``text`` is the value of --input: the input itself, ``@file`` or ``-`` for standard input.
    Arguments are put over its keys, which takes a JSON object.
    """
    given = None if text is None else _read(text)
    if not arguments:
        return given
    return json.dumps({**_object(given), **dict(arguments)})


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise failures.UsageFailure(
            f"--input together with key=value must be a JSON object: {error}"
        ) from error
    if not isinstance(value, dict):
        raise failures.UsageFailure("--input together with key=value must be a JSON object")
    return value


def _read(text: str) -> str:
    try:
        if text == "-":
            return sys.stdin.read()
        if text.startswith("@"):
            return pathlib.Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise failures.UsageFailure(f"cannot read the input: {error}") from error
    return text


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # Python's parser takes NaN and Infinity


class Structure(columns.FormattableColumn[Any]):
    """JSON text for people, and nothing for null; the value itself for scripts."""

    def human_readable(self) -> str:
        return "" if self._value is None else json.dumps(self._value, ensure_ascii=False)


class Size(columns.FormattableColumn[int | None]):
    """A size in the largest unit that divides it for people, bytes for scripts."""

    def human_readable(self) -> str:
        if self._value is None:
            return ""
        for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
            if self._value and self._value % 1024**power == 0:
                return f"{self._value // 1024**power} {unit}"
        return str(self._value)


def structure(value: Any) -> Any:
    """A cell of what the wire gives as an object, or as JSON text in a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return Structure(value)
