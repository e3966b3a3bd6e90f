"""What all lists share: who sees what, filters with operators, sorting and paging."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity

MAX_LIMIT = 10_000
"""Most rows of one page."""

OPERATORS: dict[str, Callable[[Any, str], Any]] = {
    "in": lambda column, value: column.in_(value.split(",")),
    "nin": lambda column, value: column.not_in(value.split(",")),
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    # LIKE minds the case on some databases and not on others.
    "has": lambda column, value: column.icontains(value, autoescape=True),
}
"""The prefixes of a filter's value (API.md section 1.4)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list, as a caller asks for it."""

    limit: int | None = None  # rows; None: all
    marker: str | None = None  # id of the last row of the page before
    sort_key: str = "created_at"
    sort_dir: str = "asc"
    all_projects: bool = False
    project_id: str | None = None  # admins: of that project
    filters: Mapping[str, str] = dataclasses.field(default_factory=dict)  # column -> [operator:]value


def scope(table: sa.Table, identity: Identity) -> sa.ColumnElement[bool]:
    """Which single rows the caller may see: their project's; admins every one (API.md section 11)."""
    return sa.true() if identity.is_admin else table.c.project_id == identity.project_id


def list_scope(table: sa.Table, identity: Identity, listing: Listing) -> sa.ColumnElement[bool]:
    """Which rows of a list: the caller's project's, unless an admin asks for others."""
    if listing.project_id is not None and identity.is_admin:
        return condition(table.c.project_id, listing.project_id)
    if listing.all_projects:
        return sa.true()
    return table.c.project_id == identity.project_id


def condition(column: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    """A filter: ``value`` or ``operator:value``."""
    operator, colon, value = text.partition(":")
    if colon and operator in OPERATORS:
        result: sa.ColumnElement[bool] = OPERATORS[operator](column, value)
        return result
    return column == text


def page(
    connection: sa.Connection,
    table: sa.Table,
    columns: list[sa.ColumnElement[Any]],
    where: sa.ColumnElement[bool],
    listing: Listing,
    filtered: Mapping[str, sa.ColumnElement[Any]] | None = None,
) -> list[Any]:
    """The rows of one page.  Raises InvalidRequest for an unknown sort key, direction or marker.

    ``filtered``: what filters of these names look at, where it is not the column of that name.
    """
    key = _sort_column(table, columns, listing.sort_key)
    if listing.sort_dir not in ("asc", "desc"):
        raise errors.InvalidRequest("sort_dir must be asc or desc")
    scope = where
    for name, text in listing.filters.items():
        where = sa.and_(where, condition((filtered or table.c).get(name, table.c[name]), text))
    if listing.marker is not None:
        where = sa.and_(where, _after(connection, table, key, scope, listing))
    direction = sa.asc if listing.sort_dir == "asc" else sa.desc
    query = sa.select(*columns).where(where).order_by(direction(key), direction(table.c.id))
    if listing.limit is not None:
        query = query.limit(_checked_limit(listing.limit))
    return list(connection.execute(query))


def _sort_column(table: sa.Table, columns: list[sa.ColumnElement[Any]], name: str) -> sa.ColumnElement[Any]:
    column = table.c.get(name)
    # Only what callers see: the order of other columns would tell what is in them.
    if column is None or name in ("environment", "code") or name not in {each.key for each in columns}:
        raise errors.InvalidRequest(f"sort_key {name[:64]!r} is not a field that can be sorted by")
    if isinstance(column.type, sa.Boolean):
        # Truth values have no order everywhere.
        return sa.func.coalesce(sa.cast(column, sa.Integer), sa.literal(0))
    if not column.nullable:
        return column
    # Null sorts differently on every database, and cannot be compared with a marker.
    return sa.func.coalesce(column, sa.literal("" if isinstance(column.type, sa.String) else 0))


def _checked_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise errors.InvalidRequest(f"limit must be from 1 to {MAX_LIMIT}")
    return limit


def _after(
    connection: sa.Connection,
    table: sa.Table,
    key: sa.ColumnElement[Any],
    scope: sa.ColumnElement[bool],
    listing: Listing,
) -> sa.ColumnElement[bool]:
    # Not among the filtered: what the marker's row is like may have changed since its page was read.
    row = connection.execute(sa.select(key).where(table.c.id == listing.marker, scope)).first()
    if row is None:
        raise errors.InvalidRequest(f"marker {str(listing.marker)[:64]!r} is not the id of a resource")
    if listing.sort_dir == "asc":
        return sa.or_(key > row[0], sa.and_(key == row[0], table.c.id > listing.marker))
    return sa.or_(key < row[0], sa.and_(key == row[0], table.c.id < listing.marker))
