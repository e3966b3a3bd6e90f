"""Deliveries: calls of webhooks, from the door to the queue.

The time is the database's, and what is counted and remembered is in the database, so that it holds for any
number of servers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.core import inputs, queueing, signatures, targets, webhooks
from funcplat.core.crons import SECOND
from funcplat.core.executions import Record
from funcplat.core.signatures import Message
from funcplat.core.targets import Reference
from funcplat.db import models
from funcplat.db.session import Database

T = models.webhooks
MEMORY = models.webhook_deliveries
MINUTE = 60 * SECOND


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """What somebody sent to a webhook."""

    headers: Mapping[str, str]  # names in lower case
    body: bytes
    query: Mapping[str, Any]
    arguments: Mapping[str, Any]  # what the body holds


@dataclasses.dataclass(frozen=True, slots=True)
class Admitted:
    """A call that is let in."""

    execution_id: str
    record: Record | None  # to be queued by whoever asked; None: it is queued


@dataclasses.dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """What [webhooks] says; all in seconds but the last, which is in bytes."""

    tolerance: float  # how far the timestamp of a signed call may be off
    remember: float  # how long ids of signed calls are known
    max_input: int


class Deliveries:
    """Lets calls of webhooks in.  Thread-safe."""

    def __init__(
        self,
        db: Database,
        clock: sa.ColumnElement[int],
        options: DeliveryOptions,
        acceptance: queueing.Acceptance,
    ) -> None:
        """``clock``: SQL that gives the time in microseconds."""
        self._db = db
        self._clock = clock
        self._options = options
        self._acceptance = acceptance

    def admit(self, webhook_id: str, call: Call) -> Admitted:
        """Let a call in, or raise why not.

        A call that is signed or counted is queued here, in the transaction that counts and remembers it;
        others are the caller's to queue, together with whatever else comes at the moment.

        Raises NotFound, SignatureInvalid, TimestampRejected, Replayed, RateLimited, RuntimeNotAvailable,
        TooLarge and InvalidRequest.
        """
        with self._db.read() as connection:
            webhook = self._webhook(connection, sa.select(T), webhook_id)
            message = self._message(webhook, call, self._now(connection)) if webhook.secret else None
            record = self._record(connection, webhook, call)
            if message is None and webhook.rate_limit is not None:
                # Refused without a lock that others wait for: nobody knows who calls.
                charged(
                    webhook.rate_limit, webhook.rate_burst, webhook.rate_paid_until, self._now(connection)
                )
        if message is None and webhook.rate_limit is None:
            return Admitted(record.id, record)
        with self._db.write() as connection:
            return Admitted(self._queue(connection, webhook_id, message, record), None)

    def forget(self) -> None:
        """Forget ids of signed calls whose time is over."""
        with self._db.read() as connection:
            now = self._now(connection)
        with self._db.write(durable=False) as connection:
            connection.execute(sa.delete(MEMORY).where(MEMORY.c.expires_at < now))

    def _now(self, connection: sa.Connection) -> int:
        return int(connection.execute(sa.select(self._clock)).scalar_one())

    def _webhook(self, connection: sa.Connection, query: Any, webhook_id: str) -> Any:
        row = connection.execute(query.where(T.c.id == webhook_id)).first()
        if row is None:
            raise webhooks.missing(webhook_id)
        return row

    def _message(self, webhook: Any, call: Call, now: int) -> Message:
        accepted = [webhook.secret]
        if webhook.previous_secret is not None and now < webhook.previous_secret_expires_at:
            accepted.append(webhook.previous_secret)
        seconds = now // SECOND
        return signatures.verified(call.headers, call.body, accepted, seconds, self._options.tolerance)

    def _record(self, connection: sa.Connection, webhook: Any, call: Call) -> Record:
        reference = Reference(webhook.function_id, webhook.function_version, webhook.function_alias)
        found = targets.resolve(connection, webhook.project_id, reference)
        if found.runtime_status != "available":
            raise errors.RuntimeNotAvailable(f"Runtime {found.runtime_id} is not available.")
        # The query of a signed call is not signed: anybody on the way could have written it.
        arguments = dict(call.arguments) if webhook.secret else {**call.query, **call.arguments}
        return queueing.queued(
            found.function_id,
            found.version,
            project_id=webhook.project_id,
            description=f"Created by Webhook {webhook.id}",
            alias=webhook.function_alias,
            text=inputs.normalised(arguments, self._options.max_input),
        )

    def _queue(
        self, connection: sa.Connection, webhook_id: str, message: Message | None, record: Record
    ) -> str:
        # Calls of one webhook that are signed or counted go one after another.
        webhook = self._webhook(connection, sa.select(T).with_for_update(), webhook_id)
        now = self._now(connection)
        if message is not None and (known := self._known(connection, webhook_id, message)) is not None:
            return known
        if webhook.rate_limit is not None:
            paid_until = charged(webhook.rate_limit, webhook.rate_burst, webhook.rate_paid_until, now)
            counted = sa.update(T).where(T.c.id == webhook_id).values(rate_paid_until=paid_until)
            connection.execute(counted)
        if message is not None:
            remembered = sa.insert(MEMORY).values(
                webhook_id=webhook_id,
                message_id=message.id,
                sent_at=message.sent_at,
                execution_id=record.id,
                expires_at=now + int(self._options.remember * SECOND),
            )
            connection.execute(remembered)
        self._acceptance.enqueue(connection, [record])
        return record.id

    def _known(self, connection: sa.Connection, webhook_id: str, message: Message) -> str | None:
        """The execution of a message that was let in before, where its sender sends it again.

        Senders repeat what they had no answer to, with a timestamp of that attempt.  Who sends the same bytes
        again is not the sender: Replayed.
        """
        where = sa.and_(MEMORY.c.webhook_id == webhook_id, MEMORY.c.message_id == message.id)
        row = connection.execute(sa.select(MEMORY).where(where)).first()
        if row is None:
            return None
        if message.sent_at <= row.sent_at:
            raise errors.Replayed
        connection.execute(sa.update(MEMORY).where(where).values(sent_at=message.sent_at))
        return str(row.execution_id)


def charged(limit: int, burst: int, paid_until: int | None, now: int) -> int:
    """Until when the calls let in so far, and this one, are what the rate allows.  Raises RateLimited.

    A bucket of ``burst`` tokens that is filled with ``limit`` a minute, as one number: the time at which it
    will be full again.  Times in microseconds.
    """
    price = MINUTE / limit
    until = max(now, paid_until or 0) + price
    early = until - price * burst - now
    if early > 0.5:  # less than a microsecond is the arithmetic's
        seconds = math.ceil(early / SECOND)
        raise errors.RateLimited(
            f"The webhook takes {limit} calls a minute, {burst} at once; try again in {seconds} s.", seconds
        )
    return math.ceil(until)
