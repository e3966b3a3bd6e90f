"""Webhooks: addresses at which others call a function without an account.

Whoever knows the address may call, unless the webhook has a secret: then calls must be signed
(`funcplat.core.signatures`).  What becomes of a call is in `funcplat.core.deliveries`.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import listing as listings
from funcplat.core import signatures, targets
from funcplat.core.crons import SECOND
from funcplat.core.targets import Reference
from funcplat.db import models
from funcplat.db.session import Database, micros

LOG = logging.getLogger(__name__)
T = models.webhooks
FILTERS = ("function_id", "description")


@dataclasses.dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as callers see it.  Times in microseconds since the epoch."""

    id: str
    function_id: str | None
    function_alias: str | None
    function_version: int | None
    description: str | None
    project_id: str
    created_at: int
    updated_at: int | None
    previous_secret_expires_at: int | None
    rate_limit: int | None  # calls a minute
    rate_burst: int | None  # calls at once
    signed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """A webhook that was made or changed, and its secret where there is a new one: it is shown this once."""

    webhook: Webhook
    secret: str | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class NewWebhook:
    """What a caller gives to make a webhook.  None: the default."""

    reference: Reference
    description: str | None = None
    signed: bool | None = None
    secret: str | None = dataclasses.field(default=None, repr=False)  # None, where it is signed: made here
    rate_limit: int | None = None  # 0: none
    rate_burst: int | None = None  # as many as the rate's in a minute


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What a caller changes.  None: stays."""

    reference: Reference
    description: str | None = None
    signed: bool | None = None
    secret: str | None = dataclasses.field(default=None, repr=False)
    rate_limit: int | None = None  # 0: none
    rate_burst: int | None = None


class Webhooks:
    """What can be done with webhooks.  Thread-safe."""

    def __init__(self, db: Database, clock: sa.ColumnElement[int], overlap: float) -> None:
        """``clock``: SQL that gives the time in microseconds.

        ``overlap``: seconds for which a secret that was rotated out is accepted, unless the caller says else.
        """
        self._db = db
        self._clock = clock
        self._overlap = overlap

    def create(self, identity: Identity, new: NewWebhook) -> Written:
        """Raises InvalidRequest, and NotFound for a target that is not of the caller's project."""
        targets.check(new.reference)
        secret = _secret(new.signed, new.secret)
        values = {
            "id": str(uuid.uuid4()),
            **_reference_values(new.reference),
            "description": new.description,
            "secret": secret,
            **_rate(new.rate_limit, new.rate_burst, None),
            "project_id": identity.project_id,
            "created_at": micros(),
        }
        with self._db.write() as connection:
            targets.hold(connection, identity, new.reference, True, identity.project_id)
            connection.execute(sa.insert(T).values(values))
        LOG.info("webhook %s: created by project %s", values["id"], identity.project_id)
        return Written(self.get(identity, values["id"]), secret)

    def list(self, identity: Identity, listing: listings.Listing) -> list[Webhook]:
        """Raises InvalidRequest for an unknown filter."""
        where = listings.list_scope(T, identity, listing)
        with self._db.read() as connection:
            return [Webhook(*row) for row in listings.page(connection, T, COLUMNS, where, listing)]

    def get(self, identity: Identity, webhook_id: str) -> Webhook:
        """Raises NotFound for one that does not exist or is another project's."""
        with self._db.read() as connection:
            return _visible(connection, webhook_id, listings.scope(T, identity))

    def update(self, identity: Identity, webhook_id: str, changes: Changes) -> Written:
        """Change the webhook; of its own project alone, also for admins."""
        with self._db.write() as connection:
            webhook = _own(connection, identity, webhook_id)
            values = _rate(changes.rate_limit, changes.rate_burst, webhook)
            if changes.description is not None:
                values["description"] = changes.description
            values |= _changed_target(connection, identity, webhook, changes.reference)
            secret, written = _changed_secret(webhook, changes)
            values |= written
            if values:
                changed = sa.update(T).where(T.c.id == webhook_id).values(**values, updated_at=micros())
                connection.execute(changed)
        return Written(self.get(identity, webhook_id), secret)

    def rotate(
        self, identity: Identity, webhook_id: str, secret: str | None, overlap: float | None
    ) -> Written:
        """Give it another secret; the present one is accepted for ``overlap`` seconds more.

        One that is still accepted from an earlier rotation is not any more.  Raises Conflict for a webhook
        that is not signed.
        """
        secret = _secret(True, secret)
        with self._db.write() as connection:
            webhook = _own(connection, identity, webhook_id)
            if not webhook.signed:
                raise errors.Conflict(f"Webhook {webhook_id} has no secret; set signed to give it one.")
            now = connection.execute(sa.select(self._clock)).scalar_one()
            expires_at = now + int((self._overlap if overlap is None else overlap) * SECOND)
            changed = sa.update(T).where(T.c.id == webhook_id)
            # In this order: on some databases an assignment sees those that stand before it.
            changed = changed.ordered_values(
                (T.c.previous_secret, T.c.secret),
                (T.c.previous_secret_expires_at, expires_at),
                (T.c.secret, secret),
                (T.c.updated_at, micros()),
            )
            connection.execute(changed)
        LOG.info("webhook %s: another secret", webhook_id)
        return Written(self.get(identity, webhook_id), secret)

    def delete(self, identity: Identity, webhook_id: str) -> None:
        """Delete the webhook; the executions that it made stay."""
        memory = models.webhook_deliveries
        with self._db.write() as connection:
            _visible(connection, webhook_id, listings.scope(T, identity))
            connection.execute(sa.delete(T).where(T.c.id == webhook_id))
            connection.execute(sa.delete(memory).where(memory.c.webhook_id == webhook_id))
        LOG.info("webhook %s: deleted", webhook_id)


COLUMNS: list[sa.ColumnElement[Any]] = [
    T.c.secret.is_not(None).label("signed") if field.name == "signed" else T.c[field.name]
    for field in dataclasses.fields(Webhook)
]
"""The columns of `Webhook`, in order."""


def _visible(connection: sa.Connection, webhook_id: str, where: sa.ColumnElement[bool]) -> Webhook:
    row = connection.execute(sa.select(*COLUMNS).where(T.c.id == webhook_id, where)).first()
    if row is None:
        raise missing(webhook_id)
    return Webhook(*row)


def missing(webhook_id: str) -> errors.NotFound:
    return errors.NotFound(f"Webhook not found [id={webhook_id[:64]}]")


def _own(connection: sa.Connection, identity: Identity, webhook_id: str) -> Webhook:
    """The webhook, for a change: others, and calls that are counted, come before or after."""
    connection.execute(sa.select(T.c.id).where(T.c.id == webhook_id).with_for_update())
    return _visible(connection, webhook_id, T.c.project_id == identity.project_id)


# -- what is called ------------------------------------------------------------------------------------------


def _reference_values(reference: Reference) -> dict[str, Any]:
    if reference.function_alias is not None:
        reference = Reference(None, None, reference.function_alias)
    return dataclasses.asdict(reference)


def _changed_target(
    connection: sa.Connection, identity: Identity, webhook: Webhook, given: Reference
) -> dict[str, Any]:
    if given == Reference(None, None, None):
        return {}
    if given.function_alias is None:
        function_id = given.function_id or webhook.function_id
        version = webhook.function_version if given.function_version is None else given.function_version
        given = Reference(function_id, version, None)
        if function_id is None:
            raise errors.InvalidRequest("A function_version needs a function_id: the webhook has an alias.")
    targets.hold(connection, identity, given, True, webhook.project_id)
    return _reference_values(given)


# -- secrets -------------------------------------------------------------------------------------------------


def _secret(signed: bool | None, given: str | None) -> str | None:
    if given is None:
        return signatures.new_secret() if signed else None
    if signed is False:
        raise errors.InvalidRequest("A secret for a webhook that is not to be signed has no use.")
    signatures.check_secret(given)
    return given


def _changed_secret(webhook: Webhook, changes: Changes) -> tuple[str | None, dict[str, Any]]:
    """The new secret, if there is one, and the changes."""
    if webhook.signed and changes.secret is not None:
        raise errors.InvalidRequest("The webhook has a secret; rotate it to set another one.")
    if changes.signed is False and changes.secret is None:
        gone = dict.fromkeys(("secret", "previous_secret", "previous_secret_expires_at"))
        return None, gone if webhook.signed else {}
    if webhook.signed:
        return None, {}
    secret = _secret(changes.signed, changes.secret)
    return secret, {} if secret is None else {"secret": secret}


# -- rates ---------------------------------------------------------------------------------------------------


def _rate(limit: int | None, burst: int | None, webhook: Webhook | None) -> dict[str, Any]:
    """What changes of the rate: its calls a minute, and how many of them may come at once."""
    if limit is None and burst is None:
        return {}
    if limit == 0:
        return dict.fromkeys(("rate_limit", "rate_burst", "rate_paid_until"))
    if limit is None:
        limit = webhook.rate_limit if webhook is not None else None
    if limit is None:
        raise errors.InvalidRequest("rate_burst needs a rate_limit.")
    return {"rate_limit": limit, "rate_burst": burst or limit, "rate_paid_until": None}
