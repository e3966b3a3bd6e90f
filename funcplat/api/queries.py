"""Query strings: what lists understand, and how."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.auth.policy import Policy
from funcplat.core.listing import Listing

TRUE = frozenset(("true", "1", "yes", "on", "t", "y"))
FALSE = frozenset(("false", "0", "no", "off", "f", "n", ""))
PAGING = frozenset(("limit", "marker", "sort_key", "sort_dir"))
PROJECTS = frozenset(("all_projects", "project_id"))


def boolean(name: str, text: str) -> bool:
    """A lenient boolean; raises InvalidRequest for what is none."""
    lowered = text.lower()
    if lowered in TRUE:
        return True
    if lowered in FALSE:
        return False
    raise errors.InvalidRequest(f"{name} must be true or false, not {text[:64]!r}.")


def integer(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise errors.InvalidRequest(f"{name} must be an integer, not {text[:64]!r}.") from error
    if abs(value) >= 2**31:
        raise errors.InvalidRequest(f"{name} is out of range.")
    return value


def version(name: str, text: str) -> int:
    """A number of a version, 0 included."""
    value = integer(name, text)
    if value < 0:
        raise errors.InvalidRequest(f"{name} must not be negative.")
    return value


def single(params: Mapping[str, Any]) -> dict[str, str]:
    """Query parameters with one value each: the last one given."""
    return {key: value[-1] if isinstance(value, list) else value for key, value in params.items()}


def listing(
    query: Mapping[str, str],
    filters: Collection[str],
    identity: Identity,
    policy: Policy,
    rule: str | None,
) -> Listing:
    """What a caller asks of a list.

    ``rule`` is the policy rule of all_projects; None where the list knows no projects.  Raises InvalidRequest
    for unknown parameters, Forbidden where all_projects is not the caller's to ask.
    """
    allowed = PAGING | (PROJECTS if rule is not None else frozenset()) | frozenset(filters)
    for name in sorted(query.keys() - allowed):
        raise errors.InvalidRequest(f'Unknown argument: "{name[:64]}"')
    for name, value in query.items():
        if "\0" in value:
            raise errors.InvalidRequest(f"{name} has a character that cannot be stored.")
    all_projects = boolean("all_projects", query.get("all_projects", ""))
    if all_projects and rule is not None:
        policy.check(rule, identity)
    return Listing(
        limit=integer("limit", query["limit"]) if "limit" in query else None,
        marker=query.get("marker"),
        sort_key=query.get("sort_key", "created_at"),
        sort_dir=query.get("sort_dir", "asc"),
        all_projects=all_projects,
        project_id=query.get("project_id"),
        filters={name: query[name] for name in filters if name in query},
    )
