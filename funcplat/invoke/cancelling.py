"""The end of executions that somebody cancels while they run."""

from __future__ import annotations

import json

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.core.queue import CANCELLED, CANCELLED_OUTPUT
from funcplat.invoke import client
from funcplat.invoke.stations import Station


async def tell(station: Station, execution_id: str) -> bool:
    """Have a worker kill an execution; False: it does not know how to."""
    try:
        connection = await client.connect(station.worker.handle.address)
    except client.NotReached:
        return True  # the call will notice by itself
    try:
        return await client.cancel(connection, station.worker.secret, execution_id)
    except errors.WorkerError:
        return True
    finally:
        connection.close()


def end(record: Record) -> None:
    """The record of an execution that was cancelled."""
    record.status, record.result = "failed", json.dumps({"output": CANCELLED_OUTPUT})
    record.reason_code, record.reason_message = CANCELLED.code, CANCELLED.message
