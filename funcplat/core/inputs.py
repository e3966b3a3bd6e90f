"""Inputs of executions: what callers give, as functions get it (API.md section 8)."""

from __future__ import annotations

import json
from typing import Any

from funcplat import errors

MAX_DEPTH = 500
"""Deepest nesting of an input: what every parser on its way to the function can read without running out."""


def normalised(value: str | dict[str, Any] | None, limit: int) -> str | None:
    """What is stored of an input and given to the function: a JSON object written anew, or the text itself.

    ``limit`` in bytes.  Raises TooLarge, and InvalidRequest for what is nested too deeply.
    """
    if value is None or value in ("", "null"):
        return None
    text = value
    if not isinstance(value, str) or value.lstrip()[:1] == "{":
        text = _rewritten(value)
    assert isinstance(text, str)
    if len(text) > limit or len(text.encode("utf-8")) > limit:
        raise errors.TooLarge(f"input is larger than the limit of {limit} bytes.")
    return text


def _rewritten(value: str | dict[str, Any]) -> str:
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(decoded)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError:
        return str(value)  # not JSON: the function gets it as it is
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_deeper(decoded, MAX_DEPTH):
        raise _too_deep()
    return text


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether JSON is nested deeper than ``depth``; without recursion, which is what runs out."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


def _too_deep() -> errors.InvalidRequest:
    return errors.InvalidRequest(f"input is nested too deeply: {MAX_DEPTH} levels are the most.")
