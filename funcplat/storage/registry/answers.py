"""What a registry's status and its error document mean."""

from __future__ import annotations

import json
from typing import Any

from funcplat import errors
from funcplat.storage.registry import failures
from funcplat.storage.registry.transport import Answer, place

LONGEST_DETAIL = 300
"""Characters of a registry's own words that are passed on."""


def expect(answer: Answer, *statuses: int) -> None:
    """Raise the failure that an answer means unless its status is one of these."""
    if answer.status not in statuses:
        raise failure(answer)


def failure(answer: Answer) -> errors.DriverError:
    """The failure that an answer means."""
    where, said = place(answer.url), described(answer)
    if answer.status in (401, 403):
        return failures.Denied(
            f"{where} does not allow this ({said}); the credentials must reach this repository, if it exists"
        )
    if answer.status == 404:
        return failures.Missing(f"{where} does not have it ({said})")
    if answer.status == 413:
        return errors.DriverError(
            f"{where} does not take as much ({said}); raise the limit there, or that of a proxy before it"
        )
    if answer.status == 429:
        after = answer.headers.get("retry-after", "")
        when = f"in {after} s" if after.isdecimal() else "later"
        return failures.RateLimited(
            f"{where} takes no more requests for now ({said}); "
            f"try again {when}, or as a user with a higher limit"
        )
    if answer.status == 408 or answer.status >= 500:
        return errors.DriverUnavailable(f"{where} cannot serve this now ({said}); look into its log")
    return errors.DriverError(f"{where} refuses this ({said})")


def described(answer: Answer) -> str:
    """The status, and the codes and messages of the error document where there is one."""
    words = [str(answer.status)]
    for entry in _entries(answer):
        words.append(" ".join(str(entry[key]) for key in ("code", "message") if entry.get(key)))
    text = "; ".join(filter(None, words))
    return "".join(each if each.isprintable() else "?" for each in text[:LONGEST_DETAIL])


def codes(answer: Answer) -> set[str]:
    """The codes of the error document, such as MANIFEST_UNKNOWN."""
    return {str(entry.get("code", "")).upper() for entry in _entries(answer)}


def _entries(answer: Answer) -> list[dict[str, Any]]:
    """Those of an error document; what is not one has none.  The body can be read once."""
    try:
        value = json.loads(answer.document)
    except (ValueError, RecursionError):
        return []
    entries = value.get("errors") if isinstance(value, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
